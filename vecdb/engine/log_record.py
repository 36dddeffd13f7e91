"""Write batches as the log holds them: resolved effects, ids and values, nothing to be evaluated again on replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import xxhash
from google.protobuf.message import DecodeError

from vecdb.engine.stored_message import refuse_unknown_fields
from vecdb.errors import Corruption, FailedPrecondition, VecdbError
from vecdb.requests import DeleteRequest, FilterText, UpsertRequest, WriteRequest
from vecdb.types import PointId
from vecdb.v1 import log_pb2
from vecdb.wire.ids import decode_ids, encode_ids
from vecdb.wire.vectors import decode_column, encode_column


@dataclass(frozen=True, slots=True)
class AppliedRequest:
    """What is kept of an applied request, to answer a retry.

    Attributes
    ----------
    digest
        Of the request's content: the same id with another content is refused.
    """

    request_id: str
    digest: int
    seq: int
    time_us: int
    upserted: int
    deleted: int

    def encode(self) -> bytes:
        """As bytes."""
        return log_pb2.AppliedRequest(
            request_id=self.request_id,
            request_digest=self.digest,
            seq=self.seq,
            time_us=self.time_us,
            upserted=self.upserted,
            deleted=self.deleted,
        ).SerializeToString(deterministic=True)

    @classmethod
    def decode(cls, data: bytes) -> AppliedRequest:
        """From bytes."""
        message = log_pb2.AppliedRequest.FromString(data)
        refuse_unknown_fields(message, "a retained request")
        return cls(
            message.request_id, message.request_digest, message.seq, message.time_us, message.upserted, message.deleted
        )


@dataclass(frozen=True, slots=True)
class Record:
    """One decoded log record: the batch that a seq stands for."""

    seq: int
    time_us: int
    request_id: str
    request_digest: int
    upserts: tuple[UpsertRequest, ...]
    deleted_ids: tuple[tuple[PointId, ...], ...]


def encode_upsert(request: UpsertRequest) -> bytes:
    """The effect of an upsert. Made before the writer is asked, so that it only has to append it."""
    effect = log_pb2.Effect(
        upsert=log_pb2.UpsertEffect(
            ids=encode_ids(request.ids),
            vectors=[encode_column(name, column) for name, column in sorted(request.vectors.items())],
            payloads=request.payloads,
        )
    )
    return log_pb2.LogRecord(effects=[effect]).SerializeToString()


def encode_delete(ids: Sequence[PointId]) -> bytes:
    """The effect of a delete of live ids."""
    effect = log_pb2.Effect(delete=log_pb2.DeleteEffect(ids=encode_ids(ids)))
    return log_pb2.LogRecord(effects=[effect]).SerializeToString()


def encode_record(seq: int, time_us: int, request_id: str, digest: int, effects: bytes) -> list[bytes]:
    """A record in pieces: protobuf messages that follow each other are read as one."""
    head = log_pb2.LogRecord(seq=seq, time_us=time_us, request_id=request_id, request_digest=digest)
    return [head.SerializeToString(), effects]


def decode_record(seq: int, data: bytes) -> Record:
    """The record that ``data`` encodes.

    Raises
    ------
    Corruption
        Where it encodes none, or one of another seq: it passed its checksum, so it was written wrong.
    FailedPrecondition
        A later version of vecdb wrote it: it holds what is unknown here.
    """
    name = f"log record {seq}"
    upserts: list[UpsertRequest] = []
    deletes: list[tuple[PointId, ...]] = []
    try:
        message = log_pb2.LogRecord.FromString(data)
        refuse_unknown_fields(message, name)
        for effect in message.effects:
            kind = effect.WhichOneof("effect")
            if kind == "upsert":
                upserts.append(_decode_upsert(effect.upsert))
            elif kind == "delete":
                deletes.append(decode_ids(effect.delete.ids))
            else:
                raise Corruption(f"{name} holds an effect that is none", field=name)
    except (FailedPrecondition, Corruption):
        raise
    except (DecodeError, VecdbError, ValueError) as error:
        raise Corruption(f"{name} cannot be decoded: {error}", field=name) from error
    if message.seq != seq:
        raise Corruption(f"{name} holds seq {message.seq}", field=name, value=message.seq)
    return Record(seq, message.time_us, message.request_id, message.request_digest, tuple(upserts), tuple(deletes))


def _decode_upsert(effect: log_pb2.UpsertEffect) -> UpsertRequest:
    ids = decode_ids(effect.ids)
    vectors = {column.field: decode_column(column, len(ids)) for column in effect.vectors}
    return UpsertRequest(ids, vectors, tuple(effect.payloads))


def request_digest(request: WriteRequest) -> int:
    """XXH3-64 of a request's content, its id left out."""
    digest = xxhash.xxh3_64()
    if isinstance(request, UpsertRequest):
        digest.update(encode_upsert(request))
    else:
        digest.update(_delete_content(request))
    return digest.intdigest()


def _delete_content(request: DeleteRequest) -> bytes:
    if request.ids is not None:
        return encode_delete(request.ids)
    if isinstance(request.where, FilterText):
        return repr((request.where.text, sorted(request.where.parameters.items()))).encode()
    return str(request.where).encode()
