"""Which way each part of a collection is searched.

Planning is a pure function of what is known before the search: how many rows are allowed, which structures exist and
what the caller asked for. The same facts give the same plan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from vecdb.index.hnsw import DEFAULT_BREADTH, Breadth, ef_for_recall
from vecdb.kernels.arrays import Beam
from vecdb.query.correction import APPLIED_MAX, NO_CORRECTION, Correction
from vecdb.query.costs import DEFAULT_COSTS, SearchCosts

SCAN_RECALL = 0.999
"""Expected recall of a scan of 8-bit codes whose candidates are ranked again by their float32 vectors."""

GRAPH_ROWS_MIN = 10_000
"""With fewer allowed rows a scan of their codes costs less than a walk; a part with fewer rows gets no graph."""

RECALL_SHORT_MAX = 0.03
"""A walk that is known to miss the recall that is asked for by more than this gives way to a scan."""

_HOPS_PER_EF = 2.0
_ROWS_PER_HOP = 30
_DETOURS_MAX = 30
_DETOURS_AT_ALL = 1.4
"""What walks among allowed rows do: hops for each of ``ef_for_recall``, rows looked at in a hop, and detours in a hop,
which are so many over the selectivity (measured from 0.05 to 0.9, see docs/adr/0005).

Walks by a calibrated slack take 1.1 hops for each where rows are allowed by chance, 2.1 along a direction, and up to 8
far from the query; a scan takes the same time for all of them.
"""

_SHARES = 50


class Strategy(Enum):
    """How one part is searched."""

    NOTHING = "nothing"
    """No row is allowed."""

    EXACT = "exact"
    """float32 distances of all allowed rows."""

    SCAN = "scan"
    """Distances of the 8-bit codes of all allowed rows, then float32 distances of the nearest."""

    GRAPH = "graph"
    """A walk through the graph on 8-bit codes, then float32 distances of the nearest."""


@dataclass(frozen=True, slots=True)
class PartFacts:
    """What the planner knows of one part (a segment's field, or a memtable's).

    Attributes
    ----------
    slots
        Vectors in the part.
    allowed
        How many of them may be returned.
    has_codes, has_graph
        Which structures exist.
    breadth
        How far walks through the graph have to go, as far as that is known.
    """

    slots: int
    allowed: int
    has_codes: bool
    has_graph: bool
    breadth: Breadth = DEFAULT_BREADTH


@dataclass(frozen=True, slots=True)
class PartPlan:
    """How one part is searched.

    Attributes
    ----------
    beam
        How far a walk through the graph goes; ``None`` for the other strategies.
    recall_estimate
        Mean recall expected within this part.
    recall_calibrated
        The same as it was measured with rows of the part as queries, before what live queries taught.
    """

    strategy: Strategy
    beam: Beam | None
    recall_estimate: float
    recall_calibrated: float = 1.0


@lru_cache(maxsize=4096)
def plan_part(
    facts: PartFacts,
    k: int,
    recall: float,
    ef: int | None,
    graph_rows_min: int = GRAPH_ROWS_MIN,
    costs: SearchCosts = DEFAULT_COSTS,
    correction: Correction = NO_CORRECTION,
) -> PartPlan:
    """The plan for one part.

    Parameters
    ----------
    k
        Hits wanted.
    recall
        Mean recall to aim at; 1.0 means exact.
    ef
        The caller's own size of the candidate list, instead of ``recall``.
    graph_rows_min
        With fewer allowed rows the graph is left alone.
    costs
        By which a walk among some of the rows is weighed against a scan of them.
    correction
        What live queries taught about a walk.
    """
    if facts.allowed == 0:
        return PartPlan(Strategy.NOTHING, None, 1.0)
    if not facts.has_codes or (ef is None and recall > SCAN_RECALL) or facts.allowed <= k:
        return PartPlan(Strategy.EXACT, None, 1.0)
    selectivity = facts.allowed / facts.slots
    hops = max(ef, k) if ef is not None else _HOPS_PER_EF * ef_for_recall(k, recall)
    if (
        not facts.has_graph
        or facts.allowed < graph_rows_min
        or (selectivity < 1.0 and scan_ns(facts.allowed, costs) < walk_ns(hops, selectivity, costs))
    ):
        return PartPlan(Strategy.SCAN, None, SCAN_RECALL, SCAN_RECALL)
    share = rounded_share(selectivity)
    wanted = 1.0 - (1.0 - recall) / correction.applied
    if ef is None:
        beam = facts.breadth.beam(k, wanted, share)
    else:
        beam = Beam(max(ef, k))
    calibrated = facts.breadth.recall_of(beam, k, share).recall
    estimate = max(0.0, 1.0 - (1.0 - calibrated) * correction.measured)
    short = calibrated < min(recall, wanted) - RECALL_SHORT_MAX
    if correction.applied >= APPLIED_MAX:
        short = estimate < recall - RECALL_SHORT_MAX
    if ef is None and short:
        # No walk of this graph has what is asked for, by its calibration or by what its broadest walks gave to live
        # queries: codes do not tell its rows apart, or too many are equally far.
        return PartPlan(Strategy.SCAN, None, SCAN_RECALL, SCAN_RECALL)
    return PartPlan(Strategy.GRAPH, beam, min(estimate, SCAN_RECALL), calibrated)


def scan_ns(allowed: int, costs: SearchCosts) -> float:
    """What a scan of so many allowed rows costs for one query."""
    return allowed * costs.row_ns


def walk_ns(hops: float, selectivity: float, costs: SearchCosts) -> float:
    """What a walk of so many hops among a share of the rows costs for one query."""
    detours = min(_DETOURS_AT_ALL / selectivity, _DETOURS_MAX)
    return hops * (costs.hop_ns + _ROWS_PER_HOP * costs.row_ns + detours * costs.detour_ns)


def rounded_share(selectivity: float) -> float:
    """A share of allowed rows, rounded down to 1 / 50, so that few are told apart; never to nothing."""
    return 1.0 if selectivity == 1.0 else max(math.floor(selectivity * _SHARES) / _SHARES, 1 / _SHARES)
