"""A phase of a build: work on the numbers ``0 <= i < count`` that may be done in any order, by any number of threads.

Each thread takes the next run of numbers when it is done with its last one, so that none waits for another before the
end of the phase. What a run does depends on its numbers alone: neither the number of threads nor how the numbers are
cut into runs changes a result. A run takes a few milliseconds; between two of them a thread looks whether to stop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass

from vecdb.errors import ResourceExhausted

_RUN_SECONDS = 0.005
_RUNS_A_THREAD = 3
"""Towards the end runs get shorter, so that threads end together: each leaves room for so many more a thread."""


class Pace:
    """How many numbers take a few milliseconds: follows the clock. No result depends on it.

    Parameters
    ----------
    first, most
        To begin with, and at most.
    """

    __slots__ = ("most", "size")

    def __init__(self, first: int, most: int) -> None:
        self.size = first
        self.most = most

    def heed(self, size: int, seconds: float) -> None:
        """Learn that ``size`` numbers took so long. Threads may overwrite what another has learnt; it is a guess."""
        wanted = int(size * _RUN_SECONDS / max(seconds, 1e-6))
        self.size = max(1, min(wanted, size * 2, self.most))


class Phase:
    """Work that is given out in runs.

    Parameters
    ----------
    count
        How many numbers there are.
    work
        Does the numbers from its first argument up to its second, which is excluded.
    pace
        How many at a time.
    """

    __slots__ = ("_lock", "_pace", "_work", "count", "taken")

    def __init__(self, count: int, work: Callable[[int, int], None], pace: Pace) -> None:
        self.count = count
        self.taken = 0
        self._work = work
        self._pace = pace
        self._lock = threading.Lock()

    @property
    def runs_left(self) -> int:
        """About how many runs are still to be given out."""
        return -(-(self.count - self.taken) // self._pace.size)

    def work_on(self, stopped: Callable[[], bool], threads: int) -> None:
        """Do runs until none is left, or until ``stopped``, asked after each, says so."""
        while True:
            with self._lock:
                first = self.taken
                left = self.count - first
                size = max(1, min(self._pace.size, left if threads == 1 else left // (threads * _RUNS_A_THREAD)))
                self.taken = end = min(first + size, self.count)
            if first == end:
                return
            start = time.perf_counter()
            self._work(first, end)
            self._pace.heed(end - first, time.perf_counter() - start)
            if stopped():
                return


@dataclass(frozen=True, slots=True)
class Crew:
    """The threads that build: the one that asks, and some that help it.

    Attributes
    ----------
    helpers
        Most threads that help.
    pool
        Where they are; ``None`` where there are none. Builds may share it.
    """

    helpers: int = 0
    pool: Executor | None = None

    def work_on(self, phase: Phase, stopped: Callable[[], bool]) -> bool:
        """Work on a phase until it is done; whether it is.

        Parameters
        ----------
        stopped
            Asked between runs, by the calling thread alone; if it says so, runs that were begun are ended, and the
            phase may be gone on with.

        Raises
        ------
        Exception
            Whatever a run raised; the phase is lost then.
        """
        threads = 1 if self.pool is None else max(1, min(1 + self.helpers, phase.runs_left))
        stop = threading.Event()
        futures: list[Future[None]] = []
        try:
            for _ in range(threads - 1):
                try:
                    futures.append(self._submit(phase, stop, threads))
                except ResourceExhausted:
                    # It can be done without help.
                    break
            phase.work_on(lambda: stop.is_set() or stopped(), threads)
        finally:
            # All runs are given out, or nobody is to take another one.
            stop.set()
            failures = [each.exception() for each in futures if not each.cancel()]
        for failure in failures:
            if failure is not None:
                raise failure
        return phase.taken == phase.count

    def _submit(self, phase: Phase, stop: threading.Event, threads: int) -> Future[None]:
        assert self.pool is not None

        def help_out() -> None:
            try:
                phase.work_on(stop.is_set, threads)
            except BaseException:
                stop.set()
                raise

        return self.pool.submit(help_out)


ALONE = Crew()
"""No thread but the one that asks."""
