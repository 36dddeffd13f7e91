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
from vecdb.norms import ordinary_length, ordinary_lengths
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
from vecdb.query.plan import Strategy
from vecdb.requests import SearchRequest, check_vectors
from vecdb.results.hits import Hits
from vecdb.schema import VectorField
from vecdb.segment.memtable import MemtableField
from vecdb.segment.vectors import comparable
from vecdb.types import F32Array, Metric, PointId


# Not frozen, as each search makes one: that would take four times as long.
@dataclass(slots=True)
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


_PLANS_MAX = 64
_ONE = np.ones((), np.float32)
"""An array, which numpy takes faster than a number."""
_COSINE = Metric.COSINE

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
    *,
    may_open: bool = True,
) -> Search:
    """Check a search and plan it; evaluates its filter.

    Parameters
    ----------
    allowed_of, field_of
        What evaluates the filter over a part and opens a field; for who wants to know how long that takes.
    may_open
        Whether graphs are opened for what they know of recall; if not, the plan only tells which would be.

    Raises
    ------
    InvalidArgument
        Unknown field, wrong dimension, not finite, malformed filter.
    Corruption
        A file that the search needs is damaged.
    """
    search = _plan(state, view, request, allowed_of, field_of, may_open=may_open)
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
    queries = _comparable(request.queries, declared)
    where = bind(request.where)
    if queries.shape[0] == 0:
        return Search(declared, queries, (), ())
    # All that a plan without a filter depends on, but for the view and what is open of it.
    key = (declared.name, request.k, request.recall, request.ef, state.recall.version)
    known = view.plans.get(key) if where is None else None
    if known is not None and _stands(*known, declared.name, field_of):
        return Search(declared, queries, *known)
    parts: list[PartView] = []
    searches: list[PartSearch] = []
    for part in view.parts:
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
        costs = state.options.search_costs or costs_of(state.kernels, stride_bytes(declared.dim))
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
    if where is None and (may_open or all(_is_open(each) for each in planned)):
        if known is not None or len(view.plans) >= _PLANS_MAX:
            # What does not stand any more holds structures that nobody else does.
            view.plans.clear()
        view.plans[key] = parts, planned
    return Search(declared, queries, parts, planned)


def _stands(parts: Sequence[PartView], planned: Sequence[PlannedPart], name: str, field_of: FieldOf) -> bool:
    """Whether a plan was made for the structures that there are now: a graph may be attached to a segment of a view."""
    for each in planned:
        part = parts[each.number]
        if isinstance(part, SegmentView) and field_of(part, name) is not each.part:
            return False
    return True


def _is_open(planned: PlannedPart) -> bool:
    """Whether a part was planned by what its graph knows, if it has one: before it is open that is not known."""
    return planned.plan.strategy is not Strategy.GRAPH or planned.part.has_open_graph


def _comparable(queries: F32Array, declared: VectorField) -> F32Array:
    """Queries, checked, in the form in which the field's vectors are stored."""
    if queries.shape == (1, declared.dim) and (length := ordinary_length(queries)):
        # As below, at a fraction of the cost; a length beyond what is allowed is not ordinary.
        return queries / length if declared.metric is _COSINE else queries
    if queries.shape[0] > 1 and queries.shape[1] == declared.dim:
        many = ordinary_lengths(queries)
        if many is not None:
            return comparable(queries, many, declared)
    lengths = check_vectors(queries, declared, "query" if queries.shape[0] == 1 else "queries")
    return comparable(queries, lengths, declared)


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
    if request.with_payloads:
        for number in _found(ranked):
            part = parts[number]
            if isinstance(part, SegmentView) and not part.reader.payloads.verified:
                _verify_payloads(part, ranked, number)
            payloads[number] = part.payload_getter()
    scores, distances = outside(ranked.distances, search.declared.metric)
    ids = {} if isinstance(ranked.parts, int) else {number: parts[number].id_getter() for number in _found(ranked)}
    hits: list[Hits] = []
    for number in range(search.queries.shape[0]):
        # A comprehension is a call.
        hits.append(  # noqa: PERF401
            _hits(ranked, number, parts, ids, payloads, scores[number], distances[number], request, unindexed_rows)
        )
    return hits


def _hits(
    ranked: Ranked,
    number: int,
    parts: Sequence[PartView],
    id_getters: Mapping[int, Callable[[int], PointId]],
    payloads: Mapping[int, Callable[[int], bytes]],
    scores: F32Array,
    distances: F32Array,
    request: SearchRequest,
    unindexed_rows: int,
) -> Hits:
    """The ranking of query ``number``; ``id_getters``, if there are several parts, and ``payloads`` are by part."""
    line = ranked.rows[number]
    rows: list[int] = line.tolist()
    if rows[-1] < 0:
        count = rows.index(-1)
        line, rows, scores, distances = line[:count], rows[:count], scores[:count], distances[:count]
    of: list[int]
    ids: list[PointId]
    if isinstance(ranked.parts, int):
        of = [ranked.parts] * len(rows)
        ids = parts[ranked.parts].ids_at(line)
    else:
        of = ranked.parts[number, : len(rows)].tolist()
        ids = [id_getters[part](row) for part, row in zip(of, rows, strict=True)]
    # Read now, not when looked at: hits must not keep the files of segments that are merged meanwhile.
    vectors = [vectors_of(parts[part], row) for part, row in zip(of, rows, strict=True)] if request.with_vectors else []

    return Hits(
        ids,
        scores,
        distances,
        complete=True,
        strategy=ranked.strategy,
        recall_estimate=ranked.recall_estimate,
        unindexed_rows=unindexed_rows,
        payload_of=_payload_of(payloads, of, rows) if request.with_payloads else None,
        vectors_of=vectors.__getitem__ if request.with_vectors else None,
    )


def _payload_of(
    payloads: Mapping[int, Callable[[int], bytes]], of: Sequence[int], rows: Sequence[int]
) -> Callable[[int], bytes]:
    """What gives the payload of the hit at a position, whose part and row are given."""
    return lambda position: payloads[of[position]](rows[position])


def _found(ranked: Ranked) -> Sequence[int]:
    """The parts that have hits."""
    if isinstance(ranked.parts, int):
        return (ranked.parts,)
    return sorted(set(ranked.parts.ravel().tolist()) - {-1})


def _verify_payloads(part: SegmentView, ranked: Ranked, number: int) -> None:
    """Verify the payloads of the hits of a part now: when they are looked at, its files may be gone; the map is not."""
    part.reader.payloads.ensure(np.unique(ranked.rows[(ranked.parts == number) & (ranked.rows >= 0)]))


def outside(distances: F32Array, metric: Metric) -> tuple[F32Array, F32Array]:
    """Scores (larger is nearer) and natural distances of internal distances."""
    if metric is _COSINE:
        return _ONE - distances, distances
    if metric is Metric.DOT:
        return -distances, -distances
    natural = np.sqrt(np.maximum(distances, 0))
    return -natural, natural
