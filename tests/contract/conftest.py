"""A fresh database of every implementation for every test that asks for one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.implementations import NAMES, opened
from tests.contract.memory_database import MemoryDatabase
from tests.service.running import LoopThread


@pytest.fixture(scope="session")
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture(params=NAMES)
def database(request: pytest.FixtureRequest, tmp_path: Path, loop: LoopThread) -> Iterator[Any]:
    with opened(request.param, tmp_path / "db", loop) as found:
        yield found


@pytest.fixture
def oracle() -> MemoryDatabase:
    return MemoryDatabase()
