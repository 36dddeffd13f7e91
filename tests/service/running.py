"""A server beside the tests: an event loop in a thread, which serves, and runs the coroutines of asyncio clients."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from vecdb.api import Database
from vecdb.service import Server, ServerOptions

_Result = TypeVar("_Result")


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="tests-loop", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout=120)

    def close(self) -> None:
        self.run(self.loop.shutdown_asyncgens())
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@contextmanager
def serving(loop: LoopThread, database: Database, **options: Any) -> Iterator[Server]:
    """A server for ``database`` on a free port of the loopback interface."""
    options.setdefault("address", "127.0.0.1:0")
    options.setdefault("grace_s", 0.5)

    async def make() -> Server:
        server = Server(database, ServerOptions(**options))
        await server.start()
        return server

    server = loop.run(make())
    try:
        yield server
    finally:
        loop.run(server.stop())
        database.close()
        loop.run(server.join())
