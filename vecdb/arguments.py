"""A caller's arguments, turned into requests: the one place where Python values become what crosses every layer.

Embedded and served calls go through the same functions, so the same mistake gives the same error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from vecdb.errors import InvalidArgument
from vecdb.filter import Filter
from vecdb.payload import encode_payload
from vecdb.requests import (
    BATCH_ROWS_MAX,
    RECALL_DEFAULT,
    CountRequest,
    DeleteRequest,
    FilterText,
    GetRequest,
    ScrollRequest,
    SearchRequest,
    UpsertRequest,
    VectorColumn,
    Where,
    check_batch,
    check_scroll,
    vectors_name,
)
from vecdb.schema import NAME_BYTES_MAX, CollectionSchema, IndexSpec, check_name, utf8_size_bytes
from vecdb.types import DEFAULT_VECTOR, F32Array, Metric, Payload, PointId, U32Array

TIMEOUT_S_MAX = 86_400.0
_F32 = np.dtype(np.float32)

VectorsArgument: TypeAlias = "ArrayLike | Mapping[str, ArrayLike | Sequence[ArrayLike | None]]"
WhereArgument: TypeAlias = "str | Filter | None"
RecallArgument: TypeAlias = "float | Literal['exact'] | None"


def schema_of(
    dim: int | None, metric: Metric | str | None, index: IndexSpec | str | None, schema: CollectionSchema | None
) -> CollectionSchema:
    """The schema that the arguments of ``create_collection`` stand for: ``dim`` and its companions, or ``schema``."""
    if schema is not None:
        if not isinstance(schema, CollectionSchema):
            raise InvalidArgument(
                f"schema must be a CollectionSchema, got {type(schema).__name__}", field="schema", value=schema
            )
        for name, value in (("dim", dim), ("metric", metric), ("index", index)):
            if value is not None:
                raise InvalidArgument(f"give either schema or {name}, not both", field=name, value=value)
        return schema
    if dim is None:
        raise InvalidArgument("create_collection needs dim or schema", field="dim")
    return CollectionSchema.single(dim, "cosine" if metric is None else metric, "auto" if index is None else index)


def upsert_request(
    ids: Iterable[PointId],
    vectors: VectorsArgument,
    payloads: Iterable[Payload] | None,
    request_id: str | None,
) -> UpsertRequest:
    """The request that the arguments of ``upsert`` stand for.

    Raises
    ------
    InvalidArgument
        Wrong types or lengths, duplicate ids, a payload that is not JSON, a batch over 100,000 points or 64 MB.
    """
    keys = as_ids(ids)
    columns = {name: _vector_column(name, value, len(keys)) for name, value in _by_field(vectors).items()}
    encoded = _payloads(payloads, len(keys))
    request = UpsertRequest(keys, columns, encoded, as_request_id(request_id))
    check_batch(request)
    return request


def delete_request(
    ids: Iterable[PointId] | None,
    where: WhereArgument,
    params: Mapping[str, Any] | None,
    request_id: str | None,
) -> DeleteRequest:
    """The request that the arguments of ``delete`` stand for: exactly one of ``ids`` and ``where``."""
    if (ids is None) == (where is None):
        raise InvalidArgument("delete takes either ids or where", field="ids", limit="exactly one of ids, where")
    request = DeleteRequest(None if ids is None else as_ids(ids), as_where(where, params), as_request_id(request_id))
    check_batch(request)
    return request


def search_request(
    queries: ArrayLike,
    k: int,
    *,
    batch: bool,
    field: str | None,
    where: WhereArgument,
    params: Mapping[str, Any] | None,
    recall: RecallArgument,
    ef: int | None,
    with_payloads: bool,
    with_vectors: bool,
    read_after_seq: int,
    at: str | None,
) -> SearchRequest:
    """The request that the arguments of ``search`` (one query) or ``search_batch`` stand for.

    ``check_search`` is left to whoever runs or sends it.
    """
    values = as_vectors(queries, "queries", ndim=2) if batch else as_vectors(queries, "query", ndim=1)[np.newaxis]
    return SearchRequest(
        values,
        k if type(k) is int else _integer(k, "k"),
        field,
        as_where(where, params),
        as_recall(recall),
        None if ef is None else _integer(ef, "ef"),
        with_payloads,
        with_vectors,
        read_after_seq if type(read_after_seq) is int else _integer(read_after_seq, "read_after_seq"),
        "" if at is None else as_snapshot(at),
    )


def scroll_request(
    limit: int,
    cursor: bytes | None,
    where: WhereArgument,
    params: Mapping[str, Any] | None,
    with_payloads: bool,
    with_vectors: bool,
    at: str | None,
) -> ScrollRequest:
    """The request that the arguments of ``scroll_page`` stand for."""
    request = ScrollRequest(
        _integer(limit, "limit"), as_where(where, params), cursor, with_payloads, with_vectors, as_snapshot(at)
    )
    check_scroll(request)
    return request


def count_request(where: WhereArgument, params: Mapping[str, Any] | None, at: str | None) -> CountRequest:
    """The request that the arguments of ``count`` stand for."""
    return CountRequest(as_where(where, params), as_snapshot(at))


def get_request(ids: Iterable[PointId], with_payloads: bool, with_vectors: bool, at: str | None) -> GetRequest:
    """The request that the arguments of ``get`` stand for."""
    request = GetRequest(as_ids(ids), with_payloads, with_vectors, as_snapshot(at))
    if len(request.ids) > BATCH_ROWS_MAX:
        raise InvalidArgument(
            f"get takes at most {BATCH_ROWS_MAX} ids, got {len(request.ids)}",
            field="ids",
            limit=BATCH_ROWS_MAX,
            value=len(request.ids),
        )
    return request


def as_ids(ids: Iterable[PointId]) -> tuple[PointId, ...]:
    """The ids as a tuple of ``int`` and ``str``.

    Raises
    ------
    InvalidArgument
        For anything else than unsigned 64-bit integers and strings of 1 to 512 UTF-8 bytes.
    """
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise InvalidArgument(
            f"ids must be a sequence of integers and strings, got {type(ids).__name__}", field="ids", value=ids
        )
    values = ids.tolist() if isinstance(ids, np.ndarray) else ids
    return tuple([_id(each, position) for position, each in enumerate(values)])


def _id(value: object, position: int) -> PointId:
    kind = type(value)
    if kind is int:
        if not 0 <= value < 2**64:  # type: ignore[operator]
            raise InvalidArgument(
                f"ids[{position}] must be 0 to 2**64 - 1, got {value}",
                field=f"ids[{position}]",
                limit="0..2**64-1",
                value=value,
            )
        return value  # type: ignore[return-value]
    if kind is str:
        size_bytes = len(value) if value.isascii() else utf8_size_bytes(value, f"ids[{position}]")  # type: ignore
        if not 1 <= size_bytes <= NAME_BYTES_MAX:
            raise InvalidArgument(
                f"ids[{position}] must be 1 to {NAME_BYTES_MAX} bytes of UTF-8, got {size_bytes}",
                field=f"ids[{position}]",
                limit=f"1..{NAME_BYTES_MAX} bytes",
                value=value,
            )
        return value  # type: ignore[return-value]
    if isinstance(value, np.integer):
        return _id(int(value), position)
    if isinstance(value, str):
        return _id(str(value), position)
    raise InvalidArgument(
        f"ids[{position}] must be an integer or a string, got {kind.__name__}",
        field=f"ids[{position}]",
        limit="int | str",
        value=repr(value),
    )


def as_vectors(value: ArrayLike, name: str, *, ndim: int) -> F32Array:
    """``value`` as a float32 array in C order.

    Raises
    ------
    InvalidArgument
        Where it is not numeric or has not ``ndim`` axes.
    """
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InvalidArgument(f"{name} is not a regular array: {error}", field=name) from None
    ready = array.dtype == _F32
    if not ready and array.dtype.kind not in "fiu" and array.size:
        raise InvalidArgument(
            f"{name} must hold real numbers, got dtype {array.dtype}",
            field=name,
            limit="real numbers",
            value=array.dtype,
        )
    if array.ndim != ndim:
        wanted = "(n, dim)" if ndim == 2 else "(dim,)"
        raise InvalidArgument(
            f"{name} must have the shape {wanted}, got {array.shape}", field=name, limit=wanted, value=array.shape
        )
    if ready:
        return np.ascontiguousarray(array)
    # A float64 beyond float32 becomes infinite here and is refused as such by the schema check.
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, np.float32)


def as_where(where: WhereArgument, params: Mapping[str, Any] | None) -> Where:
    """The filter argument and its parameters as one value; text is parsed by the engine."""
    if isinstance(where, str):
        return FilterText(where, dict(params or {}))
    if params:
        raise InvalidArgument("params belong to a filter given as text", field="params", value=", ".join(params))
    if where is None or isinstance(where, Filter):
        return where
    raise InvalidArgument(
        f"where must be text or an expression of Field(...), got {type(where).__name__}", field="where", value=where
    )


def as_recall(recall: RecallArgument) -> float:
    """The recall to aim at as a number; ``"exact"`` is 1.0 and ``None`` the default."""
    if recall is None:
        return RECALL_DEFAULT
    if recall == "exact":
        return 1.0
    if isinstance(recall, bool) or not isinstance(recall, int | float | np.floating):
        raise InvalidArgument(
            f"recall must be a number or 'exact', got {recall!r}",
            field="recall",
            limit="(0, 1] or 'exact'",
            value=recall,
        )
    return float(recall)


def as_timeout_s(timeout_s: float) -> float:
    """The time to wait as a number of seconds, 0 to a day.

    Raises
    ------
    InvalidArgument
        For anything else.
    """
    number = isinstance(timeout_s, int | float | np.floating) and not isinstance(timeout_s, bool)
    if not number or not 0.0 <= timeout_s <= TIMEOUT_S_MAX:
        raise InvalidArgument(
            f"timeout_s must be 0 to {TIMEOUT_S_MAX:.0f}, got {timeout_s!r}",
            field="timeout_s",
            limit=f"0..{TIMEOUT_S_MAX:.0f} s",
            value=timeout_s,
        )
    return float(timeout_s)


def as_snapshot(at: str | None) -> str:
    """The name of the snapshot to read, empty for the present."""
    return "" if at is None else check_name(at, "at")


def as_request_id(request_id: str | None) -> str:
    """The request id as text, empty for none."""
    if request_id is None:
        return ""
    if not isinstance(request_id, str) or not 1 <= utf8_size_bytes(request_id, "request_id") <= NAME_BYTES_MAX:
        raise InvalidArgument(
            f"request_id must be a string of 1 to {NAME_BYTES_MAX} bytes",
            field="request_id",
            limit=f"1..{NAME_BYTES_MAX} bytes",
            value=request_id,
        )
    return request_id


def _by_field(vectors: VectorsArgument) -> Mapping[str, Any]:
    return vectors if isinstance(vectors, Mapping) else {DEFAULT_VECTOR: vectors}


def _vector_column(field_name: str, value: Any, count: int) -> VectorColumn:
    name = vectors_name(field_name)
    rows: U32Array | None = None
    if isinstance(value, list | tuple) and any(each is None for each in value):
        _same_length(len(value), count, name)
        rows = np.array([at for at, each in enumerate(value) if each is not None], np.uint32)
        value = [each for each in value if each is not None]
        if not value:
            return VectorColumn(np.zeros((0, 0), np.float32), rows)
    if isinstance(value, list | tuple) and not value:
        value = np.zeros((0, 0), np.float32)
    values = as_vectors(value, name, ndim=2)
    if rows is None:
        _same_length(values.shape[0], count, name)
    return VectorColumn(values, rows)


def _same_length(found: int, count: int, name: str) -> None:
    if found != count:
        raise InvalidArgument(f"{name} has {found} rows for {count} ids", field=name, limit=count, value=found)


def _payloads(payloads: Iterable[Payload] | None, count: int) -> tuple[bytes, ...]:
    if payloads is None:
        return (b"{}",) * count
    encoded = tuple([encode_payload(each, position) for position, each in enumerate(payloads)])
    _same_length(len(encoded), count, "payloads")
    return encoded


def _integer(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InvalidArgument(f"{name} must be an integer, got {type(value).__name__}", field=name, value=value)
    return int(value)
