"""The threads that an open database shares among its collections."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from vecdb.errors import ResourceExhausted

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


class Threads:
    """Pools of threads by what they do: each kind of background work has its own.

    Threads start when they are first needed.
    """

    def __init__(self, writer_threads: int) -> None:
        self.writers = Pool(writer_threads, "vecdb-writer")
        self.flushing = Pool(1, "vecdb-flush")
        self.indexing = Pool(1, "vecdb-index", initializer=_be_nice)
        self.compacting = Pool(1, "vecdb-compact", initializer=_be_nice)
        self.verifying = Pool(1, "vecdb-verify", initializer=_be_nice)
        self.checking = Pool(1, "vecdb-recall", initializer=_be_nice)

    def shut_down(self) -> None:
        """Wait for what runs and end the threads."""
        for pool in (self.flushing, self.indexing, self.compacting, self.verifying, self.checking, self.writers):
            pool.shutdown(wait=True, cancel_futures=False)
