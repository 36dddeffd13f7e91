"""Calls as values: which method, with which message, and what its reply means.

Both clients make the same calls here and differ only in how they wait for the answer.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from vecdb.arguments import as_timeout_s
from vecdb.errors import Unavailable
from vecdb.explanation import Explanation
from vecdb.requests import (
    CountRequest,
    GetRequest,
    ScrollRequest,
    SearchRequest,
    UpsertRequest,
    WriteRequest,
    check_against_schema,
    check_search,
)
from vecdb.results.compaction import CompactionReport
from vecdb.results.hits import Hits
from vecdb.results.points import Page, Point
from vecdb.results.snapshot import SnapshotInfo
from vecdb.results.stats import CollectionStats
from vecdb.results.warming import WarmReport
from vecdb.results.write import WriteResult
from vecdb.schema import NAME_BYTES_MAX, CollectionSchema, check_name
from vecdb.v1 import vecdb_pb2
from vecdb.wire.explanations import decode_explanation
from vecdb.wire.replies import (
    decode_compaction,
    decode_hits,
    decode_points,
    decode_snapshots,
    decode_stats,
    decode_warm,
    decode_write_result,
)
from vecdb.wire.requests import Target, encode_count, encode_get, encode_scroll, encode_search, encode_write
from vecdb.wire.schemas import decode_schema, encode_schema

_Result = TypeVar("_Result")

SERVICE = vecdb_pb2.DESCRIPTOR.services_by_name["Vecdb"]
REPLY_TYPES: Mapping[str, type[Message]] = {
    each.name: getattr(vecdb_pb2, each.output_type.name) for each in SERVICE.methods
}
STREAMING: Mapping[str, bool] = {each.name: each.server_streaming for each in SERVICE.methods}
KINDS: Mapping[str, str] = {
    each.name: f"{'stream' if each.client_streaming else 'unary'}_{'stream' if each.server_streaming else 'unary'}"
    for each in SERVICE.methods
}
"""What grpc calls each kind of method, by name of the method."""

UNARY_REPLY_BYTES_MAX = 64 * 2**20
SHORT_BYTES_MAX = 2**20
_HIT_BYTES_USUAL = 1024
_PAYLOAD_BYTES_MAX = 2**20
_HIT_BYTES_MAX = NAME_BYTES_MAX + 64
FLUSH_TIMEOUT_S = 600.0
BACKUP_TIMEOUT_S = 86_400.0
WAIT_MARGIN_S = 5.0
"""A wait may take this much longer than asked for before the client gives up: the server's error is the better one."""


@dataclass(frozen=True, slots=True)
class Described:
    """What a client knows of a collection."""

    name: str
    collection_id: str
    schema: CollectionSchema

    @property
    def target(self) -> Target:
        """What requests call it."""
        return Target(self.name, self.collection_id)


@dataclass(frozen=True, slots=True)
class Call(Generic[_Result]):
    """One call to the server.

    Attributes
    ----------
    method
        Its name in the service.
    request
        Its message.
    read
        The result, from the reply; from the list of all replies where the method streams.
    repeatable
        Whether it may be sent again when it is unknown whether the server got it.
    short_search
        The request of a search that may go by a session: its messages are small, so that they hold up no others.
    timeout_s
        Instead of the connection's.
    """

    method: str
    request: Message
    read: Callable[[Any], _Result]
    repeatable: bool = True
    short_search: vecdb_pb2.SearchRequest | None = None
    timeout_s: float | None = None


def server_version() -> Call[str]:
    """The version of the server."""
    return Call("ServerInfo", vecdb_pb2.ServerInfoRequest(), lambda reply: reply.version)


def create(name: str, schema: CollectionSchema, exist_ok: bool) -> Call[Described]:
    """Make a collection."""
    request = vecdb_pb2.CreateCollectionRequest(
        name=check_name(name, "collection"), schema=encode_schema(schema), exist_ok=bool(exist_ok)
    )
    return Call("CreateCollection", request, _described, repeatable=bool(exist_ok))


def describe(name: str) -> Call[Described]:
    """Name and schema of a collection."""
    return Call("GetCollection", vecdb_pb2.GetCollectionRequest(name=check_name(name, "collection")), _described)


def names() -> Call[Sequence[str]]:
    """The names of all collections."""
    return Call("ListCollections", vecdb_pb2.ListCollectionsRequest(), lambda reply: list(reply.names))


def drop(name: str) -> Call[None]:
    """Remove a collection."""
    request = vecdb_pb2.DropCollectionRequest(name=check_name(name, "collection"))
    return Call("DropCollection", request, _nothing, repeatable=False)


def write(of: Described, request: WriteRequest) -> Call[WriteResult]:
    """Apply a batch. It gets a request id where the caller gave none, so that a repeated call is applied once."""
    if isinstance(request, UpsertRequest) and not all(map(_is_sendable, request.vectors)):
        # A field that no message can name is no field of the schema: the same error as in the engine.
        check_against_schema(request, of.schema)
    if not request.request_id:
        request = dataclasses.replace(request, request_id=uuid.uuid4().hex)
    return Call("Write", encode_write(of.target, request), decode_write_result)


def search(of: Described, request: SearchRequest) -> Call[list[Hits]]:
    """Search; in a stream of messages where one might not hold the reply."""
    _check_search(of, request)
    with_payloads, with_vectors = bool(request.with_payloads), bool(request.with_vectors)

    def read(reply: vecdb_pb2.SearchReply) -> list[Hits]:
        return [decode_hits(each, with_payloads=with_payloads, with_vectors=with_vectors) for each in reply.rankings]

    message = encode_search(of.target, request)
    hit_bytes = _HIT_BYTES_MAX + _PAYLOAD_BYTES_MAX * with_payloads
    if with_vectors:
        hit_bytes += sum(4 * each.dim for each in of.schema.vectors)
    if request.queries.shape[0] * request.k * hit_bytes <= UNARY_REPLY_BYTES_MAX:
        size_bytes = message.ByteSize() + request.queries.shape[0] * request.k * _HIT_BYTES_USUAL
        short = size_bytes <= SHORT_BYTES_MAX and not with_vectors
        return Call("Search", message, read, short_search=message if short else None)
    return Call("SearchStream", message, lambda replies: [hits for reply in replies for hits in read(reply)])


def explain(of: Described, request: SearchRequest) -> Call[Explanation]:
    """Search, and tell how."""
    _check_search(of, request)
    return Call("Explain", encode_search(of.target, request), decode_explanation)


def get(of: Described, request: GetRequest) -> Call[list[Point]]:
    """Points by id."""
    return Call("Get", encode_get(of.target, request), _points_reader(request))


def count(of: Described, request: CountRequest) -> Call[int]:
    """Number of points."""
    return Call("Count", encode_count(of.target, request), lambda reply: reply.count)


def scroll(of: Described, request: ScrollRequest) -> Call[Page]:
    """A page of points."""
    read_points = _points_reader(request)
    return Call(
        "Scroll",
        encode_scroll(of.target, request),
        lambda replies: Page(read_points(replies), replies[-1].next_cursor or None),
    )


def stats(of: Described) -> Call[CollectionStats]:
    """What the collection holds."""
    return Call("Stats", vecdb_pb2.StatsRequest(collection=of.name, collection_id=of.collection_id), decode_stats)


def flush(of: Described) -> Call[None]:
    """Write what is in memory into segments."""
    return Call(
        "Flush",
        vecdb_pb2.FlushRequest(collection=of.name, collection_id=of.collection_id),
        _nothing,
        timeout_s=FLUSH_TIMEOUT_S,
    )


def wait_indexed(of: Described, timeout_s: float) -> Call[None]:
    """Wait until no row waits for an index."""
    timeout_s = as_timeout_s(timeout_s)
    request = vecdb_pb2.WaitIndexedRequest(collection=of.name, collection_id=of.collection_id, timeout_s=timeout_s)
    return Call("WaitIndexed", request, _nothing, timeout_s=max(0.0, timeout_s) + WAIT_MARGIN_S)


def compact(of: Described, timeout_s: float, dry_run: bool) -> Call[CompactionReport]:
    """Merge segments."""
    timeout_s = as_timeout_s(timeout_s)
    request = vecdb_pb2.CompactRequest(
        collection=of.name, collection_id=of.collection_id, timeout_s=timeout_s, dry_run=bool(dry_run)
    )
    return Call("Compact", request, decode_compaction, timeout_s=timeout_s + WAIT_MARGIN_S)


def purge(of: Described, timeout_s: float) -> Call[CompactionReport]:
    """Remove what was deleted from every file."""
    timeout_s = as_timeout_s(timeout_s)
    request = vecdb_pb2.PurgeRequest(collection=of.name, collection_id=of.collection_id, timeout_s=timeout_s)
    return Call("Purge", request, decode_compaction, timeout_s=timeout_s + WAIT_MARGIN_S)


def warm(of: Described, with_vectors: bool) -> Call[WarmReport]:
    """Bring what the next search needs into memory."""
    request = vecdb_pb2.WarmRequest(collection=of.name, collection_id=of.collection_id, with_vectors=bool(with_vectors))
    return Call("Warm", request, decode_warm, timeout_s=FLUSH_TIMEOUT_S)


def create_snapshot(of: Described, name: str) -> Call[SnapshotInfo]:
    """Take a snapshot."""
    request = vecdb_pb2.CreateSnapshotRequest(
        collection=of.name, collection_id=of.collection_id, name=check_name(name, "snapshot")
    )
    return Call(
        "CreateSnapshot",
        request,
        lambda reply: decode_snapshots(reply)[0],
        repeatable=False,
        timeout_s=FLUSH_TIMEOUT_S,
    )


def drop_snapshot(of: Described, name: str) -> Call[None]:
    """Forget a snapshot."""
    request = vecdb_pb2.DropSnapshotRequest(
        collection=of.name, collection_id=of.collection_id, name=check_name(name, "snapshot")
    )
    return Call("DropSnapshot", request, _nothing, repeatable=False)


def snapshots(of: Described) -> Call[list[SnapshotInfo]]:
    """The snapshots, by name."""
    request = vecdb_pb2.ListSnapshotsRequest(collection=of.name, collection_id=of.collection_id)
    return Call("ListSnapshots", request, decode_snapshots)


def backup(since_manifest: bytes) -> Call[None]:
    """The bytes of a backup, in messages that are to be written as they come. What was written cannot be taken back, so
    that it is not sent again.
    """
    request = vecdb_pb2.BackupRequest(since_manifest=since_manifest)
    return Call("Backup", request, _nothing, repeatable=False, timeout_s=BACKUP_TIMEOUT_S)


def backup_ended_early() -> Unavailable:
    """The error for a backup whose manifest did not come."""
    return Unavailable("the server ended the backup before its manifest", field="server")


def _described(reply: vecdb_pb2.CollectionReply) -> Described:
    return Described(reply.name, reply.collection_id, decode_schema(reply.schema))


def _nothing(_reply: object) -> None:
    return None


def _points_reader(request: GetRequest | ScrollRequest) -> Callable[[list[vecdb_pb2.PointsReply]], list[Point]]:
    with_payloads, with_vectors = bool(request.with_payloads), bool(request.with_vectors)

    def read(replies: list[vecdb_pb2.PointsReply]) -> list[Point]:
        return [
            point
            for reply in replies
            for point in decode_points(reply, with_payloads=with_payloads, with_vectors=with_vectors)
        ]

    return read


def _check_search(of: Described, request: SearchRequest) -> None:
    """Refuse what no message can carry: by the same errors as in the engine."""
    check_search(request)
    if not (request.field is None or _is_sendable(request.field)):
        of.schema.vector(request.field)


def _is_sendable(name: object) -> bool:
    return isinstance(name, str) and (name.isascii() or _has_utf8(name))


def _has_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
