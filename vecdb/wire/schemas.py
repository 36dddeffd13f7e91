"""Schemas as messages. Decoding goes through the constructors of ``vecdb.schema``, which refuse what is no schema."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

from vecdb.errors import InvalidArgument, Unimplemented
from vecdb.schema import CollectionSchema, IndexKind, IndexSpec, VectorField
from vecdb.types import Metric
from vecdb.v1 import values_pb2

_Member = TypeVar("_Member", bound=Enum)

_METRICS: Mapping[int, Metric] = {
    values_pb2.METRIC_COSINE: Metric.COSINE,
    values_pb2.METRIC_DOT: Metric.DOT,
    values_pb2.METRIC_L2: Metric.L2,
}
_METRIC_NUMBERS = {metric: number for number, metric in _METRICS.items()}
_KINDS: Mapping[int, IndexKind] = {
    values_pb2.INDEX_KIND_AUTO: IndexKind.AUTO,
    values_pb2.INDEX_KIND_FLAT: IndexKind.FLAT,
    values_pb2.INDEX_KIND_HNSW: IndexKind.HNSW,
}
_KIND_NUMBERS = {kind: number for number, kind in _KINDS.items()}


def encode_schema(schema: CollectionSchema) -> values_pb2.CollectionSchema:
    """The schema as a message."""
    return values_pb2.CollectionSchema(vectors=[_encode_field(each) for each in schema.vectors])


def decode_schema(message: values_pb2.CollectionSchema) -> CollectionSchema:
    """The schema of a message.

    Raises
    ------
    InvalidArgument
        Whatever the constructors of ``vecdb.schema`` refuse, or a metric left out.
    Unimplemented
        A metric or kind of index unknown here.
    """
    return CollectionSchema(tuple(_decode_field(each) for each in message.vectors))


def known_member(members: Mapping[int, _Member], number: int, name: str) -> _Member:
    """The member that an enum value of a message stands for.

    Raises
    ------
    InvalidArgument
        It was left out.
    Unimplemented
        It is unknown here; a newer client may mean something by it that must not be ignored.
    """
    member = members.get(number)
    if member is not None:
        return member
    known = ", ".join(str(each) for each in members)
    if number == 0:
        raise InvalidArgument(f"{name} is missing", field=name, limit=known)
    raise Unimplemented(f"{name} {number} is unknown here", field=name, limit=known, value=number)


def _encode_field(field: VectorField) -> values_pb2.VectorField:
    return values_pb2.VectorField(
        name=field.name,
        dim=field.dim,
        metric=_METRIC_NUMBERS[field.metric],  # type: ignore[arg-type]
        index=values_pb2.IndexSpec(
            kind=_KIND_NUMBERS[field.index.kind],  # type: ignore[arg-type]
            m=field.index.m,
            ef_construction=field.index.ef_construction,
            seed=field.index.seed,
        ),
    )


def _decode_field(message: values_pb2.VectorField) -> VectorField:
    index = IndexSpec()
    if message.HasField("index"):
        spec = message.index
        index = IndexSpec(known_member(_KINDS, spec.kind, "index.kind"), spec.m, spec.ef_construction, spec.seed)
    return VectorField(message.dim, known_member(_METRICS, message.metric, "metric"), index, message.name)
