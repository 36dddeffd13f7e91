"""Background work: what is asked for while it runs is done once more, and asking again costs nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from vecdb.engine.background import BackgroundWork
from vecdb.engine.threads import Pool


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(1, "work")
    yield pool
    pool.shutdown(wait=True)


class Gated:
    """Work that runs as often as it is let, and fails where it is told to."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.fails = False

    def __call__(self) -> None:
        self.begun.release()
        assert self.go_on.acquire(timeout=30)
        if self.fails:
            raise MemoryError


def test_what_is_asked_for_while_it_runs_is_done_once_more(pool: Pool) -> None:
    gated = Gated()
    work = BackgroundWork(pool, gated)
    work.schedule()
    assert gated.begun.acquire(timeout=30)
    for _ in range(5):
        work.schedule()
    gated.go_on.release(2)
    assert gated.begun.acquire(timeout=30)
    work.stop()
    assert not gated.begun.acquire(blocking=False)


def test_asking_for_what_is_wanted_already_changes_no_thread(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    gated = Gated()
    work = BackgroundWork(pool, gated)
    asked: list[None] = []
    want = work._want
    monkeypatch.setattr(work, "_want", lambda: (asked.append(None), want()))
    work.schedule()
    assert gated.begun.acquire(timeout=30)
    for _ in range(100):
        work.schedule()
    assert len(asked) == 2
    gated.go_on.release(2)
    work.stop()


def test_work_that_failed_is_begun_again(pool: Pool) -> None:
    gated = Gated()
    work = BackgroundWork(pool, gated)
    gated.fails = True
    work.schedule()
    assert gated.begun.acquire(timeout=30)
    work.schedule()  # Wanted once more, and lost with the failure.
    running = work._future
    assert running is not None
    gated.go_on.release()
    assert isinstance(running.exception(timeout=30), MemoryError)
    gated.fails = False
    work.schedule()
    assert gated.begun.acquire(timeout=30)
    gated.go_on.release()
    work.stop()
