"""What the crash tests share: fork servers, and a directory in memory where the machine has one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.forks import Forks, forks

MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def servers() -> Iterator[Forks]:
    """Two fork servers."""
    with forks() as found:
        yield found


@pytest.fixture
def quick_directory(tmp_path: Path) -> Iterator[Path]:
    """A directory in which real syncs cost nothing; what is lost here is decided by the test, not by the disk."""
    if not os.access(MEMORY, os.W_OK | os.X_OK):
        yield tmp_path
        return
    directory = Path(tempfile.mkdtemp(prefix="vecdb-crash-", dir=MEMORY))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
