"""The implementations that the contract holds for, each behind the synchronous verbs of ``vecdb.api``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.contract.memory_database import MemoryDatabase
from tests.service.running import LoopThread, serving
from vecdb.client import connect, connect_async
from vecdb.client.aio import AsyncCollection, AsyncRemoteDatabase
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.options import EngineOptions

NAMES = ("memory", "embedded", "served", "asyncio")


def open_embedded(path: Path) -> EmbeddedDatabase:
    """With kernels in NumPy: the contract is about answers, and compiling takes longer than all of them."""
    return EmbeddedDatabase.open(path, options=EngineOptions(kernels="reference"))


class AwaitedCollection:
    """An ``AsyncCollection`` whose verbs wait for their results."""

    def __init__(self, loop: LoopThread, collection: AsyncCollection) -> None:
        self._loop = loop
        self._collection = collection
        self.name = collection.name
        self.collection_id = collection.collection_id
        self.schema = collection.schema

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        method = getattr(self._collection, verb)
        return lambda *arguments, **named: self._loop.run(method(*arguments, **named))

    def scroll(self, *arguments: Any, **named: Any) -> Iterator[Any]:
        async def collect() -> list[Any]:
            return [point async for point in self._collection.scroll(*arguments, **named)]

        return iter(self._loop.run(collect()))

    def __len__(self) -> int:
        return self.count()


class AwaitedDatabase:
    """An ``AsyncRemoteDatabase`` whose verbs wait for their results."""

    def __init__(self, loop: LoopThread, database: AsyncRemoteDatabase) -> None:
        self._loop = loop
        self._database = database

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        method = getattr(self._database, verb)

        def call(*arguments: Any, **named: Any) -> Any:
            result = self._loop.run(method(*arguments, **named))
            return AwaitedCollection(self._loop, result) if isinstance(result, AsyncCollection) else result

        return call

    def __enter__(self) -> AwaitedDatabase:
        self._loop.run(self._database.__aenter__())
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()


@contextmanager
def opened(name: str, path: Path, loop: LoopThread) -> Iterator[Any]:
    """A fresh database of the implementation called ``name``."""
    with ExitStack() as stack:
        if name == "memory":
            yield stack.enter_context(MemoryDatabase())
        elif name == "embedded":
            yield stack.enter_context(open_embedded(path))
        else:
            server = stack.enter_context(serving(loop, open_embedded(path)))
            if name == "served":
                yield stack.enter_context(connect(server.address))
            else:
                yield stack.enter_context(AwaitedDatabase(loop, connect_async(server.address)))
