"""Answers searches: from a request and a view to hits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from vecdb.bitmap import Bitmap
from vecdb.engine.matching import allowed_rows, bind
from vecdb.engine.read import vectors_of
from vecdb.engine.state import CollectionState
from vecdb.engine.view import PartView, SegmentView, View
from vecdb.filter import Filter
from vecdb.kernels.arrays import stride_bytes
from vecdb.query.costs import DEFAULT_COSTS, costs_of
from vecdb.query.execute import (
    PartSearch,
    PlannedPart,
    Ranked,
    SearchablePart,
    is_at_hand,
    plan_parts,
    search_parts,
)
from vecdb.requests import SearchRequest, check_vectors
from vecdb.results import Hits
from vecdb.schema import VectorField
from vecdb.segment.memtable import MemtableField
from vecdb.segment.vectors import comparable
from vecdb.types import F32Array, Metric, PointId


@dataclass(frozen=True, slots=True)
class Search:
    """A search of one view, planned.

    Attributes
    ----------
    declared
        The field that is searched.
    queries
        (nq, dim) float32 as the field's vectors are stored.
    parts
        The parts of the view that have allowed rows; ``planned`` numbers these.
    planned
        How they are searched, on the structures that they had then.
    """

    declared: VectorField
    queries: F32Array
    parts: Sequence[PartView]
    planned: Sequence[PlannedPart]


AllowedOf: TypeAlias = Callable[[CollectionState, PartView, Filter | None], Bitmap]
"""The rows of a part that are live and match."""

FieldOf: TypeAlias = Callable[[SegmentView, str], SearchablePart | None]
"""The vectors of a field in a segment, where they are to be had."""


def opened_field(segment: SegmentView, name: str) -> SearchablePart:
    """A field of a segment, whose files are opened if they were not."""
    return segment.reader.field(name)


def plan_search(
    state: CollectionState,
    view: View,
    request: SearchRequest,
    allowed_of: AllowedOf = allowed_rows,
    field_of: FieldOf = opened_field,
) -> Search:
    """Check a search and plan it; evaluates its filter.

    Parameters
    ----------
    allowed_of, field_of
        What evaluates the filter over a part and opens a field; for who wants to know how long that takes.

    Raises
    ------
    InvalidArgument
        Unknown field, wrong dimension, not finite, malformed filter.
    Corruption
        A file that the search needs is damaged.
    """
    search = _plan(state, view, request, allowed_of, field_of, may_open=True)
    assert search is not None
    return search


def plan_at_once(state: CollectionState, view: View, request: SearchRequest) -> Search | None:
    """The same for a search that can be run where nothing may be waited for; ``None`` for any other.

    All that it reads is open and verified, its kernels are compiled, and it scans little. What it has to read from the
    disk is whatever mapped pages are not in memory.
    """
    if request.where is not None or request.with_vectors:
        return None
    search = _plan(
        state,
        view,
        request,
        allowed_rows,
        lambda segment, field: segment.reader.open_field(field),
        may_open=False,
    )
    if search is None:
        return None
    for each in search.planned:
        part = search.parts[each.number]
        if isinstance(part, SegmentView) and not part.reader.has_open_rows(request.with_payloads):
            return None
    return search if is_at_hand(search.planned, search.queries, state.kernels) else None


def _plan(
    state: CollectionState,
    view: View,
    request: SearchRequest,
    allowed_of: AllowedOf,
    field_of: FieldOf,
    *,
    may_open: bool,
) -> Search | None:
    """The search, on the fields that ``field_of`` gives; ``None`` where it gives none."""
    declared = state.manifest.schema.vector(request.field)
    lengths = check_vectors(request.queries, declared, "query" if request.queries.shape[0] == 1 else "queries")
    where = bind(request.where)
    parts: list[PartView] = []
    searches: list[PartSearch] = []
    for part in view.parts if request.queries.shape[0] else ():
        if part.rows == 0:
            continue
        allowed = allowed_of(state, part, where)
        count = allowed.count()
        if count == 0:
            # Nothing else of it is opened, so that what is damaged fails only who needs it.
            continue
        field: SearchablePart | None
        if isinstance(part, SegmentView):
            field = field_of(part, declared.name)
        else:
            field = MemtableField(part, declared, state.kernels)
        if field is None:
            return None
        parts.append(part)
        searches.append(PartSearch(field, None if count == part.rows else allowed))
    costs = DEFAULT_COSTS
    if any(each.allowed_rows is not None and each.part.has_graph for each in searches):
        costs = state.options.search_costs or costs_of(
            state.kernels, stride_bytes(declared.dim), measure=where is not None
        )
    planned = plan_parts(
        searches,
        request.k,
        request.recall,
        request.ef,
        state.options.graph_rows_min,
        costs,
        correction_of=state.recall.correction_of(declared.name, request.recall, request.ef),
        may_open=may_open,
    )
    return Search(declared, comparable(request.queries, lengths, declared), parts, planned)


def run_search(state: CollectionState, search: Search, request: SearchRequest, unindexed_rows: int) -> list[Hits]:
    """One ranking a query.

    Raises
    ------
    Corruption
        A file that the search needs is damaged.
    """
    if search.queries.shape[0] == 0:
        return []
    ranked = search_parts(search.planned, search.queries, request.k, state.kernels)
    return read_hits(state, search, ranked, request, unindexed_rows)


def read_hits(
    state: CollectionState, search: Search, ranked: Ranked, request: SearchRequest, unindexed_rows: int
) -> list[Hits]:
    """One ranking a query, with the ids of what was found.

    Raises
    ------
    Corruption
        A file that the hits need is damaged.
    """
    parts = search.parts
    if ranked.fallbacks:
        state.events.count("graph_fell_back_to_scan", ranked.fallbacks)
    payloads: dict[int, Callable[[int], bytes]] = {}
    found = sorted(set(ranked.parts.ravel().tolist()) - {-1})
    if request.with_payloads:
        _ensure_payloads(ranked, parts, found)
        payloads = {number: parts[number].payload_getter() for number in found}
    scores, distances = outside(ranked.distances, search.declared.metric)
    ids = {number: parts[number].id_getter() for number in found}
    return [
        _hits(ranked, number, parts, ids, payloads, scores[number], distances[number], request, unindexed_rows)
        for number in range(search.queries.shape[0])
    ]


def _hits(
    ranked: Ranked,
    number: int,
    parts: Sequence[PartView],
    ids: Mapping[int, Callable[[int], PointId]],
    payloads: Mapping[int, Callable[[int], bytes]],
    scores: F32Array,
    distances: F32Array,
    request: SearchRequest,
    unindexed_rows: int,
) -> Hits:
    """The ranking of query ``number``; ``ids`` and ``payloads`` give those of a row by part."""
    rows: list[int] = ranked.rows[number].tolist()
    of: list[int] = ranked.parts[number].tolist()
    if rows[-1] < 0:
        count = rows.index(-1)
        rows, of, scores, distances = rows[:count], of[:count], scores[:count], distances[:count]

    def payload(position: int) -> bytes:
        return payloads[of[position]](rows[position])

    # Read now, not when looked at: hits must not keep the files of segments that are merged meanwhile.
    vectors = [vectors_of(parts[part], row) for part, row in zip(of, rows, strict=True)] if request.with_vectors else []

    return Hits(
        [ids[part](row) for part, row in zip(of, rows, strict=True)],
        scores,
        distances,
        complete=True,
        strategy=ranked.strategy,
        recall_estimate=ranked.recall_estimate,
        unindexed_rows=unindexed_rows,
        payload_of=payload if request.with_payloads else None,
        vectors_of=vectors.__getitem__ if request.with_vectors else None,
    )


def _ensure_payloads(ranked: Ranked, parts: Sequence[PartView], found: Sequence[int]) -> None:
    """Verify the payloads of the hits now: the files may be gone when they are looked at, the mapping is not.

    ``found`` are the numbers of the parts that have hits.
    """
    for number in found:
        part = parts[number]
        if isinstance(part, SegmentView) and not part.reader.payloads_verified:
            part.reader.ensure_payloads(np.unique(ranked.rows[ranked.parts == number]))


def outside(distances: F32Array, metric: Metric) -> tuple[F32Array, F32Array]:
    """Scores (larger is nearer) and natural distances of internal distances."""
    if metric is Metric.COSINE:
        return np.float32(1.0) - distances, distances
    if metric is Metric.DOT:
        return -distances, -distances
    natural = np.sqrt(np.maximum(distances, 0))
    return -natural, natural
