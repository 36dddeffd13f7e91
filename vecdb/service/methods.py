"""The methods of the service as plain functions from message to message: they translate, and call the database.

``METHODS`` has an entry for each method of the service's descriptor, or the module does not import: a method added to
the protocol cannot be forgotten here, nor by whoever later gives each method its policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias, TypeVar

from google.protobuf.message import DecodeError, Message

from vecdb.api import Collection, Database
from vecdb.errors import InvalidArgument, NotFound
from vecdb.v1 import vecdb_pb2
from vecdb.version import __version__
from vecdb.wire.explanations import encode_explanation
from vecdb.wire.replies import (
    encode_compaction,
    encode_points,
    encode_rankings,
    encode_snapshots,
    encode_stats,
    encode_warm,
    encode_write_result,
)
from vecdb.wire.requests import decode_count, decode_get, decode_scroll, decode_search, decode_write
from vecdb.wire.schemas import decode_schema, encode_schema

SERVICE = vecdb_pb2.DESCRIPTOR.services_by_name["Vecdb"]


class Work(Enum):
    """What a method waits for, which decides where it runs."""

    READ = "read"
    WRITE = "write"
    WAIT = "wait"


_Message = TypeVar("_Message", bound=Message)
Unary: TypeAlias = Callable[[Database, Any], Message]
Streaming: TypeAlias = Callable[[Database, Any], Iterator[Message]]


@dataclass(frozen=True, slots=True)
class Method:
    """One method of the service.

    Attributes
    ----------
    request
        Type of its request.
    answer
        The reply, or for a streaming method the replies.
    work
        Where it runs.
    streaming
        Whether it answers in many messages.
    session
        Whether it also takes many messages, for each of which ``answer`` gives an answer.
    bounded
        Whether the server's own deadline holds for it.
    """

    request: type[Message]
    answer: Unary | Streaming
    work: Work
    streaming: bool = False
    session: bool = False
    bounded: bool = True


def _server_info(_database: Database, _request: vecdb_pb2.ServerInfoRequest) -> Message:
    return vecdb_pb2.ServerInfoReply(version=__version__)


def _create_collection(database: Database, request: vecdb_pb2.CreateCollectionRequest) -> Message:
    return _described(database.run_create(request.name, decode_schema(request.schema), request.exist_ok))


def _get_collection(database: Database, request: vecdb_pb2.GetCollectionRequest) -> Message:
    return _described(database.collection(request.name))


def _list_collections(database: Database, _request: vecdb_pb2.ListCollectionsRequest) -> Message:
    return vecdb_pb2.ListCollectionsReply(names=database.collections())


def _drop_collection(database: Database, request: vecdb_pb2.DropCollectionRequest) -> Message:
    database.drop_collection(request.name)
    return vecdb_pb2.DropCollectionReply()


def _write(database: Database, request: vecdb_pb2.WriteRequest) -> Message:
    return encode_write_result(named_collection(database, request).run_write(decode_write(request)))


def search(database: Database, request: vecdb_pb2.SearchRequest) -> vecdb_pb2.SearchReply:
    """The rankings of a search in one message."""
    pieces = _search_stream(database, request)
    reply = next(pieces)
    for piece in pieces:
        reply.MergeFrom(piece)
    return reply


def _search_stream(database: Database, request: vecdb_pb2.SearchRequest) -> Iterator[vecdb_pb2.SearchReply]:
    rankings = named_collection(database, request).run_search(decode_search(request))
    return encode_rankings(rankings, with_payloads=request.with_payloads, with_vectors=request.with_vectors)


def _explain(database: Database, request: vecdb_pb2.SearchRequest) -> Message:
    return encode_explanation(named_collection(database, request).run_explain(decode_search(request)))


def _get(database: Database, request: vecdb_pb2.GetRequest) -> Iterator[Message]:
    return encode_points(named_collection(database, request).run_get(decode_get(request)))


def _count(database: Database, request: vecdb_pb2.CountRequest) -> Message:
    return vecdb_pb2.CountReply(count=named_collection(database, request).run_count(decode_count(request)))


def _scroll(database: Database, request: vecdb_pb2.ScrollRequest) -> Iterator[Message]:
    page = named_collection(database, request).run_scroll(decode_scroll(request))
    pieces = list(encode_points(page.points))
    pieces[-1].next_cursor = page.next_cursor or b""
    return iter(pieces)


def _stats(database: Database, request: vecdb_pb2.StatsRequest) -> Message:
    return encode_stats(named_collection(database, request).stats())


def _flush(database: Database, request: vecdb_pb2.FlushRequest) -> Message:
    named_collection(database, request).flush()
    return vecdb_pb2.FlushReply()


def _wait_indexed(database: Database, request: vecdb_pb2.WaitIndexedRequest) -> Message:
    named_collection(database, request).wait_indexed(request.timeout_s)
    return vecdb_pb2.WaitIndexedReply()


def _compact(database: Database, request: vecdb_pb2.CompactRequest) -> Message:
    collection = named_collection(database, request)
    return encode_compaction(collection.compact(request.timeout_s, dry_run=request.dry_run))


def _purge(database: Database, request: vecdb_pb2.PurgeRequest) -> Message:
    return encode_compaction(named_collection(database, request).purge(request.timeout_s))


def _warm(database: Database, request: vecdb_pb2.WarmRequest) -> Message:
    return encode_warm(named_collection(database, request).warm(with_vectors=request.with_vectors))


def _create_snapshot(database: Database, request: vecdb_pb2.CreateSnapshotRequest) -> Message:
    return encode_snapshots([named_collection(database, request).create_snapshot(request.name)])


def _drop_snapshot(database: Database, request: vecdb_pb2.DropSnapshotRequest) -> Message:
    named_collection(database, request).drop_snapshot(request.name)
    return vecdb_pb2.DropSnapshotReply()


def _list_snapshots(database: Database, request: vecdb_pb2.ListSnapshotsRequest) -> Message:
    return encode_snapshots(named_collection(database, request).snapshots())


def _backup(database: Database, request: vecdb_pb2.BackupRequest) -> Iterator[Message]:
    pieces = database.run_backup(request.since_manifest)
    try:
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                yield vecdb_pb2.BackupReply(manifest=end.value)
                return
            yield vecdb_pb2.BackupReply(data=piece)
    finally:
        pieces.close()


def parsed(kind: type[_Message], data: bytes) -> _Message:
    """The request of these bytes; raises InvalidArgument where they encode none."""
    try:
        return kind.FromString(data)
    except DecodeError:
        name = kind.DESCRIPTOR.name
        raise InvalidArgument(f"the request is not an encoded {name}", field="request", limit=name) from None


def named_collection(database: Database, request: Any) -> Collection:
    """The collection that a request names; not another that took over its name."""
    collection = database.collection(request.collection)
    if request.collection_id and request.collection_id != collection.collection_id:
        raise NotFound(f"no collection {request.collection!r}", field="collection", value=request.collection)
    return collection


def _described(collection: Collection) -> Message:
    return vecdb_pb2.CollectionReply(
        name=collection.name, schema=encode_schema(collection.schema), collection_id=collection.collection_id
    )


METHODS: Mapping[str, Method] = {
    "ServerInfo": Method(vecdb_pb2.ServerInfoRequest, _server_info, Work.READ),
    "CreateCollection": Method(vecdb_pb2.CreateCollectionRequest, _create_collection, Work.WRITE),
    "GetCollection": Method(vecdb_pb2.GetCollectionRequest, _get_collection, Work.READ),
    "ListCollections": Method(vecdb_pb2.ListCollectionsRequest, _list_collections, Work.READ),
    "DropCollection": Method(vecdb_pb2.DropCollectionRequest, _drop_collection, Work.WRITE),
    "Write": Method(vecdb_pb2.WriteRequest, _write, Work.WRITE),
    "Search": Method(vecdb_pb2.SearchRequest, search, Work.READ),
    "SearchStream": Method(vecdb_pb2.SearchRequest, _search_stream, Work.READ, streaming=True),
    "SearchSession": Method(
        vecdb_pb2.SearchSessionRequest, search, Work.READ, streaming=True, session=True, bounded=False
    ),
    "Explain": Method(vecdb_pb2.SearchRequest, _explain, Work.READ),
    "Get": Method(vecdb_pb2.GetRequest, _get, Work.READ, streaming=True),
    "Count": Method(vecdb_pb2.CountRequest, _count, Work.READ),
    "Scroll": Method(vecdb_pb2.ScrollRequest, _scroll, Work.READ, streaming=True),
    "Stats": Method(vecdb_pb2.StatsRequest, _stats, Work.READ),
    "Flush": Method(vecdb_pb2.FlushRequest, _flush, Work.WAIT, bounded=False),
    "WaitIndexed": Method(vecdb_pb2.WaitIndexedRequest, _wait_indexed, Work.WAIT, bounded=False),
    "Compact": Method(vecdb_pb2.CompactRequest, _compact, Work.WAIT, bounded=False),
    "Purge": Method(vecdb_pb2.PurgeRequest, _purge, Work.WAIT, bounded=False),
    "Warm": Method(vecdb_pb2.WarmRequest, _warm, Work.WAIT, bounded=False),
    "CreateSnapshot": Method(vecdb_pb2.CreateSnapshotRequest, _create_snapshot, Work.WAIT, bounded=False),
    "DropSnapshot": Method(vecdb_pb2.DropSnapshotRequest, _drop_snapshot, Work.WRITE),
    "ListSnapshots": Method(vecdb_pb2.ListSnapshotsRequest, _list_snapshots, Work.READ),
    "Backup": Method(vecdb_pb2.BackupRequest, _backup, Work.WAIT, streaming=True, bounded=False),
}

_declared = {each.name: (each.client_streaming, each.server_streaming) for each in SERVICE.methods}
_served = {name: (method.session, method.streaming) for name, method in METHODS.items()}
if _declared != _served:
    raise AssertionError(f"the protocol and the service differ in {sorted(_declared.items() ^ _served.items())}")
