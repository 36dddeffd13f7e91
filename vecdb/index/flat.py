"""Indexes that look at every allowed row: by float32 vector (exact), or by byte code with a float32 rerank.

Both hold references to the caller's arrays and nothing else.
"""

from __future__ import annotations

import numpy as np

from vecdb.bitmap import Bitmap
from vecdb.index.codes import ScalarCodes
from vecdb.index.protocol import EnsureRows, IndexAnswer
from vecdb.kernels.arrays import Beam, Candidates, unlinked
from vecdb.kernels.protocol import BoundGraph, Kernels
from vecdb.types import F32Array, I32Array, Metric, TopK, U64Array

_RERANK_FACTOR = 4
_RERANK_MIN = 32


class FlatIndex:
    """Exact search over float32 vectors ((n, dim), C order, may be a read-only map)."""

    __slots__ = ("_kernels", "_metric", "_vectors")

    def __init__(self, kernels: Kernels, vectors: F32Array, metric: Metric) -> None:
        self._kernels = kernels
        self._vectors = vectors
        self._metric = metric

    @property
    def rows(self) -> int:
        """Number of slots."""
        return int(self._vectors.shape[0])

    @property
    def metric(self) -> Metric:
        """The metric that distances are reported in."""
        return self._metric

    def search(
        self,
        queries: F32Array,
        k: int,
        *,
        beam: Beam | None = None,
        allowed: Bitmap | None = None,
        ensure: EnsureRows | None = None,
    ) -> IndexAnswer:
        """As ``VectorIndex.search``, exact: always ``min(k, allowed rows)`` results; ``beam`` is ignored."""
        del beam
        count = self.rows if allowed is None else allowed.count()
        if ensure is not None and count:
            ensure(np.arange(self.rows) if allowed is None else allowed.rows())
        words = None if allowed is None else allowed.words
        topk = self._kernels.scan_topk(self._vectors, queries, self._metric, k, words)
        return IndexAnswer(topk, min(k, count), count * queries.shape[0], 0, 0)

    def check(self) -> list[str]:
        """Nothing can be wrong: there is no structure."""
        return []


class CodedFlatIndex:
    """Search over the codes of all rows, then over the float32 vectors of the nearest.

    Results always number ``min(k, allowed rows)``. The vectors of ``4 k + 32`` rows at most are compared; where
    more may be as near as the k-th, for all that codes tell, those of all allowed rows are.

    Parameters
    ----------
    bound
        What looks at the codes: by the nibbles of a graph over them, where there is one.
    """

    __slots__ = ("_bound", "_codes", "_kernels", "_vectors")

    def __init__(
        self, kernels: Kernels, codes: ScalarCodes, vectors: F32Array, bound: BoundGraph | None = None
    ) -> None:
        assert vectors.shape == (codes.rows, codes.dim), (vectors.shape, codes.rows, codes.dim)
        self._kernels = kernels
        self._codes = codes
        self._vectors = vectors
        if bound is None:
            graph = unlinked(codes.codes.table.shape[1])
            bound = kernels.bind_graph(codes.codes, graph, codes.originals(vectors))
        self._bound = bound

    @property
    def rows(self) -> int:
        """Number of slots."""
        return self._codes.rows

    @property
    def metric(self) -> Metric:
        """The metric that distances are reported in."""
        return self._codes.metric

    def search(
        self,
        queries: F32Array,
        k: int,
        *,
        beam: Beam | None = None,
        allowed: Bitmap | None = None,
        ensure: EnsureRows | None = None,
    ) -> IndexAnswer:
        """As ``VectorIndex.search``; ``beam`` is ignored."""
        del beam
        available = self.rows if allowed is None else allowed.count()
        words = None if allowed is None else allowed.words
        count = max(1, min(available, k * _RERANK_FACTOR + _RERANK_MIN))
        if ensure is None:
            answer = self._bound.answer_scan(queries, k, count, words)
            return IndexAnswer(answer.topk, min(k, available), answer.distance_computations, 0, answer.fewest)
        found = self._bound.scan(queries, k, count, words)
        ensure_slots(found.slots, ensure)
        if count < available and bool((found.slots[:, -1] >= 0).any()):
            ensure(np.arange(self.rows) if allowed is None else allowed.rows())
        topk = rank_scanned(self._kernels, self._vectors, self.metric, queries, found, k, words)
        return IndexAnswer(topk, min(k, available), found.distance_computations, 0, found.fewest)

    def check(self) -> list[str]:
        """Nothing can be wrong: there is no structure."""
        return []


def rank_scanned(
    kernels: Kernels,
    vectors: F32Array,
    metric: Metric,
    queries: F32Array,
    found: Candidates,
    k: int,
    allowed: U64Array | None,
) -> TopK:
    """What ``BoundGraph.scan`` found, ranked as ``BoundGraph.answer_scan`` does."""
    topk = kernels.rerank(vectors, queries, found.slots, metric, k)
    crowded = np.flatnonzero(found.slots[:, -1] >= 0)
    # Every allowed row was looked at once for each query.
    if crowded.shape[0] and found.distance_computations > found.slots.size:
        exact = kernels.scan_topk(vectors, queries[crowded], metric, k, allowed)
        topk.slots[crowded], topk.distances[crowded] = exact.slots, exact.distances
    return topk


def ensure_slots(slots: I32Array, ensure: EnsureRows | None) -> None:
    """Hand the slots of a candidate table (any shape, -1 for none) to ``ensure``, ascending and unique."""
    if ensure is None:
        return
    wanted = np.unique(slots).astype(np.int64)
    wanted = wanted[wanted >= 0]
    if wanted.shape[0]:
        ensure(wanted)
