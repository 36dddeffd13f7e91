"""The threads that an open database shares among its collections."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from vecdb.errors import ResourceExhausted
from vecdb.index.hnsw import Crew

P = ParamSpec("P")
Result = TypeVar("Result")

BACKGROUND_NICENESS = 10


def _be_nice() -> None:
    """Let searches and writes go first. Linux keeps a niceness for each thread."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BACKGROUND_NICENESS)


class Pool(ThreadPoolExecutor):
    """A pool of threads that are started when they are first needed, which the system may refuse."""

    def submit(self, call: Callable[P, Result], /, *arguments: P.args, **named: P.kwargs) -> Future[Result]:
        """Have a thread call ``call``.

        Raises
        ------
        ResourceExhausted
            There is no thread yet, and the system has no memory for one. It may be called later, by a thread of then.
        """
        try:
            return super().submit(call, *arguments, **named)
        except RuntimeError as error:
            raise ResourceExhausted(f"no thread could be started: {error}", field="threads") from error


def cores_allowed() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


class Threads:
    """Pools of threads by what they do: each kind of background work has its own.

    Threads start when they are first needed.

    Parameters
    ----------
    build_threads
        Threads that build one graph together: the one that builds indexes or merges segments, and helpers that both
        share.
    """

    def __init__(self, writer_threads: int, build_threads: int = 1) -> None:
        self.writers = Pool(writer_threads, "vecdb-writer")
        self.flushing = Pool(1, "vecdb-flush")
        self.indexing = Pool(1, "vecdb-index", initializer=_be_nice)
        self.compacting = Pool(1, "vecdb-compact", initializer=_be_nice)
        self.verifying = Pool(1, "vecdb-verify", initializer=_be_nice)
        helpers = build_threads - 1
        self.helping = Pool(max(1, helpers), "vecdb-build", initializer=_be_nice)
        self.checking = Pool(1, "vecdb-recall", initializer=_be_nice)
        self.crew = Crew(helpers, self.helping if helpers else None)

    def shut_down(self) -> None:
        """Wait for what runs and end the threads."""
        background = (self.flushing, self.indexing, self.compacting, self.helping, self.verifying, self.checking)
        for pool in (*background, self.writers):
            pool.shutdown(wait=True, cancel_futures=False)
