"""Answers searches: from a request and a view to hits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vecdb.bitmap import Bitmap
from vecdb.engine.matching import allowed_rows, bind
from vecdb.engine.read import vectors_of
from vecdb.engine.state import CollectionState
from vecdb.engine.view import PartView, SegmentView, View
from vecdb.query.execute import PartSearch, Ranked, SearchablePart, search_parts
from vecdb.requests import SearchRequest, check_vectors
from vecdb.results import Hits
from vecdb.schema import VectorField
from vecdb.segment.memtable import MemtableField
from vecdb.segment.vectors import comparable
from vecdb.types import F32Array, Metric, PointId


def run_search(state: CollectionState, view: View, request: SearchRequest, unindexed_rows: int) -> list[Hits]:
    """One ranking a query.

    Raises
    ------
    InvalidArgument
        Unknown field, wrong dimension, not finite, malformed filter.
    Corruption
        A file that the search needs is damaged.
    """
    declared = state.manifest.schema.vector(request.field)
    lengths = check_vectors(request.queries, declared, "query" if request.queries.shape[0] == 1 else "queries")
    where = bind(request.where)
    if request.queries.shape[0] == 0:
        return []
    parts: list[PartView] = []
    searches: list[PartSearch] = []
    for part in view.parts:
        if part.rows == 0:
            continue
        allowed: Bitmap | None = allowed_rows(state, part, where)
        if allowed is not None and allowed.count() == part.rows:
            allowed = None
        parts.append(part)
        searches.append(PartSearch(_searchable(state, part, declared), allowed))
    ranked = search_parts(
        searches,
        comparable(request.queries, lengths, declared),
        request.k,
        request.recall,
        request.ef,
        state.kernels,
        state.options.graph_rows_min,
    )
    if ranked.fallbacks:
        state.events.count("graph_fell_back_to_scan", ranked.fallbacks)
    payloads: dict[int, Callable[[int], bytes]] = {}
    found = sorted(set(ranked.parts.ravel().tolist()) - {-1})
    if request.with_payloads:
        _ensure_payloads(ranked, parts, found)
        payloads = {number: parts[number].payload_getter() for number in found}
    scores, distances = outside(ranked.distances, declared.metric)
    ids = {number: parts[number].id_getter() for number in found}
    return [
        _hits(ranked, number, parts, ids, payloads, scores[number], distances[number], request, unindexed_rows)
        for number in range(request.queries.shape[0])
    ]


def is_ready(state: CollectionState, view: View, request: SearchRequest) -> bool:
    """Whether ``run_search`` would find all it needs open and verified, and evaluate no filter."""
    if request.where is not None:
        return False
    declared = state.manifest.schema.vector(request.field)
    return all(
        segment.rows == 0 or segment.reader.is_ready(declared.name, request.k, request.with_payloads)
        for segment in view.segments
    )


def _searchable(state: CollectionState, part: PartView, declared: VectorField) -> SearchablePart:
    if isinstance(part, SegmentView):
        return part.reader.field(declared.name)
    return MemtableField(part, declared, state.kernels)


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

    def vectors(position: int) -> Mapping[str, F32Array]:
        return vectors_of(parts[of[position]], rows[position])

    return Hits(
        [ids[part](row) for part, row in zip(of, rows, strict=True)],
        scores,
        distances,
        complete=True,
        strategy=ranked.strategy,
        recall_estimate=ranked.recall_estimate,
        unindexed_rows=unindexed_rows,
        payload_of=payload if request.with_payloads else None,
        vectors_of=vectors if request.with_vectors else None,
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
