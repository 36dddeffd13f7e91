"""The database of a server, for threads: each verb is a call, and waits for its reply."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import grpc

from vecdb.api import Collection, Database
from vecdb.client import calls
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
from vecdb.client.sessions import SessionLost, Sessions
from vecdb.explanation import Explanation
from vecdb.requests import CountRequest, GetRequest, ScrollRequest, SearchRequest, WriteRequest
from vecdb.results.backup import BackupReport
from vecdb.results.compaction import CompactionReport
from vecdb.results.hits import Hits
from vecdb.results.points import Page, Point
from vecdb.results.snapshot import SnapshotInfo
from vecdb.results.stats import CollectionStats
from vecdb.results.warming import WarmReport
from vecdb.results.write import WriteResult
from vecdb.schema import CollectionSchema

_Result = TypeVar("_Result")
_log = logging.getLogger("vecdb.client")


def connect(address: str, *, timeout_s: float = TIMEOUT_S, tls: Tls = False) -> RemoteDatabase:
    """Connect to a server.

    Parameters
    ----------
    address
        ``host:port``, ``[ipv6]:port`` or ``unix:path``.
    timeout_s
        Time that each call may take, attempts included.
    tls
        ``True``: encrypt, and check the server's certificate against those this machine trusts; a path: against this
        PEM file.

    Raises
    ------
    InvalidArgument
        ``address`` is none.
    Unavailable
        No vecdb server answers there.
    """
    database = RemoteDatabase(address, timeout_s=timeout_s, tls=tls)
    try:
        database.server_version = database.run(calls.server_version())
    except BaseException:
        database.close()
        raise
    return database


class RemoteDatabase(Database):
    """The collections of a server, over one connection. Made by ``connect``.

    Attributes
    ----------
    address
        Where the server is.
    server_version
        Its version.
    """

    def __init__(self, address: str, *, timeout_s: float, tls: Tls) -> None:
        self.address = checked_address(address)
        self.server_version = ""
        self._timeout_s = checked_timeout_s(timeout_s)
        self._handle = Handle()
        credential = credentials(tls)
        if credential is None:
            self._channel = grpc.insecure_channel(address, CHANNEL_OPTIONS)
        else:
            self._channel = grpc.secure_channel(address, credential, CHANNEL_OPTIONS)
        self._stubs: dict[str, Any] = {}
        self._sessions = Sessions(self._stub("SearchSession"))

    def run(self, call: Call[_Result]) -> _Result:
        """Send a call, again if the transport fails, and return its result."""
        attempts = Attempts(call, self._timeout_s, self.address)
        if call.short_search is not None:
            self._handle.check()
            try:
                return call.read(self._sessions.search(call.short_search, attempts.remaining_s()))
            except SessionLost:
                _log.debug("sent again: %s", call.method)
                attempts.check_time()
        while True:
            self._handle.check()
            try:
                reply = self._stub(call.method)(call.request, timeout=attempts.remaining_s())
                return call.read(list(reply) if STREAMING[call.method] else reply)
            except grpc.RpcError as failure:
                time.sleep(attempts.delay_s(failure))
            except ValueError:
                # What grpc raises where another thread closed the channel; anything else is a bug.
                self._handle.check()
                raise

    def _stub(self, method: str) -> Any:
        stub = self._stubs.get(method)
        if stub is None:
            stub = getattr(self._channel, KINDS[method])(
                f"/{SERVICE.full_name}/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=REPLY_TYPES[method].FromString,
            )
            self._stubs[method] = stub
        return stub

    def run_create(self, name: str, schema: CollectionSchema, exist_ok: bool) -> RemoteCollection:
        """Make the collection."""
        return RemoteCollection(self, self.run(calls.create(name, schema, exist_ok)))

    def collection(self, name: str) -> RemoteCollection:
        """The collection called ``name``; raises NotFound."""
        return RemoteCollection(self, self.run(calls.describe(name)))

    def collections(self) -> Sequence[str]:
        """The names of all collections, sorted."""
        return self.run(calls.names())

    def drop_collection(self, name: str) -> None:
        """Remove the collection and its files; raises NotFound."""
        self.run(calls.drop(name))

    def backup(
        self,
        target: str | Path | BinaryIO,
        *,
        since: str | Path | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> BackupReport:
        """As ``Database.backup``; the files are on this machine."""
        # Only who takes a backup needs to read and write files.
        from vecdb.archive.manifest import report_of
        from vecdb.archive.reading import read_manifest_bytes
        from vecdb.archive.target import output_to, write_pieces

        self._handle.check()
        since_manifest = b"" if since is None else read_manifest_bytes(since)
        return report_of(*write_pieces(self.run_backup(since_manifest), output_to(target), progress))

    def run_backup(self, since_manifest: bytes) -> Generator[bytes, None, bytes]:
        """As ``Database.run_backup``: the next bytes are fetched when they are asked for."""
        self._handle.check()
        call = calls.backup(since_manifest)
        attempts = Attempts(call, self._timeout_s, self.address)
        replies = self._stub(call.method)(call.request, timeout=attempts.remaining_s())
        manifest = b""
        try:
            for reply in replies:
                if reply.data:
                    yield reply.data
                manifest = reply.manifest
        except grpc.RpcError as failure:
            attempts.delay_s(failure)  # Raises what it means: there is no second attempt.
            raise
        finally:
            replies.cancel()
        if not manifest:
            raise calls.backup_ended_early()
        return bytes(manifest)

    def close(self) -> None:
        """Release the connection."""
        self._handle.closed = True
        self._sessions.close()
        self._channel.close()


class RemoteCollection(Collection):
    """A collection of a server."""

    def __init__(self, database: RemoteDatabase, described: Described) -> None:
        self.name = described.name
        self.collection_id = described.collection_id
        self.schema = described.schema
        self._described = described
        self._database = database

    def run_write(self, request: WriteRequest) -> WriteResult:
        """Apply one batch; return when it is durable."""
        return self._database.run(calls.write(self._described, request))

    def run_search(self, request: SearchRequest) -> list[Hits]:
        """One ranking a query."""
        return self._database.run(calls.search(self._described, request))

    def run_explain(self, request: SearchRequest) -> Explanation:
        """What the search of one query did."""
        return self._database.run(calls.explain(self._described, request))

    def run_get(self, request: GetRequest) -> list[Point]:
        """The points that exist."""
        return self._database.run(calls.get(self._described, request))

    def run_count(self, request: CountRequest) -> int:
        """The number of points that match."""
        return self._database.run(calls.count(self._described, request))

    def run_scroll(self, request: ScrollRequest) -> Page:
        """One page of points."""
        return self._database.run(calls.scroll(self._described, request))

    def warm(self, *, with_vectors: bool = False) -> WarmReport:
        """Make the next search of the server fast."""
        return self._database.run(calls.warm(self._described, with_vectors))

    def stats(self) -> CollectionStats:
        """What the collection holds and what happened to it."""
        return self._database.run(calls.stats(self._described))

    def flush(self) -> None:
        """Write what is in memory into segments; return when it is committed."""
        self._database.run(calls.flush(self._described))

    def wait_indexed(self, timeout_s: float = 600.0) -> None:
        """Flush, then return when no row waits for an index; raises DeadlineExceeded after ``timeout_s`` seconds."""
        self._database.run(calls.wait_indexed(self._described, timeout_s))

    def compact(self, timeout_s: float = 600.0, *, dry_run: bool = False) -> CompactionReport:
        """Merge the segments into as few as there can be, without dead rows."""
        return self._database.run(calls.compact(self._described, timeout_s, dry_run))

    def purge(self, timeout_s: float = 600.0) -> CompactionReport:
        """Return when nothing that was deleted is left in any file."""
        return self._database.run(calls.purge(self._described, timeout_s))

    def create_snapshot(self, name: str) -> SnapshotInfo:
        """Keep what the collection holds now under a name."""
        return self._database.run(calls.create_snapshot(self._described, name))

    def drop_snapshot(self, name: str) -> None:
        """Forget a snapshot."""
        self._database.run(calls.drop_snapshot(self._described, name))

    def snapshots(self) -> Sequence[SnapshotInfo]:
        """The snapshots, by name."""
        return self._database.run(calls.snapshots(self._described))
