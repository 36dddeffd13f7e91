"""The threads that an open database shares among its collections."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

BACKGROUND_NICENESS = 10


def _be_nice() -> None:
    """Let searches and writes go first. Linux keeps a niceness for each thread."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BACKGROUND_NICENESS)


class Threads:
    """Pools for committing writes, for flushing, for building indexes, for merging segments and for verifying files.

    Threads start when they are first needed.
    """

    def __init__(self, writer_threads: int) -> None:
        self.writers = ThreadPoolExecutor(writer_threads, "vecdb-writer")
        self.flushing = ThreadPoolExecutor(1, "vecdb-flush")
        self.indexing = ThreadPoolExecutor(1, "vecdb-index", initializer=_be_nice)
        self.compacting = ThreadPoolExecutor(1, "vecdb-compact", initializer=_be_nice)
        self.verifying = ThreadPoolExecutor(1, "vecdb-verify", initializer=_be_nice)

    def shut_down(self) -> None:
        """Wait for what runs and end the threads."""
        for pool in (self.flushing, self.indexing, self.compacting, self.verifying, self.writers):
            pool.shutdown(wait=True, cancel_futures=False)
