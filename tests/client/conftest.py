"""An event loop in a thread for the servers of these tests."""

from collections.abc import Iterator

import pytest

from tests.service.running import LoopThread


@pytest.fixture(scope="session")
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()
