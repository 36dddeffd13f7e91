"""Runs a search over the parts of a view and merges the answers.

Every ranking holds ``min(k, allowed rows with the vector)`` hits: where a walk through a graph finds fewer, the part is
scanned instead. Ties break by (distance, part, slot), so that the same view gives the same ranking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from vecdb.bitmap import Bitmap
from vecdb.index.flat import FlatIndex
from vecdb.index.hnsw import DEFAULT_BREADTH, Breadth
from vecdb.index.protocol import IndexAnswer, VectorIndex
from vecdb.kernels.protocol import Kernels
from vecdb.query.correction import NO_CORRECTION, CorrectionOf, uncorrected
from vecdb.query.costs import DEFAULT_COSTS, SearchCosts
from vecdb.query.plan import GRAPH_ROWS_MIN, PartFacts, PartPlan, Strategy, plan_part
from vecdb.segment.vectors import FieldVectors
from vecdb.types import F32Array, I32Array, I64Array, TopK

SCANNED_BYTES_MAX = 32 * 2**20
"""A search at once reads no more vectors and codes than this, one after the other: a few milliseconds."""


# Names of members are looked up by code of the enumeration.
_EXACT, _SCAN = Strategy.EXACT, Strategy.SCAN


class SearchablePart(Protocol):
    """The vectors of one field in one segment or memtable."""

    vectors: FieldVectors
    slots: int

    @property
    def has_codes(self) -> bool:
        """Whether 8-bit codes exist."""

    @property
    def has_graph(self) -> bool:
        """Whether a graph is attached."""

    @property
    def exact(self) -> FlatIndex:
        """Exact search."""

    @property
    def scan(self) -> VectorIndex:
        """A scan of the codes."""

    @property
    def graph(self) -> VectorIndex:
        """A walk through the graph."""

    @property
    def breadth(self) -> Breadth:
        """How far walks through the graph have to go; opens its file."""

    @property
    def has_open_codes(self) -> bool:
        """Whether ``scan`` opens no file."""

    @property
    def has_open_graph(self) -> bool:
        """Whether ``graph`` opens no file."""

    @property
    def verified(self) -> bool:
        """Whether none of the vectors is left to verify."""

    def ensure(self, slots: I64Array | None) -> None:
        """Verify vectors before they are read."""


@dataclass(frozen=True, slots=True)
class PartSearch:
    """One part to search, and which of its rows may be returned (``None``: all)."""

    part: SearchablePart
    allowed_rows: Bitmap | None


@dataclass(frozen=True, slots=True)
class PlannedPart:
    """How one part is searched.

    Attributes
    ----------
    number
        Its place among all parts.
    allowed
        The slots that may be returned, ``count`` in number; ``None`` for all.
    """

    number: int
    part: SearchablePart
    plan: PartPlan
    allowed: Bitmap | None
    count: int


# Not frozen, as each search makes one: that would take four times as long.
@dataclass(slots=True)
class Ranked:
    """Merged rankings of nq queries.

    Attributes
    ----------
    parts
        (nq, k) int32: the part of each hit; -1 behind the last hit. Or the one part that all hits are of.
    rows
        (nq, k) int64: the row of each hit; -1 behind the last hit.
    distances
        (nq, k) float32, internal distances; +inf behind the last hit.
    strategy
        Names of the strategies used, joined by ``+``.
    fallbacks
        Rankings of a part that a graph left short and a scan completed.
    """

    parts: I32Array | int
    rows: I64Array
    distances: F32Array
    strategy: str
    recall_estimate: float
    fallbacks: int


def plan_parts(
    searches: Sequence[PartSearch],
    k: int,
    recall: float,
    ef: int | None,
    graph_rows_min: int = GRAPH_ROWS_MIN,
    costs: SearchCosts = DEFAULT_COSTS,
    *,
    correction_of: CorrectionOf = uncorrected,
    may_open: bool = True,
) -> list[PlannedPart]:
    """How to search each part for ``k`` hits; parts with nothing to find are left out.

    Each part is searched at the wanted recall. The k nearest of all are among the nearest of each, which are easier to
    find than its k-th, so that together they have at least that.

    Parameters
    ----------
    correction_of
        What live queries taught.
    may_open
        Whether the file of a graph may be opened for its recall curves; if not, the plan for a graph that is not open
        is no plan to follow.
    """
    planned: list[PlannedPart] = []
    for number, search in enumerate(searches):
        part = search.part
        allowed = part.vectors.allowed_slots(search.allowed_rows)
        count = part.slots if allowed is None else allowed.count()
        breadth = part.breadth if part.has_open_graph else DEFAULT_BREADTH
        facts = PartFacts(part.slots, count, part.has_codes, part.has_graph, breadth)
        correction = correction_of(count / part.slots) if part.slots else NO_CORRECTION
        plan = plan_part(facts, k, recall, ef, graph_rows_min, costs, correction)
        if plan.strategy is Strategy.GRAPH and may_open and not part.has_open_graph:
            # Only now: a part that is scanned needs no curves.
            facts = replace(facts, breadth=part.breadth)
            plan = plan_part(facts, k, recall, ef, graph_rows_min, costs, correction)
        if plan.strategy is not Strategy.NOTHING:
            planned.append(PlannedPart(number, part, plan, None if count == part.slots else allowed, count))
    return planned


def is_at_hand(planned: Sequence[PlannedPart], queries: F32Array, kernels: Kernels) -> bool:
    """Whether the search opens, verifies and compiles nothing, and scans no more than ``SCANNED_BYTES_MAX``."""
    scanned_bytes = 0
    for each in planned:
        part = each.part
        if not part.verified:
            return False
        match each.plan.strategy:
            case Strategy.EXACT:
                ready = kernels.is_ready("scan_topk")
                scanned_bytes += 4 * each.count * queries.size
            case Strategy.SCAN:
                ready = part.has_open_codes and kernels.is_ready("answer_scan")
                scanned_bytes += each.count * queries.size
            case _:
                walking = "answer_graph" if each.allowed is None else "answer_graph_allowed"
                ready = part.has_open_graph and kernels.is_ready(walking)
        if not ready:
            return False
    return scanned_bytes <= SCANNED_BYTES_MAX and (len(planned) == 1 or kernels.is_ready("merge"))


def search_parts(planned: Sequence[PlannedPart], queries: F32Array, k: int, kernels: Kernels) -> Ranked:
    """The k nearest allowed rows of all parts.

    Parameters
    ----------
    queries
        (nq, dim) float32, normalised under cosine.
    kernels
        What merges the rankings of the parts.
    """
    if len(planned) == 1:
        [only] = planned
        answer, short = search_part(only, queries, k)
        return _ranked(only, answer, short)
    return merge_answers(planned, [search_part(each, queries, k) for each in planned], queries.shape[0], k, kernels)


def merge_answers(
    planned: Sequence[PlannedPart], answers: Sequence[tuple[IndexAnswer, int]], nq: int, k: int, kernels: Kernels
) -> Ranked:
    """The k nearest rows of what ``search_part`` found in each part."""
    if len(planned) == 1:
        return _ranked(planned[0], *answers[0])
    found: list[TopK] = []
    used: set[str] = set()
    fallbacks = 0
    for each, (answer, short) in zip(planned, answers, strict=True):
        found.append(answer.topk)
        used.add(each.plan.strategy.value)
        if short:
            used.add(Strategy.SCAN.value)
            fallbacks += short
    parts, rows, distances = _merged(planned, found, nq, k, kernels)
    strategy = "+".join(sorted(used)) or Strategy.NOTHING.value
    return Ranked(parts, rows, distances, strategy, recall_expected(planned), fallbacks)


def _ranked(planned: PlannedPart, answer: IndexAnswer, short: int) -> Ranked:
    """The ranking of the only part there is."""
    topk = answer.topk
    vectors = planned.part.vectors
    rows = topk.slots.astype(np.int64)
    if vectors.slot_rows is not None:
        rows = vectors.rows_of(rows)
    strategy = planned.plan.strategy.value
    if short:
        strategy = "+".join(sorted({strategy, Strategy.SCAN.value}))
    return Ranked(planned.number, rows, topk.distances, strategy, planned.plan.recall_estimate, short)


def recall_expected(planned: Sequence[PlannedPart]) -> float:
    """Mean recall expected over all parts, each by its number of allowed rows; 1.0 where there is nothing to find."""
    weight = 0
    weighted = 0.0
    for each in planned:
        weighted += each.plan.recall_estimate * each.count
        weight += each.count
    return weighted / weight if weight else 1.0


def search_part(planned: PlannedPart, queries: F32Array, k: int) -> tuple[IndexAnswer, int]:
    """The answer of one part, and how many queries the graph left short and a scan completed."""
    part, plan, allowed = planned.part, planned.plan, planned.allowed
    ensure = None if part.verified else part.ensure
    if plan.strategy is _EXACT:
        part.ensure(None if allowed is None else allowed.rows())
        return part.exact.search(queries, k, allowed=allowed), 0
    if plan.strategy is _SCAN:
        return part.scan.search(queries, k, allowed=allowed, ensure=ensure), 0
    answer = part.graph.search(queries, k, beam=plan.beam, allowed=allowed, ensure=ensure)
    wanted = min(k, planned.count)
    if answer.fewest >= wanted:
        return answer, 0
    # Rows come first and gaps last, so the last place that should be filled tells.
    short = np.flatnonzero(answer.topk.slots[:, wanted - 1] < 0)
    completed = part.scan.search(queries[short], k, allowed=allowed, ensure=ensure)
    answer.topk.slots[short] = completed.topk.slots
    answer.topk.distances[short] = completed.topk.distances
    both = IndexAnswer(
        answer.topk,
        wanted,
        answer.distance_computations + completed.distance_computations,
        answer.hops,
        answer.reranked + completed.reranked,
    )
    return both, short.shape[0]


def _merged(
    planned: Sequence[PlannedPart], answers: Sequence[TopK], nq: int, k: int, kernels: Kernels
) -> tuple[I32Array, I64Array, F32Array]:
    """Parts, rows and distances, each (nq, k), of the nearest."""
    if not answers:
        return np.full((nq, k), -1, np.int32), np.full((nq, k), -1, np.int64), np.full((nq, k), np.inf, np.float32)
    merged = kernels.merge(answers)
    # The last entry is for -1.
    parts = np.array([*(each.number for each in planned), -1], np.int32)[merged.sources]
    rows = merged.slots.astype(np.int64)
    for each in planned:
        vectors = each.part.vectors
        if vectors.slot_rows is not None:
            of = parts == each.number
            rows[of] = vectors.rows_of(rows[of])
    return parts, rows, merged.distances
