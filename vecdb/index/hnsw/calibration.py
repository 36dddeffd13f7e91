"""Calibration of a graph: walks with rows of its own as queries, of which it is known what they should find.

A sample of the rows is taken out of the graph (no link leads to them any more) and asked for. What is measured is a
function of the arrays, the parameters and the seed: the sample follows from the seed, the walks are integer, and the
work is bounded by counting distance computations. A graph that was built without these rows would have other links in
their place, so that a little more is found in truth than is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vecdb.bitmap import Bitmap
from vecdb.index.codes import ScalarCodes
from vecdb.index.flat import FlatIndex
from vecdb.index.hnsw.breadth import K_WALKED_MIN
from vecdb.index.hnsw.curves import SLACK_ONE, RecallCurve, RecallCurves, RecallPoint, walk_room
from vecdb.index.hnsw.index import HnswIndex
from vecdb.index.hnsw.levels import insertion_order, row_hashes
from vecdb.index.hnsw.params import HnswParams
from vecdb.index.protocol import EnsureRows
from vecdb.index.steps import CALL_ROWS, scan_in_steps
from vecdb.kernels.arrays import Beam
from vecdb.kernels.protocol import Kernels
from vecdb.types import AnyArray, BoolArray, F32Array, I32Array, I64Array

SAMPLE_MIN = 64
SAMPLE_MAX = 320
_SAMPLE_DIVISOR = 256
_SAMPLE_SHARE = 32
"""One row in 256 is a query, never more than one in so many: taken out, they are hardly missed."""

ALLOWED_MIN = 10_000
"""A share of the rows that leaves fewer is not walked through but scanned."""

_WORK_PER_ROW = 256
"""Distance computations a row that a calibration may take: a twentieth of those that built the graph."""
_SCANNED_PER_COMPUTED = 16
"""Rows scanned one after the other in the time of one that a walk comes by."""

_SLACKS = (0.0, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2, 1.6, 2.4, 3.0)
"""Less one; from narrow to wide until next to nothing is missed."""
_RECALL_ENOUGH = 0.995
_COST_SHARE_MAX = 0.125
_COST_ENOUGH_MIN = 2_500
"""Walks that compute the distances of this share of the rows, unless they are few, are no better than a scan."""

_CALL_COMPUTED = 30_000
_LINES = 16_384


@dataclass(frozen=True, slots=True)
class _Kind:
    """Walks of one kind that are measured.

    Attributes
    ----------
    ks
        Results wanted, most first; the same walks serve all of them.
    share
        Share of the rows that are allowed.
    part
        One in so many of the sample is asked for.
    """

    ks: tuple[int, ...]
    share: float
    part: int


_KINDS = (
    _Kind((K_WALKED_MIN, 1), 1.0, 1),
    _Kind((10,), 0.5, 2),
    _Kind((10,), 0.9, 2),
    _Kind((10,), 0.2, 4),
    _Kind((100,), 1.0, 4),
    _Kind((10,), 0.05, 8),
)
"""The most important ones first: what the work does not suffice for is left out."""

_K_MOST = 100

_BY_EF = (((K_WALKED_MIN, 1), (10, 20, 40, 80, 160, 320)), ((100,), (100, 200, 400)))
"""(results wanted, most first, which the same walks serve; the efs of these walks, the least that there is first)."""
_EF_PART = 4
_EF_QUERIES_MIN = 32


class Calibration:
    """Measures the curves of one finished graph. Not safe to share between threads.

    Parameters
    ----------
    kernels
        The device.
    codes, vectors
        Of every row; vectors ((n, dim) float32) may be a read-only map.
    arrays
        Of the graph, as ``HnswBuilder.arrays()``.
    params
        How it was built; the sample follows from the seed.
    ensure
        Verifies vectors before they are read.
    """

    def __init__(
        self,
        kernels: Kernels,
        codes: ScalarCodes,
        vectors: F32Array,
        arrays: Mapping[str, AnyArray],
        params: HnswParams,
        *,
        ensure: EnsureRows | None = None,
    ) -> None:
        self._kernels = kernels
        self._codes = codes
        self._vectors = vectors
        self._graph = arrays
        self._params = params
        self._ensure = ensure
        self._work_left = _WORK_PER_ROW * codes.rows
        self._curves: list[RecallCurve] = []

    def run(self, cancelled: Callable[[], bool] | None = None) -> bool:
        """Work to the end, or until ``cancelled`` (asked about every 20 ms) says so; returns whether it is done."""
        for _ in self._measure():  # noqa: SIM110 - it is run for what it does
            if cancelled is not None and cancelled():
                return False
        return True

    def arrays(self) -> dict[str, AnyArray]:
        """What was measured, to be stored with the graph; empty where there are too few rows to measure anything."""
        return RecallCurves(self._curves).arrays() if self._curves else {}

    def _measure(self) -> Iterator[None]:
        rows = self._codes.rows
        sample = self._sample()
        if sample.shape[0] == 0:
            return
        yield
        links = yield from _without(self._graph["links"], sample)
        stripped = {**self._graph, "links": links}
        index = yield from HnswIndex.opening(self._kernels, stripped, self._codes, self._vectors)
        if self._ensure is not None:
            # What is right is told by vectors: codes may not tell rows apart.
            self._ensure(np.arange(rows))
        yield
        left = np.ones(rows, np.bool_)
        left[sample] = False
        queries = self._vectors[sample]
        if not self._affords_scan(queries):
            return
        right = yield from self._right(queries, _K_MOST, Bitmap.from_bools(left))
        first, *others = _KINDS
        yield from self._by_slack(index, first, queries, right)
        part = max(1, min(_EF_PART, sample.shape[0] // _EF_QUERIES_MIN))
        yield from self._by_ef(index, queries[::part], right[::part])
        for kind in others:
            some = queries[:: kind.part]
            if kind.share == 1.0:
                yield from self._by_slack(index, kind, some, right[:: kind.part])
            elif kind.share * rows >= ALLOWED_MIN and self._affords_scan(some):
                allowed = Bitmap.from_bools(left & _drawn(rows, kind.share, self._params.seed))
                among = yield from self._right(some, kind.ks[0], allowed)
                yield from self._by_slack(index, kind, some, among, allowed)

    def _sample(self) -> I64Array:
        """Rows of the bottom layer only, ascending: the last ones in the order that the seed gives; none of a few."""
        rows = self._codes.rows
        size = min(SAMPLE_MAX, max(SAMPLE_MIN, rows // _SAMPLE_DIVISOR))
        if size * _SAMPLE_SHARE > rows:
            return np.zeros(0, np.int64)
        order, _ = insertion_order(rows, self._params.m, self._params.seed)
        above = np.zeros(rows, np.bool_)
        above[self._graph["upper_rows"]] = True
        return np.sort(order[~above[order]][-size:]).astype(np.int64)

    def _by_slack(
        self, index: HnswIndex, kind: _Kind, queries: F32Array, right: F32Array, allowed: Bitmap | None = None
    ) -> Iterator[None]:
        """The curve of walks that end by slack, whose right distances are known."""
        most = kind.ks[0]
        if self._work_left <= 0:
            return
        points: dict[int, list[RecallPoint]] = {k: [] for k in kind.ks}
        for slack in _SLACKS:
            if points[most] and self._is_enough(points[most][-1], queries):
                break
            breadth = SLACK_ONE + round(slack * SLACK_ONE)
            beam = Beam(walk_room(most), breadth)
            found, cost = yield from self._walked(index, queries, most, beam, allowed)
            for k in kind.ks:
                points[k].append(_point(breadth, found, right, k, cost))
        self._curves += [RecallCurve(k, kind.share, False, _risen(points[k])) for k in kind.ks]

    def _by_ef(self, index: HnswIndex, queries: F32Array, right: F32Array) -> Iterator[None]:
        """The curves of walks that end with their beam, whose right distances are known."""
        for ks, efs in _BY_EF:
            points: dict[int, list[RecallPoint]] = {k: [] for k in ks}
            for ef in efs:
                last = points[ks[0]][-1:]
                if self._is_enough(last[0], queries) if last else self._work_left <= 0:
                    break
                distances, cost = yield from self._walked(index, queries, ks[0], Beam(ef), None)
                for k in ks:
                    points[k].append(_point(ef, distances, right, k, cost))
            self._curves += [RecallCurve(k, 1.0, True, _risen(found)) for k, found in points.items() if found]

    def _affords_scan(self, queries: F32Array) -> bool:
        """Whether there is work left for finding what is right; if so, it is taken."""
        work = queries.shape[0] * self._codes.rows // _SCANNED_PER_COMPUTED
        self._work_left -= work
        return self._work_left > 0

    def _is_enough(self, last: RecallPoint, queries: F32Array) -> bool:
        """Whether a broader walk would not be worth its work, or there is none left for it."""
        return (
            last.recall >= _RECALL_ENOUGH
            or last.cost >= max(_COST_SHARE_MAX * self._codes.rows, _COST_ENOUGH_MIN)
            or queries.shape[0] * last.cost > self._work_left
        )

    def _right(self, queries: F32Array, k: int, allowed: Bitmap) -> Generator[None, None, F32Array]:
        """Distances of the k nearest rows that are allowed, (nq, k) float32."""
        exact = FlatIndex(self._kernels, self._vectors, self._codes.metric)
        size = max(1, CALL_ROWS // self._codes.rows)
        parts: list[F32Array] = []
        for at in range(0, queries.shape[0], size):
            some = queries[at : at + size]
            topk = yield from scan_in_steps(self._kernels, exact, some, k, allowed, self._ensure)
            parts.append(topk.distances)
        return np.concatenate(parts)

    def _walked(
        self, index: HnswIndex, queries: F32Array, k: int, beam: Beam, allowed: Bitmap | None
    ) -> Generator[None, None, tuple[F32Array, float]]:
        """Distances of what walks find, (nq, k) float32, and mean distance computations."""
        parts: list[F32Array] = []
        work = 0
        at, size = 0, 1
        while at < queries.shape[0]:
            some = queries[at : at + size]
            answer = index.search(some, k, beam=beam, allowed=allowed, ensure=self._ensure)
            parts.append(answer.topk.distances)
            work += answer.distance_computations
            at += some.shape[0]
            size = max(1, min(2 * size, _CALL_COMPUTED * at // work))
            yield
        self._work_left -= work
        return np.concatenate(parts), work / queries.shape[0]


def _without(links: I32Array, sample: I64Array) -> Generator[None, None, I32Array]:
    """The links of a graph, (n, degree) int32, that neither lead to the rows of the sample nor away from them."""
    taken = np.zeros(links.shape[0], np.bool_)
    taken[sample] = True
    left = np.empty_like(links)
    for at in range(0, links.shape[0], _LINES):
        lines = links[at : at + _LINES].copy()
        gone = (lines >= 0) & taken[lines]
        for line in np.flatnonzero(gone.any(axis=1)).tolist():
            kept = lines[line][~gone[line]]
            lines[line] = -1
            lines[line, : kept.shape[0]] = kept
        left[at : at + _LINES] = lines
        yield
    left[sample] = -1
    return left


def _drawn(rows: int, share: float, seed: int) -> BoolArray:
    """(rows,) bool: a share of the rows, drawn by hash."""
    return row_hashes(rows, seed + 1) < np.uint64(int(share * 2**64))


def _point(breadth: int, found: F32Array, right: F32Array, k: int, cost: float) -> RecallPoint:
    """What walks of one breadth found at k, by distance: of rows that are equally near any will do.

    ``right`` holds as many distances as there are allowed rows, then +inf.
    """
    wanted = np.isfinite(right[:, :k]).sum(axis=1)
    hits = (found[:, :k] <= right[:, k - 1 : k]) & np.isfinite(found[:, :k])
    recalls = np.minimum(hits.sum(axis=1) / wanted, 1.0)
    return RecallPoint(breadth, float(recalls.mean()), float(recalls.std() / math.sqrt(recalls.shape[0])), cost)


def _risen(points: Sequence[RecallPoint]) -> tuple[RecallPoint, ...]:
    """The points with recalls that never fall: neighbours that do take their mean (isotonic regression)."""
    pools: list[list[RecallPoint]] = []
    for point in points:
        pools.append([point])
        while len(pools) > 1 and _mean(pools[-2]) > _mean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    return tuple(replace(point, recall=_mean(pool)) for pool in pools for point in pool)


def _mean(pool: Sequence[RecallPoint]) -> float:
    return sum(point.recall for point in pool) / len(pool)
