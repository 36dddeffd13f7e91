"""What every test shares: Hypothesis profiles, seeded random numbers, a directory in memory, the table of promises.

``gate`` runs with every commit and is the same on every run; ``long`` (``--hypothesis-profile=long``) searches further
and differently each time. Neither has a deadline: the first call of a kernel compiles it.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from tests.trust import pytest_addoption, pytest_terminal_summary, trust
from tests.workers import pytest_sessionstart, pytest_xdist_auto_num_workers

__all__ = [
    "interruptible",
    "pytest_addoption",
    "pytest_sessionstart",
    "pytest_terminal_summary",
    "pytest_xdist_auto_num_workers",
    "quick_directory",
    "rng",
    "trust",
]

MEMORY = Path("/dev/shm")

settings.register_profile(
    "gate",
    deadline=None,
    derandomize=True,
    max_examples=50,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "long",
    deadline=None,
    max_examples=2_000,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("gate")


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same on every run."""
    return np.random.default_rng(20_240_229)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT interrupts: a shell without job control starts what runs in the background with that signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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
