"""A database whose answers a test can hold back, fail or count."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from tests.contract.memory_database import MemoryCollection, MemoryDatabase
from vecdb.schema import CollectionSchema


class ScriptedDatabase(MemoryDatabase):
    """Runs ``before(verb)`` in the thread of each request, where a test may wait or raise."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[str], None] = lambda _verb: None
        self.threads: list[tuple[str, str]] = []
        self.held["docs"] = ScriptedCollection(self, "docs", CollectionSchema.single(2, "l2"))

    def note(self, verb: str) -> None:
        self.threads.append((verb, threading.current_thread().name))
        self.before(verb)


class ScriptedCollection(MemoryCollection):
    database: ScriptedDatabase

    def run_write(self, request: Any) -> Any:
        self.database.note("write")
        return super().run_write(request)

    def run_search(self, request: Any) -> Any:
        self.database.note("search")
        return super().run_search(request)

    def run_count(self, request: Any) -> Any:
        self.database.note("count")
        return super().run_count(request)

    def wait_indexed(self, timeout_s: float = 600.0) -> None:
        self.database.note("wait_indexed")
