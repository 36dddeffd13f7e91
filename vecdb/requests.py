"""The requests that cross every layer, and what must hold of them whoever made them.

What depends on the collection's schema (dimension, zero vectors under cosine) is checked by ``check_against_schema``
and ``check_vectors``, which the engine calls for every write and search, wherever it came from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidArgument
from vecdb.filter import Filter
from vecdb.norms import extremes, row_norms
from vecdb.schema import CollectionSchema, VectorField, utf8_size_bytes
from vecdb.types import DEFAULT_VECTOR, F32Array, Metric, PointId, U32Array

BATCH_ROWS_MAX = 100_000
BATCH_BYTES_MAX = 64 * 2**20
K_MAX = 10_000
RESULTS_MAX = 1_000_000
EF_MAX = 65_536
SCROLL_LIMIT_MAX = 10_000
VECTOR_NORM_MAX = 1e18
RECALL_DEFAULT = 0.95


@dataclass(frozen=True, slots=True)
class FilterText:
    """A filter as the caller wrote it, with the values of its ``:name`` parameters."""

    text: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


Where: TypeAlias = Filter | FilterText | None


@dataclass(frozen=True, slots=True)
class VectorColumn:
    """Vectors of one field for a batch of n points.

    Attributes
    ----------
    values
        (m, dim) float32, C order.
    rows
        (m,) uint32, ascending: which point of the batch each vector belongs to; ``None``: m = n, in order.
    """

    values: F32Array
    rows: U32Array | None = None


@dataclass(frozen=True, slots=True)
class UpsertRequest:
    """Insert points, or replace those whose id exists. One atomic batch.

    Attributes
    ----------
    ids
        n distinct ids.
    vectors
        By field name.
    payloads
        n JSON objects, UTF-8.
    request_id
        A retry with the same one is applied once.
    """

    ids: tuple[PointId, ...]
    vectors: Mapping[str, VectorColumn]
    payloads: tuple[bytes, ...]
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class DeleteRequest:
    """Remove the points with these ids, or those that match a filter. One atomic batch; unknown ids are no error."""

    ids: tuple[PointId, ...] | None
    where: Where = None
    request_id: str = ""


WriteRequest: TypeAlias = UpsertRequest | DeleteRequest


@dataclass(slots=True)
class SearchRequest:
    """The k nearest points to each of nq queries. Nobody changes one; to freeze it takes longer than to check it.

    Attributes
    ----------
    queries
        (nq, dim) float32, C order.
    field
        Vector field; ``None``: the only one.
    k
        Hits wanted of each query, 1 to 10,000; nq * k at most 1,000,000.
    where
        Only points that match.
    recall
        Mean recall to aim at, above 0; 1.0 is an exact search.
    ef
        Size of the candidate list of a graph search; overrides ``recall``.
    with_payloads, with_vectors
        What each hit brings along.
    read_after_seq
        Wait until this write is visible.
    at
        Search what the snapshot of this name holds; empty: what the collection holds now.
    """

    queries: F32Array
    k: int
    field: str | None = None
    where: Where = None
    recall: float = RECALL_DEFAULT
    ef: int | None = None
    with_payloads: bool = True
    with_vectors: bool = False
    read_after_seq: int = 0
    at: str = ""


@dataclass(frozen=True, slots=True)
class GetRequest:
    """Points by id, in the order of ``ids``; unknown ids are left out. ``at`` as in ``SearchRequest``."""

    ids: tuple[PointId, ...]
    with_payloads: bool = True
    with_vectors: bool = False
    at: str = ""


@dataclass(frozen=True, slots=True)
class CountRequest:
    """The number of points that match. ``at`` as in ``SearchRequest``."""

    where: Where = None
    at: str = ""


@dataclass(frozen=True, slots=True)
class ScrollRequest:
    """One page of the points that match, in a stable order. ``at`` as in ``SearchRequest``."""

    limit: int
    where: Where = None
    cursor: bytes | None = None
    with_payloads: bool = True
    with_vectors: bool = False
    at: str = ""


def check_batch(request: WriteRequest) -> None:
    """Check what must hold of a batch whoever made it: its size and, for an upsert, that ids are distinct.

    Raises
    ------
    InvalidArgument
        Naming the limit that was passed.
    """
    ids = request.ids
    if ids is None:
        return
    if len(ids) > BATCH_ROWS_MAX:
        raise InvalidArgument(
            f"a batch holds at most {BATCH_ROWS_MAX} points, got {len(ids)}; send several",
            field="ids",
            limit=BATCH_ROWS_MAX,
            value=len(ids),
        )
    if isinstance(request, DeleteRequest):
        return
    if len(set(ids)) != len(ids):
        raise _duplicate(ids)
    size_bytes = batch_size_bytes(request)
    if size_bytes > BATCH_BYTES_MAX:
        raise InvalidArgument(
            f"a batch holds at most {BATCH_BYTES_MAX} bytes of ids, vectors and payloads, got {size_bytes}; split it",
            field="vectors",
            limit=f"{BATCH_BYTES_MAX} bytes",
            value=size_bytes,
        )


def batch_size_bytes(request: UpsertRequest) -> int:
    """Bytes of ids, vectors and payloads in the batch."""
    id_bytes = sum(8 if isinstance(each, int) else utf8_size_bytes(each, "ids") for each in request.ids)
    return id_bytes + sum(each.values.nbytes for each in request.vectors.values()) + sum(map(len, request.payloads))


def _duplicate(ids: Sequence[PointId]) -> InvalidArgument:
    first_at: dict[PointId, int] = {}
    for position, each in enumerate(ids):
        if each in first_at:
            return InvalidArgument(
                f"ids[{position}] repeats ids[{first_at[each]}]: {each!r}; an id may occur once in a batch",
                field=f"ids[{position}]",
                limit="distinct ids",
                value=repr(each),
            )
        first_at[each] = position
    raise AssertionError("no duplicate")


def check_search(request: SearchRequest) -> None:
    """Check what must hold of a search whoever made it.

    Raises
    ------
    InvalidArgument
        ``k``, ``ef`` or ``recall`` out of range, or more than 1,000,000 results asked for.
    """
    if not 1 <= request.k <= K_MAX:
        raise _out_of_range(request.k, "k", 1, K_MAX)
    if request.ef is not None and not 1 <= request.ef <= EF_MAX:
        raise _out_of_range(request.ef, "ef", 1, EF_MAX)
    if not 0.0 < request.recall <= 1.0:
        raise InvalidArgument(
            f"recall must be above 0 and at most 1, got {request.recall}",
            field="recall",
            limit="(0, 1]",
            value=request.recall,
        )
    if not 0 <= request.read_after_seq < 2**64:
        raise _out_of_range(request.read_after_seq, "read_after_seq", 0, 2**64 - 1)
    if request.queries.nbytes > BATCH_BYTES_MAX:
        raise InvalidArgument(
            f"the queries of one call hold at most {BATCH_BYTES_MAX} bytes, got {request.queries.nbytes}; split them",
            field="queries",
            limit=f"{BATCH_BYTES_MAX} bytes",
            value=request.queries.nbytes,
        )
    count = request.queries.shape[0] * request.k
    if count > RESULTS_MAX:
        raise InvalidArgument(
            f"one call returns at most {RESULTS_MAX} hits, got {request.queries.shape[0]} queries x k={request.k}",
            field="queries",
            limit=RESULTS_MAX,
            value=count,
        )


def check_explain(request: SearchRequest) -> None:
    """Check what must hold of a search that is to be explained, whoever made it: as ``check_search``, and one query."""
    check_search(request)
    if request.queries.shape[0] != 1:
        raise _out_of_range(request.queries.shape[0], "query_count", 1, 1)


def check_scroll(request: ScrollRequest) -> None:
    """Check what must hold of a scroll request whoever made it."""
    if not 1 <= request.limit <= SCROLL_LIMIT_MAX:
        raise _out_of_range(request.limit, "limit", 1, SCROLL_LIMIT_MAX)
    if request.cursor is not None and not isinstance(request.cursor, bytes):
        raise InvalidArgument(
            f"cursor must be the next_cursor of a page, got {type(request.cursor).__name__}",
            field="cursor",
            limit="bytes | None",
            value=type(request.cursor).__name__,
        )


def check_against_schema(request: UpsertRequest, schema: CollectionSchema) -> None:
    """Check a batch against the schema of its collection.

    Raises
    ------
    InvalidArgument
        Unknown or missing vector field, wrong dimension, NaN or infinity, zero vector under cosine, absurd magnitude.
    """
    for name, column in request.vectors.items():
        check_vectors(column.values, schema.vector(name), vectors_name(name), column.rows)
    if len(schema.vectors) == 1 and request.ids and schema.vectors[0].name not in request.vectors:
        declared = schema.vectors[0].name
        raise InvalidArgument(f"vectors must name the field {declared!r}", field="vectors", limit=declared)


def check_vectors(
    values: F32Array, declared: VectorField, name: str, rows: U32Array | None = None
) -> NDArray[np.float64]:
    """Check (n, dim) float32 ``values`` against the field they belong to; ``name`` is what errors call them.

    Returns
    -------
    The Euclidean length of each row, (n,) float64.
    """
    if values.shape[0] == 0:
        return np.zeros(0)
    if values.shape[1] != declared.dim:
        raise InvalidArgument(
            f"{name} must have {declared.dim} dimensions, got {values.shape[1]}",
            field=name,
            limit=f"dim = {declared.dim}",
            value=values.shape[1],
        )
    norms = row_norms(values)
    shortest, longest = extremes(norms)
    if longest <= VECTOR_NORM_MAX and (shortest > 0 or (shortest == 0 and declared.metric is not Metric.COSINE)):
        # All at once: every search passes here. NaN compares as false.
        return norms
    if not np.isfinite(norms).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise InvalidArgument(
            f"{_at(name, row, rows)} holds {values[row, column]} at dimension {column}; every number must be finite",
            field=_at(name, row, rows),
            limit="finite",
            value=values[row, column],
        )
    if (norms > VECTOR_NORM_MAX).any():
        row = int(np.argmax(norms))
        raise InvalidArgument(
            f"{_at(name, row, rows)} has length {norms[row]:.3g}; at most {VECTOR_NORM_MAX:.0e} is allowed",
            field=_at(name, row, rows),
            limit=f"length <= {VECTOR_NORM_MAX:.0e}",
            value=f"{norms[row]:.3g}",
        )
    row = int(np.argmin(norms))
    raise InvalidArgument(
        f"{_at(name, row, rows)} is the zero vector, which has no direction to compare under cosine",
        field=_at(name, row, rows),
        limit="non-zero under cosine",
        value=0.0,
    )


def _at(name: str, row: int, rows: U32Array | None) -> str:
    return name if name == "query" else f"{name}[{row if rows is None else int(rows[row])}]"


def vectors_name(field_name: str) -> str:
    """What errors call the vectors of a field."""
    return "vectors" if field_name == DEFAULT_VECTOR else f"vectors[{field_name!r}]"


def _out_of_range(value: int, name: str, low: int, high: int) -> InvalidArgument:
    return InvalidArgument(
        f"{name} must be {low} to {high}, got {value}", field=name, limit=f"{low}..{high}", value=value
    )
