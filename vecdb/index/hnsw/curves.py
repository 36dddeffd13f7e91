"""Recall curves: how recall grows with the breadth of a walk, measured on the rows of one segment.

A curve holds for one k and one share of allowed rows. Along a curve recall never falls. The logarithm of what is missed
is taken for linear in the slack between two points, and, up to twice the last slack measured, beyond them; of walks by
ef it is taken for linear in the logarithm of ef, and the less that is known, the wider the error is. Curves of other k
lie between those of the measured ones, and another share of allowed rows moves all of them alike. The arrays are
described in docs/formats/segment.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from vecdb.errors import Corruption
from vecdb.index.codes import stored_array
from vecdb.index.hnsw.breadth import EF_MAX, K_BASE, K_WALKED_MIN, RecallEstimate, beam_for_recall, recall_of_ef
from vecdb.kernels.arrays import SLACK_BITS, SLACK_MAX, Beam
from vecdb.types import AnyArray

SLACK_ONE = 1 << SLACK_BITS
K_MOVED = 10
"""How a share of allowed rows moves the curves is told by those of this k."""

ARRAY_NAMES = (
    "recall_ks", "recall_shares", "recall_by_ef", "recall_starts", "recall_breadths", "recall_means", "recall_errors",
    "recall_costs",
)  # fmt: skip
_MISS_MIN = 1e-5
_REACH = 2.0
_EF_REACH = math.log(8.0)
"""How far beyond the efs measured a curve is drawn, in their logarithm; farther away nothing more is known."""
_EF_SLOPED = math.log(4.0)
"""The slope there is that over so much of the curve at its end: of two points next to each other it may be chance."""
_EF_SLOPE = -1.0
"""Where there is one point: half is missed with twice the ef. Curves that were measured fall more steeply."""
_WIDEST = (SLACK_MAX - SLACK_ONE) / SLACK_ONE
_GRID: AnyArray = np.concatenate([[0.0], np.geomspace(2**-9, _WIDEST, 121)])
"""Slacks less one, at which curves are tabulated: sixteen for each doubling."""


@dataclass(frozen=True, slots=True)
class RecallPoint:
    """What walks of one breadth gave.

    Attributes
    ----------
    breadth
        Slack with ``SLACK_BITS`` fractional bits, or ef.
    recall, error
        Mean recall@k over the sample, and its standard error.
    cost
        Mean distance computations of a query.
    """

    breadth: int
    recall: float
    error: float
    cost: float


@dataclass(frozen=True, slots=True)
class RecallCurve:
    """Recall against breadth.

    Attributes
    ----------
    k
        Results wanted.
    share
        Share of the rows that were allowed, chosen at random.
    by_ef
        Whether breadths are efs of walks without slack.
    points
        By rising breadth, at least one.
    """

    k: int
    share: float
    by_ef: bool
    points: tuple[RecallPoint, ...]


def walk_room(k: int) -> int:
    """The ef of walks that end by slack: far above what they expand, so that only the hardest queries meet it."""
    return min(16 * (k + 38), EF_MAX)


class RecallCurves:
    """The curves of one graph, as ``Breadth``; made by a calibration or from stored arrays. Never changes."""

    __slots__ = ("_by_ef", "_moved", "_plain", "beam", "curves", "recall_of")

    def __init__(self, curves: Sequence[RecallCurve]) -> None:
        self.curves = tuple(curves)
        slack = [each for each in self.curves if not each.by_ef]
        plain = sorted((each for each in slack if each.share == 1.0), key=lambda each: each.k)
        assert plain, "there is no curve for all rows"
        self._plain = [(math.log(each.k), *_tabulated(each)) for each in plain]
        basis = _tabulated(min(plain, key=lambda each: abs(each.k - K_MOVED)))[0]
        moved = sorted((each for each in slack if each.share < 1.0), key=lambda each: each.share)
        self._moved = [
            (math.log(each.share), found - basis, errors) for each in moved for found, errors in [_tabulated(each)]
        ]
        self._by_ef = sorted((each for each in self.curves if each.by_ef), key=lambda each: each.k)
        # Few breadths are asked for again and again, and a search waits for the answer.
        self.beam = lru_cache(maxsize=512)(self._beam)
        self.recall_of = lru_cache(maxsize=512)(self._recall_of)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, AnyArray]) -> RecallCurves | None:
        """The curves whose ``arrays()`` were stored; ``None`` where there are none.

        Raises
        ------
        Corruption
            Some are missing, of the wrong shape or type, out of range, or not monotone.
        """
        if not any(name in arrays for name in ARRAY_NAMES):
            return None
        ks = stored_array(arrays, "recall_ks", np.int32, 1)
        shares = stored_array(arrays, "recall_shares", np.float64, 1)
        by_ef = stored_array(arrays, "recall_by_ef", np.uint8, 1)
        starts = stored_array(arrays, "recall_starts", np.int64, 1)
        breadths = stored_array(arrays, "recall_breadths", np.int64, 1)
        columns = [stored_array(arrays, f"recall_{name}", np.float64, 1) for name in ("means", "errors", "costs")]
        count, points = ks.shape[0], breadths.shape[0]
        sizes_fit = shares.shape == by_ef.shape == (count,) and all(each.shape == (points,) for each in columns)
        _hold(sizes_fit and starts.shape == (count + 1,), "recall_starts", starts)
        _hold(
            count > 0 and starts[0] == 0 and starts[-1] == points and bool((np.diff(starts) > 0).all()),
            "recall_starts",
            starts,
        )
        _hold(bool((ks > 0).all()), "recall_ks", ks)
        _hold(bool(((shares > 0) & (shares <= 1)).all()), "recall_shares", shares)
        _hold(bool((by_ef <= 1).all()) and bool(((by_ef == 0) & (shares == 1)).any()), "recall_by_ef", by_ef)
        means, errors, costs = columns
        _hold(bool(((means >= 0) & (means <= 1)).all()), "recall_means", means)
        _hold(bool(((errors >= 0) & (errors <= 1)).all()), "recall_errors", errors)
        _hold(bool((np.isfinite(costs) & (costs >= 0)).all()), "recall_costs", costs)
        curves: list[RecallCurve] = []
        for number in range(count):
            at = slice(int(starts[number]), int(starts[number + 1]))
            slack = not by_ef[number]
            least, most = (SLACK_ONE, SLACK_MAX) if slack else (1, EF_MAX)
            within = breadths[at][0] >= least and breadths[at][-1] <= most
            _hold(bool(within) and bool((np.diff(breadths[at]) > 0).all()), "recall_breadths", breadths[at])
            _hold(bool((np.diff(means[at]) >= 0).all()), "recall_means", means[at])
            found = zip(breadths[at].tolist(), *(each[at].tolist() for each in columns), strict=True)
            points_found = tuple(RecallPoint(*each) for each in found)
            curves.append(RecallCurve(int(ks[number]), float(shares[number]), not slack, points_found))
        return cls(curves)

    def arrays(self) -> dict[str, AnyArray]:
        """To store; see docs/formats/segment.md."""
        curves = self.curves
        points = [point for curve in curves for point in curve.points]
        return {
            "recall_ks": np.array([each.k for each in curves], np.int32),
            "recall_shares": np.array([each.share for each in curves], np.float64),
            "recall_by_ef": np.array([each.by_ef for each in curves], np.uint8),
            "recall_starts": np.cumsum([0, *(len(each.points) for each in curves)], dtype=np.int64),
            "recall_breadths": np.array([each.breadth for each in points], np.int64),
            "recall_means": np.array([each.recall for each in points], np.float64),
            "recall_errors": np.array([each.error for each in points], np.float64),
            "recall_costs": np.array([each.cost for each in points], np.float64),
        }

    def _beam(self, k: int, recall: float, selectivity: float = 1.0) -> Beam:
        """As ``Breadth.beam``: the least slack of which the recall, less its standard error, is what is wanted."""
        misses, errors = self._curve(k, selectivity)
        # What an upper bound of one standard error misses; falling, like the misses themselves.
        bound = np.minimum.accumulate(np.log(np.exp(misses) + errors))
        wanted = max(math.log(max(1.0 - recall, _MISS_MIN)), float(bound[-1]))
        at = int(np.argmax(bound <= wanted))
        slack = float(_GRID[at])
        if at:
            slack -= (wanted - bound[at]) / (bound[at - 1] - bound[at]) * (_GRID[at] - _GRID[at - 1])
        wide = SLACK_ONE + math.ceil(slack * SLACK_ONE)
        if selectivity < 1.0:
            # The curves come from rows that are allowed by chance; those of a filter may all lie far from the query.
            wide = max(wide, beam_for_recall(k, recall, selectivity).slack)
        return Beam(max(walk_room(k), k), wide)

    def _recall_of(self, beam: Beam, k: int, selectivity: float = 1.0) -> RecallEstimate:
        """As ``Breadth.recall_of``."""
        if beam.slack:
            misses, errors = self._curve(k, selectivity)
            slack = (beam.slack - SLACK_ONE) / SLACK_ONE
            missed = math.exp(float(np.interp(slack, _GRID, misses)))
            return RecallEstimate(1.0 - min(missed, 1.0), float(np.interp(slack, _GRID, errors)))
        return self._recall_of_ef(max(beam.ef, k, K_WALKED_MIN), k)

    def cost(self, k: int, recall: float) -> float:
        """Mean distance computations of a walk as broad as ``beam`` has it for all rows."""
        curve = min((each for each in self.curves if not each.by_ef), key=lambda each: (-each.share, abs(each.k - k)))
        points = curve.points
        return float(np.interp(self.beam(k, recall).slack, [p.breadth for p in points], [p.cost for p in points]))

    def _recall_of_ef(self, ef: float, k: int) -> RecallEstimate:
        """Of a walk that ends with its beam, which holds allowed rows only."""
        found = [(math.log(each.k), *_at_ef(each, ef * _as_broad(each.k, k))) for each in self._by_ef]
        if not found:
            return RecallEstimate(recall_of_ef(k, max(round(ef), 1)))
        places, misses, errors = zip(*found, strict=True)
        missed = min(math.exp(float(np.interp(math.log(k), places, misses))), 1.0)
        # Of more results than were ever wanted it is known the worse the more they are.
        unknown = missed * max(math.log(k) - places[-1], 0.0)
        return RecallEstimate(1.0 - missed, min(float(np.interp(math.log(k), places, errors)) + unknown, 1.0))

    def _curve(self, k: int, selectivity: float) -> tuple[AnyArray, AnyArray]:
        """Logarithms of what is missed, falling, and standard errors, over ``_GRID``."""
        places = [place for place, _, _ in self._plain]
        above = min(int(np.searchsorted(places, math.log(k))), len(places) - 1)
        below = max(above - 1, 0)
        apart = places[above] - places[below]
        weight = min(max((math.log(k) - places[below]) / apart, 0.0), 1.0) if apart else 1.0
        misses = (1 - weight) * self._plain[below][1] + weight * self._plain[above][1]
        errors = (1 - weight) * self._plain[below][2] + weight * self._plain[above][2]
        if selectivity < 1.0 and self._moved:
            more, more_errors = self._move(math.log(max(selectivity, 1e-6)))
            misses, errors = misses + more, np.maximum(errors, more_errors)
        return np.minimum(np.minimum.accumulate(misses), 0.0), errors

    def _move(self, place: float) -> tuple[AnyArray, AnyArray]:
        """How much more is missed where a share of ``exp(place)`` of the rows is allowed, and its standard errors.

        A walk among nearly all rows is still one among allowed rows: it is like that among the largest share measured.
        """
        places = [each for each, _, _ in self._moved]
        above = min(int(np.searchsorted(places, place)), len(places) - 1)
        below = max(above - 1, 0)
        apart = places[above] - places[below]
        weight = min(max((place - places[below]) / apart, 0.0), 1.0) if apart else 1.0
        (_, low, low_errors), (_, high, high_errors) = self._moved[below], self._moved[above]
        return (1 - weight) * low + weight * high, (1 - weight) * low_errors + weight * high_errors


def _tabulated(curve: RecallCurve) -> tuple[AnyArray, AnyArray]:
    """Logarithms of what is missed, and standard errors, over ``_GRID``."""
    slacks = np.array([(each.breadth - SLACK_ONE) / SLACK_ONE for each in curve.points])
    misses = np.log(np.maximum([1.0 - each.recall for each in curve.points], _MISS_MIN))
    errors = np.array([each.error for each in curve.points])
    found = np.interp(_GRID, slacks, misses)
    if slacks.shape[0] > 1:
        slope = min((misses[-1] - misses[-2]) / (slacks[-1] - slacks[-2]), 0.0)
        beyond = np.clip(_GRID - slacks[-1], 0.0, (_REACH - 1) * slacks[-1])
        found = np.maximum(found + slope * beyond, math.log(_MISS_MIN))
    # Where less is missed it is known as much better as it is less.
    return found, np.minimum(np.interp(_GRID, slacks, errors), np.exp(found))


def _as_broad(measured_k: int, k: int) -> float:
    """The ef of walks for ``measured_k`` that find as much as walks for ``k`` do, as a multiple of theirs."""
    walked, of = max(measured_k, K_WALKED_MIN), max(k, K_WALKED_MIN)
    return min(walked / of, (walked + K_BASE) / (of + K_BASE))


def _at_ef(curve: RecallCurve, ef: float) -> tuple[float, float]:
    """Logarithm of what is missed, and its standard error."""
    places = np.log([each.breadth for each in curve.points])
    misses = np.log(np.maximum([1.0 - each.recall for each in curve.points], _MISS_MIN))
    errors = [each.error for each in curve.points]
    place = math.log(ef)
    end = 0 if place < places[0] else -1
    beyond = min(max(place - places[-1], places[0] - place, 0.0), _EF_REACH)
    if beyond == 0.0:
        return float(np.interp(place, places, misses)), float(np.interp(place, places, errors))
    inner = int(np.argmin(np.abs(np.abs(places - places[end]) - _EF_SLOPED)))
    run = float(places[end] - places[inner])
    slope = min(float(misses[end] - misses[inner]) / run, 0.0) if run else _EF_SLOPE
    last = float(misses[end])
    found = min(max(last + slope * (beyond if end else -beyond), math.log(_MISS_MIN)), 0.0)
    # Two standard errors reach what was measured last: the curve may be flat from there on.
    error = errors[end] * (1.0 + beyond) + abs(math.exp(found) - math.exp(last)) / 2.0
    return found, min(error, 1.0)


def _hold(holds: bool, name: str, found: AnyArray) -> None:
    if not holds:
        raise Corruption(f"array {name!r} of a graph is no recall curve", field=name, value=found.tolist()[:20])
