"""How far a walk has to go for a wanted recall: what tells it, and what tells it where nothing was measured.

The figures here are fitted to a hard set (100,000 sentence embeddings of 384 dimensions, local intrinsic dimension 23),
so that easier sets reach more than is asked. An index that was calibrated has curves of its own in their place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from vecdb.kernels.arrays import SLACK_BITS, Beam

EF_MIN = 16
EF_MAX = 100_000
K_WALKED_MIN = 10
"""A walk for fewer results looks for so many: where it ended by the distance of the first would be chance."""

K_BASE = 38
"""What a walk has to keep grows with ``k`` plus so many."""
_STEPS = ((0.80, 0.4), (0.90, 0.6), (0.95, 1.1), (0.98, 2.2), (0.99, 3.5), (0.995, 6.0), (1.0, 20.0))
"""(recall@k, ef as a multiple of ``k + K_BASE``), rising: for a walk that ends with its beam."""

_SLACKS = ((0.80, 1.0), (0.90, 1.055), (0.95, 1.105), (0.98, 1.15), (0.99, 1.2), (0.995, 1.25), (1.0, 1.6))
"""(recall@k, slack), rising."""

_ALLOWED_SLACKS = (
    (0.80, 1.02), (0.90, 1.064), (0.95, 1.087), (0.98, 1.13), (0.99, 1.16), (0.995, 1.21), (1.0, 1.6)
)  # fmt: skip
"""The same for a walk among allowed rows, which has more slack by itself where they are remote: fitted to the worst of
filters by chance, by nearness and by remoteness."""

_SELECTIVITIES = (
    (-3.0, 2.5), (-2.0, 1.3), (-1.5, 0.75), (-1.3, 0.7), (-1.0, 0.82), (-0.6, 1.0), (-0.05, 1.0), (0.0, 0.87)
)  # fmt: skip
"""(logarithm to base ten of the selectivity, factor of what ``_ALLOWED_SLACKS`` have beyond 1), rising. With fewer
allowed rows the k-th is more remote, and slack grows by itself; with very few they are hardly linked."""

_ROOM = 4
"""A walk that ends by slack may keep this many times the rows that one which ends with its beam would."""


@dataclass(frozen=True, slots=True)
class RecallEstimate:
    """Mean recall@k that is expected.

    Attributes
    ----------
    recall
        From 0 to 1.
    error
        Standard error of the mean that it comes from; 0 where it was not measured.
    """

    recall: float
    error: float = 0.0


class Breadth(Protocol):
    """What an index knows of how far its walks have to go."""

    def beam(self, k: int, recall: float, selectivity: float = 1.0) -> Beam:
        """The breadth that gives ``recall`` at ``k`` when a share ``selectivity`` of the rows is allowed.

        Parameters
        ----------
        k
            Results wanted, at least 1.
        recall
            Mean recall@k wanted, above 0 and up to 1; 1 means as near to exact as a graph gets.
        selectivity
            Share of the rows that are allowed, above 0 and up to 1.
        """
        ...

    def recall_of(self, beam: Beam, k: int, selectivity: float = 1.0) -> RecallEstimate:
        """The recall at ``k`` that a walk of this breadth gives."""
        ...


class DefaultBreadth:
    """The breadth of an index of which nothing was measured."""

    def beam(self, k: int, recall: float, selectivity: float = 1.0) -> Beam:
        """As ``Breadth.beam``."""
        return beam_for_recall(k, recall, selectivity)

    def recall_of(self, beam: Beam, k: int, selectivity: float = 1.0) -> RecallEstimate:
        """As ``Breadth.recall_of``."""
        if beam.slack == 0:
            return RecallEstimate(_recall_of_any_ef(k, max(beam.ef, k, K_WALKED_MIN)))
        return RecallEstimate(_recall_of_slack(beam.slack / (1 << SLACK_BITS), selectivity))


DEFAULT_BREADTH = DefaultBreadth()


def beam_for_recall(k: int, recall: float, selectivity: float = 1.0) -> Beam:
    """The breadth that gives ``recall`` at ``k`` when a share ``selectivity`` of the rows is allowed.

    Parameters
    ----------
    k
        Results wanted, at least 1.
    recall
        Mean recall@k wanted, above 0 and up to 1; 1 means as near to exact as a graph gets.
    selectivity
        Share of the rows that are allowed, above 0 and up to 1.
    """
    slack = _between(_slacks(selectivity), recall)
    return Beam(min(ef_for_recall(k, recall) * _ROOM, EF_MAX), int(slack * (1 << SLACK_BITS)))


def ef_for_recall(k: int, recall: float) -> int:
    """The ef, from ``max(k, EF_MIN)`` to ``EF_MAX``, with which a walk that ends with its beam gives ``recall``.

    However many rows are allowed: only these are in the beam.
    """
    ef = int(_between(_STEPS, recall) * (k + K_BASE)) + 1
    return min(max(ef, k, EF_MIN), EF_MAX)


@lru_cache(maxsize=1024)
def recall_of_ef(k: int, ef: int) -> float:
    """The largest recall for which ``ef_for_recall`` asks no more than ``ef``."""
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        if ef_for_recall(k, max(middle, 1e-6)) <= ef:
            low = middle
        else:
            high = middle
    return low


def _recall_of_any_ef(k: int, ef: int) -> float:
    """As ``recall_of_ef``, and in proportion where ``ef`` is less than is asked for any recall."""
    least_recall, factor = _STEPS[0]
    least = max(factor * (k + K_BASE) + 1, EF_MIN)
    return max(recall_of_ef(k, ef), least_recall * min(ef / least, 1.0))


def _slacks(selectivity: float) -> tuple[tuple[float, float], ...]:
    """(recall@k, slack), rising, where such a share of the rows is allowed."""
    if selectivity >= 1.0:
        return _SLACKS
    factor = _between(_SELECTIVITIES, math.log10(max(selectivity, 1e-3)))
    return tuple((recall, 1.0 + (slack - 1.0) * factor) for recall, slack in _ALLOWED_SLACKS)


def _recall_of_slack(slack: float, selectivity: float) -> float:
    """The recall for which ``beam_for_recall`` asks this slack."""
    before, *steps = _slacks(selectivity)
    if slack < before[1]:
        return before[0] * slack / before[1]
    for recall, value in steps:
        if slack <= value:
            return before[0] + (slack - before[1]) / (value - before[1]) * (recall - before[0])
        before = (recall, value)
    return 1.0


def _between(steps: tuple[tuple[float, float], ...], place: float) -> float:
    """Linear between the steps; the first one holds below it, the last one beyond it."""
    before = (0.0, steps[0][1])
    for at, value in steps:
        if place <= at:
            return before[1] + (place - before[0]) / (at - before[0]) * (value - before[1])
        before = (at, value)
    return steps[-1][1]
