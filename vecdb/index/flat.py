"""Indexes that look at every allowed row: by float32 vector (exact), or by byte code with a float32 rerank.

Both hold references to the caller's arrays and nothing else.
"""

from __future__ import annotations

import numpy as np

from vecdb.bitmap import Bitmap
from vecdb.index.codes import ScalarCodes
from vecdb.index.protocol import EnsureRows, IndexAnswer
from vecdb.kernels.arrays import BLUR_ONE, CODE_BLUR, NEARNESS_BLURS, RATIO_BITS, Beam, QueryCodes
from vecdb.kernels.protocol import Kernels
from vecdb.types import F32Array, I32Array, I64Array, Metric

_RERANK_FACTOR = 3
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
    """Search over all byte codes, then over the float32 vectors of the best.

    Results always number ``min(k, allowed rows)``. The vectors of ``max(3 k, k + 32)`` rows are compared; where the
    last of them by code may be as near as the k-th, for all that codes tell, those of all allowed rows are.
    """

    __slots__ = ("_codes", "_kernels", "_vectors")

    def __init__(self, kernels: Kernels, codes: ScalarCodes, vectors: F32Array) -> None:
        assert vectors.shape == (codes.rows, codes.dim), (vectors.shape, codes.rows, codes.dim)
        self._kernels = kernels
        self._codes = codes
        self._vectors = vectors

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
        """As ``VectorIndex.search``; the ``ef`` of the beam is the least number of rows reranked."""
        available = self.rows if allowed is None else allowed.count()
        width = min(available, max(k * _RERANK_FACTOR, k + _RERANK_MIN, 0 if beam is None else beam.ef))
        if width == 0:
            width = 1  # a kernel's result has at least one column
        asked = self._codes.quantise(self._kernels, queries)
        words = None if allowed is None else allowed.words
        found = self._kernels.scan_codes(self._codes.codes, asked, width, words)
        ensure_slots(found.slots, ensure)
        topk = self._kernels.rerank(self._vectors, queries, found.slots, self._codes.metric, k)
        unsure = self._unsure(asked, found.slots, k) if k < width < available else np.zeros(0, np.int64)
        if unsure.shape[0]:
            if ensure is not None:
                ensure(np.arange(self.rows) if allowed is None else allowed.rows())
            exact = self._kernels.scan_topk(self._vectors, queries[unsure], self._codes.metric, k, words)
            topk.slots[unsure], topk.distances[unsure] = exact.slots, exact.distances
        return IndexAnswer(topk, min(k, found.fewest), found.distance_computations, 0, found.fewest)

    def _unsure(self, asked: QueryCodes, slots: I32Array, k: int) -> I64Array:
        """The queries of which the last slot may be as near as the k-th."""
        table, norms = self._codes.codes.table, self._codes.codes.norms
        values = asked.values.astype(np.int32)
        kth, last = (
            ((norms[rows].astype(np.int64) * asked.ratios) >> RATIO_BITS)
            - ((table[rows].astype(np.int32) - 128) * values).sum(axis=1, dtype=np.int64)
            for rows in (slots[:, k - 1], slots[:, -1])
        )
        blur = np.sqrt((values * values).sum(axis=1, dtype=np.int64)) * (NEARNESS_BLURS * CODE_BLUR / BLUR_ONE)
        return np.flatnonzero(last - kth <= blur)

    def check(self) -> list[str]:
        """Nothing can be wrong: there is no structure."""
        return []


def ensure_slots(slots: I32Array, ensure: EnsureRows | None) -> None:
    """Hand the slots of a candidate table (any shape, -1 for none) to ``ensure``, ascending and unique."""
    if ensure is None:
        return
    wanted = np.unique(slots).astype(np.int64)
    wanted = wanted[wanted >= 0]
    if wanted.shape[0]:
        ensure(wanted)
