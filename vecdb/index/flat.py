"""Indexes that look at every allowed row: by float32 vector (exact), or by byte code with a float32 rerank.

Both hold references to the caller's arrays and nothing else.
"""

from __future__ import annotations

import numpy as np

from vecdb.bitmap import Bitmap
from vecdb.index.codes import ScalarCodes
from vecdb.index.protocol import EnsureRows, IndexAnswer
from vecdb.kernels.arrays import Beam
from vecdb.kernels.protocol import Kernels
from vecdb.types import F32Array, I32Array, Metric, U8Array

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

    Results always number ``min(k, allowed rows)``; a true neighbour is missed only if quantisation puts it behind
    ``max(3 k, k + 32)`` others, or its sketch by ``SCAN_MARGIN``.

    Parameters
    ----------
    sketches
        Of the codes: of rows that are far, nothing else is read then.
    """

    __slots__ = ("_codes", "_kernels", "_sketches", "_vectors")

    def __init__(
        self, kernels: Kernels, codes: ScalarCodes, vectors: F32Array, sketches: U8Array | None = None
    ) -> None:
        assert vectors.shape == (codes.rows, codes.dim), (vectors.shape, codes.rows, codes.dim)
        self._kernels = kernels
        self._codes = codes
        self._vectors = vectors
        self._sketches = sketches

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
        found = self._kernels.scan_codes(
            self._codes.codes,
            self._codes.quantise(self._kernels, queries),
            width,
            None if allowed is None else allowed.words,
            self._sketches,
        )
        ensure_slots(found.slots, ensure)
        topk = self._kernels.rerank(self._vectors, queries, found.slots, self._codes.metric, k)
        return IndexAnswer(topk, min(k, found.fewest), found.distance_computations, 0, found.fewest)

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
