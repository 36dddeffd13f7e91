"""The database of a server, for asyncio: the verbs of ``vecdb.api`` with the same arguments, to be awaited."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar

import grpc
import grpc.aio
from numpy.typing import ArrayLike

from vecdb.api import SCROLL_PAGE_ROWS
from vecdb.arguments import (
    RecallArgument,
    VectorsArgument,
    WhereArgument,
    count_request,
    delete_request,
    get_request,
    schema_of,
    scroll_request,
    search_request,
    upsert_request,
)
from vecdb.client import calls
from vecdb.client.aio_session import AsyncSession
from vecdb.client.attempts import Attempts
from vecdb.client.calls import KINDS, REPLY_TYPES, SERVICE, STREAMING, Call, Described
from vecdb.client.connection import (
    CHANNEL_OPTIONS,
    TIMEOUT_S,
    Handle,
    Tls,
    checked_address,
    checked_timeout_s,
    credentials,
)
from vecdb.client.sessions import SessionLost
from vecdb.errors import NotFound
from vecdb.explanation import Explanation
from vecdb.results.backup import BackupReport
from vecdb.results.compaction import CompactionReport
from vecdb.results.hits import Hits
from vecdb.results.points import Page, Point
from vecdb.results.snapshot import SnapshotInfo
from vecdb.results.stats import CollectionStats
from vecdb.results.warming import WarmReport
from vecdb.results.write import WriteResult
from vecdb.schema import CollectionSchema, IndexSpec
from vecdb.types import Metric, Payload, PointId

_Result = TypeVar("_Result")
_log = logging.getLogger("vecdb.client")


def connect_async(address: str, *, timeout_s: float = TIMEOUT_S, tls: Tls = False) -> AsyncRemoteDatabase:
    """The database of a server, for asyncio; arguments as for ``connect``.

    The connection is made by the first call, or on entering ``async with``, which raises Unavailable where no vecdb
    server answers.
    """
    return AsyncRemoteDatabase(address, timeout_s=timeout_s, tls=tls)


class AsyncRemoteDatabase:
    """The collections of a server, over one connection, for one event loop. Made by ``connect_async``.

    Attributes
    ----------
    address
        Where the server is.
    """

    def __init__(self, address: str, *, timeout_s: float, tls: Tls) -> None:
        self.address = checked_address(address)
        self._timeout_s = checked_timeout_s(timeout_s)
        self._handle = Handle()
        self._credentials = credentials(tls)
        self._channel: grpc.aio.Channel | None = None
        self._stubs: dict[str, Any] = {}
        self._session = AsyncSession(lambda: self._stub("SearchSession")())

    async def create_collection(
        self,
        name: str,
        dim: int | None = None,
        metric: Metric | str | None = None,
        index: IndexSpec | str | None = None,
        *,
        schema: CollectionSchema | None = None,
        exist_ok: bool = False,
    ) -> AsyncCollection:
        """Make a collection; see ``Database.create_collection``."""
        return AsyncCollection(
            self, await self.run(calls.create(name, schema_of(dim, metric, index, schema), exist_ok))
        )

    async def collection(self, name: str) -> AsyncCollection:
        """The collection called ``name``; raises NotFound."""
        return AsyncCollection(self, await self.run(calls.describe(name)))

    async def collections(self) -> Sequence[str]:
        """The names of all collections, sorted."""
        return await self.run(calls.names())

    async def drop_collection(self, name: str) -> None:
        """Remove the collection and its files; raises NotFound."""
        await self.run(calls.drop(name))

    async def warm(self, *, with_vectors: bool = False) -> WarmReport:
        """``AsyncCollection.warm`` of one collection after the other; one that is dropped meanwhile is left out."""
        reports = []
        for name in await self.collections():
            with suppress(NotFound):
                collection = await self.collection(name)
                reports.append(await collection.warm(with_vectors=with_vectors))
        return WarmReport.of_all(reports)

    async def backup(
        self,
        target: str | Path | BinaryIO,
        *,
        since: str | Path | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> BackupReport:
        """Write all collections into one file on this machine; see ``Database.backup``."""
        # Only who takes a backup needs to read and write files.
        from vecdb.archive.manifest import report_of
        from vecdb.archive.reading import read_manifest_bytes
        from vecdb.archive.target import output_to

        self._handle.check()
        since_manifest = b"" if since is None else await _in_thread(read_manifest_bytes, since)
        output = await _in_thread(output_to, target)
        call = calls.backup(since_manifest)
        attempts = Attempts(call, self._timeout_s, self.address)
        manifest, size_bytes = b"", 0
        try:
            async for reply in self._stub(call.method)(call.request, timeout=attempts.remaining_s()):
                if reply.data:
                    await _in_thread(output.write, reply.data)
                    size_bytes += len(reply.data)
                    if progress is not None:
                        progress(len(reply.data))
                manifest = reply.manifest
            if not manifest:
                raise calls.backup_ended_early()
            await _in_thread(output.finish)
        except grpc.RpcError as failure:
            await _in_thread(output.abandon)
            attempts.delay_s(failure)  # Raises what it means: there is no second attempt.
            raise
        except BaseException:
            await _in_thread(output.abandon)
            raise
        return report_of(manifest, size_bytes)

    async def server_version(self) -> str:
        """The version of the server."""
        return await self.run(calls.server_version())

    async def close(self) -> None:
        """Release the connection. A closed database refuses every call."""
        self._handle.closed = True
        self._session.close()
        if self._channel is not None:
            await self._channel.close(None)

    async def __aenter__(self) -> Self:
        try:
            await self.server_version()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def run(self, call: Call[_Result]) -> _Result:
        """Send a call, again if the transport fails, and return its result."""
        attempts = Attempts(call, self._timeout_s, self.address)
        if call.short_search is not None:
            self._handle.check()
            try:
                return call.read(await self._session.search(call.short_search, attempts.remaining_s()))
            except SessionLost:
                _log.debug("sent again: %s", call.method)
                attempts.check_time()
        while True:
            self._handle.check()
            try:
                pending = self._stub(call.method)(call.request, timeout=attempts.remaining_s())
                if STREAMING[call.method]:
                    return call.read([reply async for reply in pending])
                return call.read(await pending)
            except grpc.RpcError as failure:
                await asyncio.sleep(attempts.delay_s(failure))
            except grpc.aio.UsageError:
                # What grpc raises where another task closed the channel; anything else is a bug.
                self._handle.check()
                raise

    def _stub(self, method: str) -> Any:
        stub = self._stubs.get(method)
        if stub is None:
            channel = self._connected()
            stub = getattr(channel, KINDS[method])(
                f"/{SERVICE.full_name}/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=REPLY_TYPES[method].FromString,
            )
            self._stubs[method] = stub
        return stub

    def _connected(self) -> grpc.aio.Channel:
        # Made late: a channel belongs to the event loop that runs when it is made.
        if self._channel is None:
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(self.address, CHANNEL_OPTIONS)
            else:
                self._channel = grpc.aio.secure_channel(self.address, self._credentials, CHANNEL_OPTIONS)
        return self._channel

    def __repr__(self) -> str:
        return f"<AsyncRemoteDatabase {self.address}>"


async def _in_thread(work: Callable[..., _Result], *arguments: Any) -> _Result:
    """The result of ``work``, which is waited for also by who is cancelled: what it uses must not go away under it."""
    running = asyncio.get_running_loop().run_in_executor(None, work, *arguments)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


class AsyncCollection:
    """A collection of a server, for asyncio. Every verb takes the arguments of its namesake in ``Collection``.

    Attributes
    ----------
    name
        The collection's name.
    collection_id
        What tells it from one of the same name before or after it.
    schema
        Its vector fields.
    """

    def __init__(self, database: AsyncRemoteDatabase, described: Described) -> None:
        self.name = described.name
        self.collection_id = described.collection_id
        self.schema = described.schema
        self._described = described
        self._run = database.run

    async def upsert(
        self,
        ids: Iterable[PointId],
        vectors: VectorsArgument,
        payloads: Iterable[Payload] | None = None,
        *,
        request_id: str | None = None,
    ) -> WriteResult:
        """Insert points, or replace those whose id exists: all of them or, on an error, none."""
        return await self._run(calls.write(self._described, upsert_request(ids, vectors, payloads, request_id)))

    async def delete(
        self,
        ids: Iterable[PointId] | None = None,
        *,
        where: WhereArgument = None,
        params: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> WriteResult:
        """Remove the points with these ids, or those that match a filter; unknown ids are no error."""
        return await self._run(calls.write(self._described, delete_request(ids, where, params, request_id)))

    async def get(
        self,
        ids: Iterable[PointId],
        *,
        with_payloads: bool = True,
        with_vectors: bool = False,
        at: str | None = None,
    ) -> list[Point]:
        """The points with these ids that exist, now or in the snapshot ``at``, in the order asked for."""
        return await self._run(calls.get(self._described, get_request(ids, with_payloads, with_vectors, at)))

    async def search(
        self,
        query: ArrayLike,
        k: int = 10,
        *,
        field: str | None = None,
        where: WhereArgument = None,
        params: Mapping[str, Any] | None = None,
        recall: RecallArgument = None,
        ef: int | None = None,
        with_payloads: bool = True,
        with_vectors: bool = False,
        read_after_seq: int = 0,
        at: str | None = None,
    ) -> Hits:
        """The ``k`` points nearest to ``query`` ((dim,) real numbers) that match ``where``."""
        request = search_request(
            query, k, batch=False, field=field, where=where, params=params, recall=recall, ef=ef,
            with_payloads=with_payloads, with_vectors=with_vectors, read_after_seq=read_after_seq, at=at,
        )  # fmt: skip
        return (await self._run(calls.search(self._described, request)))[0]

    async def search_batch(
        self,
        queries: ArrayLike,
        k: int = 10,
        *,
        field: str | None = None,
        where: WhereArgument = None,
        params: Mapping[str, Any] | None = None,
        recall: RecallArgument = None,
        ef: int | None = None,
        with_payloads: bool = True,
        with_vectors: bool = False,
        read_after_seq: int = 0,
        at: str | None = None,
    ) -> list[Hits]:
        """``search`` for each row of ``queries`` ((nq, dim) real numbers), faster than one by one."""
        request = search_request(
            queries, k, batch=True, field=field, where=where, params=params, recall=recall, ef=ef,
            with_payloads=with_payloads, with_vectors=with_vectors, read_after_seq=read_after_seq, at=at,
        )  # fmt: skip
        return await self._run(calls.search(self._described, request))

    async def explain(
        self,
        query: ArrayLike,
        k: int = 10,
        *,
        field: str | None = None,
        where: WhereArgument = None,
        params: Mapping[str, Any] | None = None,
        recall: RecallArgument = None,
        ef: int | None = None,
        with_payloads: bool = True,
        with_vectors: bool = False,
        read_after_seq: int = 0,
        at: str | None = None,
    ) -> Explanation:
        """Run ``search`` with these arguments once, and tell how; see ``Collection.explain``."""
        request = search_request(
            query, k, batch=False, field=field, where=where, params=params, recall=recall, ef=ef,
            with_payloads=with_payloads, with_vectors=with_vectors, read_after_seq=read_after_seq, at=at,
        )  # fmt: skip
        return await self._run(calls.explain(self._described, request))

    async def count(
        self, where: WhereArgument = None, *, params: Mapping[str, Any] | None = None, at: str | None = None
    ) -> int:
        """Number of points, or of those that match, now or in the snapshot ``at``."""
        return await self._run(calls.count(self._described, count_request(where, params, at)))

    async def scroll(
        self,
        where: WhereArgument = None,
        *,
        params: Mapping[str, Any] | None = None,
        with_payloads: bool = True,
        with_vectors: bool = False,
        page_rows: int = SCROLL_PAGE_ROWS,
        at: str | None = None,
    ) -> AsyncIterator[Point]:
        """Every point that matches, in a stable order, fetched ``page_rows`` at a time (``async for``)."""
        cursor: bytes | None = None
        while True:
            page = await self.scroll_page(
                page_rows, cursor, where=where, params=params, with_payloads=with_payloads, with_vectors=with_vectors,
                at=at,
            )  # fmt: skip
            for point in page.points:
                yield point
            cursor = page.next_cursor
            if cursor is None:
                return

    async def scroll_page(
        self,
        limit: int = SCROLL_PAGE_ROWS,
        cursor: bytes | None = None,
        *,
        where: WhereArgument = None,
        params: Mapping[str, Any] | None = None,
        with_payloads: bool = True,
        with_vectors: bool = False,
        at: str | None = None,
    ) -> Page:
        """One page of at most ``limit`` points (1 to 10,000), and the cursor of the next."""
        request = scroll_request(limit, cursor, where, params, with_payloads, with_vectors, at)
        return await self._run(calls.scroll(self._described, request))

    async def warm(self, *, with_vectors: bool = False) -> WarmReport:
        """Make the next search of the server fast; see ``Collection.warm``."""
        return await self._run(calls.warm(self._described, with_vectors))

    async def stats(self) -> CollectionStats:
        """What the collection holds and what happened to it."""
        return await self._run(calls.stats(self._described))

    async def flush(self) -> None:
        """Write what is in memory into segments; return when it is committed. Not needed for durability."""
        await self._run(calls.flush(self._described))

    async def wait_indexed(self, timeout_s: float = 600.0) -> None:
        """Flush, then return when no row waits for an index; raises DeadlineExceeded after ``timeout_s`` seconds."""
        await self._run(calls.wait_indexed(self._described, timeout_s))

    async def compact(self, timeout_s: float = 600.0, *, dry_run: bool = False) -> CompactionReport:
        """Merge the segments into as few as there can be, without dead rows; see ``Collection.compact``."""
        return await self._run(calls.compact(self._described, timeout_s, dry_run))

    async def purge(self, timeout_s: float = 600.0) -> CompactionReport:
        """Return when nothing that was deleted is left in any file; see ``Collection.purge``."""
        return await self._run(calls.purge(self._described, timeout_s))

    async def create_snapshot(self, name: str) -> SnapshotInfo:
        """Keep what the collection holds now under a name, to be read with ``at=name``; copies nothing."""
        return await self._run(calls.create_snapshot(self._described, name))

    async def drop_snapshot(self, name: str) -> None:
        """Forget a snapshot, so that the space of what only it kept is reclaimed; raises NotFound."""
        await self._run(calls.drop_snapshot(self._described, name))

    async def snapshots(self) -> Sequence[SnapshotInfo]:
        """The snapshots, by name."""
        return await self._run(calls.snapshots(self._described))

    def __repr__(self) -> str:
        fields = ", ".join(f"{each.name or 'vector'}: {each.dim}-d {each.metric.value}" for each in self.schema.vectors)
        return f"<AsyncCollection {self.name!r} ({fields})>"
