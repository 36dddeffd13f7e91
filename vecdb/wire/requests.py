"""Requests as messages, in both directions.

A decoded request has passed every check of ``vecdb.requests`` that needs no schema, as if its caller had been in this
process. A choice that is unknown here is Unimplemented, never left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from vecdb.errors import InvalidArgument, Unimplemented
from vecdb.payload import check_payload
from vecdb.requests import (
    BATCH_ROWS_MAX,
    RECALL_DEFAULT,
    CountRequest,
    DeleteRequest,
    GetRequest,
    ScrollRequest,
    SearchRequest,
    UpsertRequest,
    VectorColumn,
    Where,
    WriteRequest,
    check_batch,
    check_scroll,
    check_search,
    vectors_name,
)
from vecdb.v1 import values_pb2, vecdb_pb2
from vecdb.wire.filters import decode_where, encode_where, unknown_choice
from vecdb.wire.ids import decode_ids, encode_ids
from vecdb.wire.vectors import decode_column, decode_matrix, encode_column

_EMPTY_PAYLOAD = b"{}"


@dataclass(frozen=True, slots=True)
class Target:
    """The collection that a request is for.

    Attributes
    ----------
    collection_id
        Refuses a collection that took over the name later; empty: whichever has it.
    """

    name: str
    collection_id: str = ""


def encode_write(target: Target, request: WriteRequest) -> vecdb_pb2.WriteRequest:
    """A write batch for a collection."""
    message = vecdb_pb2.WriteRequest(
        collection=target.name, collection_id=target.collection_id, request_id=request.request_id
    )
    if isinstance(request, UpsertRequest):
        message.upsert.ids.CopyFrom(encode_ids(request.ids))
        for name, column in request.vectors.items():
            message.upsert.vectors.append(encode_column(name, column))
        if request.payloads.count(_EMPTY_PAYLOAD) != len(request.payloads):
            message.upsert.payloads.extend(request.payloads)
    elif request.ids is not None:
        message.delete_ids.ids.CopyFrom(encode_ids(request.ids))
    else:
        message.delete_where.where.CopyFrom(_encoded(request.where))
    return message


def decode_write(message: vecdb_pb2.WriteRequest) -> WriteRequest:
    """The write batch of a message.

    Raises
    ------
    InvalidArgument
        Anything that ``vecdb.requests`` refuses, or lengths that do not fit each other.
    Unimplemented
        A choice unknown here.
    """
    request: WriteRequest
    match message.WhichOneof("operation"):
        case "upsert":
            request = _decode_upsert(message.upsert, message.request_id)
        case "delete_ids":
            request = DeleteRequest(decode_ids(message.delete_ids.ids), None, message.request_id)
        case "delete_where":
            if not message.delete_where.HasField("where"):
                raise InvalidArgument("delete_where needs a filter", field="where", limit="a filter")
            request = DeleteRequest(None, decode_where(message.delete_where.where), message.request_id)
        case _:
            raise unknown_choice("operation")
    check_batch(request)
    return request


def encode_search(target: Target, request: SearchRequest) -> vecdb_pb2.SearchRequest:
    """A search of a collection."""
    return vecdb_pb2.SearchRequest(
        collection=target.name,
        collection_id=target.collection_id,
        queries=encode_column(request.field or "", VectorColumn(request.queries)),
        query_count=request.queries.shape[0],
        only_field=request.field is None,
        k=request.k,
        where=encode_where(request.where),
        recall=request.recall if request.ef is None else None,
        ef=request.ef,
        with_payloads=bool(request.with_payloads),
        with_vectors=bool(request.with_vectors),
        read_after_seq=request.read_after_seq,
        at=request.at,
    )


def decode_search(message: vecdb_pb2.SearchRequest) -> SearchRequest:
    """The search of a message; raises as ``decode_write``."""
    effort = message.WhichOneof("effort")
    if effort is None:
        raise unknown_choice("effort")
    if message.only_field and message.queries.field:
        raise InvalidArgument(
            "a search names its vector field or sets only_field, not both", field="field", value=message.queries.field
        )
    request = SearchRequest(
        decode_matrix(message.queries, message.query_count, "queries"),
        message.k,
        None if message.only_field else message.queries.field,
        decode_where(message.where) if message.HasField("where") else None,
        message.recall if effort == "recall" else RECALL_DEFAULT,
        message.ef if effort == "ef" else None,
        message.with_payloads,
        message.with_vectors,
        message.read_after_seq,
        message.at,
    )
    check_search(request)
    return request


def encode_get(target: Target, request: GetRequest) -> vecdb_pb2.GetRequest:
    """A look-up in a collection."""
    return vecdb_pb2.GetRequest(
        collection=target.name,
        collection_id=target.collection_id,
        ids=encode_ids(request.ids),
        with_payloads=bool(request.with_payloads),
        with_vectors=bool(request.with_vectors),
        at=request.at,
    )


def decode_get(message: vecdb_pb2.GetRequest) -> GetRequest:
    """The look-up of a message; raises as ``decode_write``."""
    ids = decode_ids(message.ids)
    if len(ids) > BATCH_ROWS_MAX:
        raise InvalidArgument(
            f"get takes at most {BATCH_ROWS_MAX} ids, got {len(ids)}", field="ids", limit=BATCH_ROWS_MAX, value=len(ids)
        )
    return GetRequest(ids, message.with_payloads, message.with_vectors, message.at)


def encode_count(target: Target, request: CountRequest) -> vecdb_pb2.CountRequest:
    """A count in a collection."""
    return vecdb_pb2.CountRequest(
        collection=target.name,
        collection_id=target.collection_id,
        where=encode_where(request.where),
        at=request.at,
    )


def decode_count(message: vecdb_pb2.CountRequest) -> CountRequest:
    """The count of a message; raises as ``decode_write``."""
    return CountRequest(decode_where(message.where) if message.HasField("where") else None, message.at)


def encode_scroll(target: Target, request: ScrollRequest) -> vecdb_pb2.ScrollRequest:
    """A page of a collection."""
    return vecdb_pb2.ScrollRequest(
        collection=target.name,
        collection_id=target.collection_id,
        where=encode_where(request.where),
        limit=request.limit,
        cursor=request.cursor,
        with_payloads=bool(request.with_payloads),
        with_vectors=bool(request.with_vectors),
        at=request.at,
    )


def decode_scroll(message: vecdb_pb2.ScrollRequest) -> ScrollRequest:
    """The page that a message asks for; raises as ``decode_write``."""
    request = ScrollRequest(
        message.limit,
        decode_where(message.where) if message.HasField("where") else None,
        message.cursor if message.HasField("cursor") else None,
        message.with_payloads,
        message.with_vectors,
        message.at,
    )
    check_scroll(request)
    return request


def _decode_upsert(message: vecdb_pb2.Upsert, request_id: str) -> UpsertRequest:
    ids = decode_ids(message.ids)
    vectors: dict[str, VectorColumn] = {}
    for column in message.vectors:
        name = vectors_name(column.field)
        if column.field in vectors:
            raise InvalidArgument(f"{name} is given twice", field=name, limit="each field once", value=column.field)
        vectors[column.field] = decode_column(column, len(ids), name)
    return UpsertRequest(ids, vectors, _decode_payloads(message, len(ids)), request_id)


def _decode_payloads(message: vecdb_pb2.Upsert, count: int) -> tuple[bytes, ...]:
    if not message.payloads:
        return (_EMPTY_PAYLOAD,) * count
    payloads = tuple(message.payloads)
    if len(payloads) != count:
        raise InvalidArgument(
            f"payloads has {len(payloads)} rows for {count} ids", field="payloads", limit=count, value=len(payloads)
        )
    for position, payload in enumerate(payloads):
        check_payload(payload, position)
    return payloads


def _encoded(where: Where) -> values_pb2.Filter:
    message = encode_where(where)
    if message is None:
        raise Unimplemented("a delete needs ids or a filter", field="where")
    return message
