"""Kernels that read float32 vectors from their file, a window at a time, where a budget does not let them be mapped.

The answers are those of the kernels over the mapped file, bit for bit: rows are handed on in ascending order, so that
ties break as they do there.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from vecdb.bitmap import Bitmap
from vecdb.index.flat import rank_scanned
from vecdb.kernels.arrays import Answers, Beam, Candidates, Codes, Graph, Originals
from vecdb.kernels.protocol import BoundGraph, Kernels
from vecdb.segment.room import Room
from vecdb.storage.array_file import ArrayFile
from vecdb.types import F32Array, I32Array, I64Array, Metric, TopK, U64Array


def windowed(kernels: Kernels, file: ArrayFile, room: Room) -> Kernels:
    """``kernels``, but for those that read the float32 vectors of ``file``."""
    return cast(Kernels, _WindowedKernels(kernels, file, room))


class _WindowedKernels:
    """Passes on what does not read float32 vectors."""

    def __init__(self, kernels: Kernels, file: ArrayFile, room: Room) -> None:
        self._kernels = kernels
        self._file = file
        self._room = room

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._kernels, verb)

    def scan_topk(
        self, vectors: F32Array, queries: F32Array, metric: Metric, k: int, allowed: U64Array | None = None
    ) -> TopK:
        """As ``Kernels.scan_topk``; ``vectors`` are those of the file."""
        if self._room.fits:
            return self._kernels.scan_topk(vectors, queries, metric, k, allowed)
        n, dim = vectors.shape
        rows = None if allowed is None else Bitmap(allowed, n).rows()
        count = n if rows is None else rows.shape[0]
        rows_max = max(1, self._room.window_bytes // (4 * dim))
        best: TopK | None = None
        for first in range(0, max(1, count), rows_max):
            end = min(count, first + rows_max)
            window = np.arange(first, end) if rows is None else rows[first:end]
            found = self._kernels.scan_topk(self._read(window), queries, metric, k)
            topk = TopK(_rows_at(window, found.slots), found.distances)
            if best is not None:
                # The earlier rows come first where distances are equal.
                merged = self._kernels.merge([best, topk])
                topk = TopK(merged.slots, merged.distances)
            best = topk
        assert best is not None
        return best

    def rerank(self, vectors: F32Array, queries: F32Array, candidates: I32Array, metric: Metric, k: int) -> TopK:
        """As ``Kernels.rerank``; ``vectors`` are those of the file."""
        if self._room.fits or not candidates.size:
            return self._kernels.rerank(vectors, queries, candidates, metric, k)
        answers = []
        queries_max = max(1, self._room.window_bytes // (4 * vectors.shape[1] * candidates.shape[1]))
        for first in range(0, queries.shape[0], queries_max):
            of = slice(first, first + queries_max)
            slots = candidates[of]
            rows = np.unique(slots[slots >= 0]).astype(np.int64)
            places = np.where(slots < 0, -1, np.searchsorted(rows, slots)).astype(np.int32)
            answers.append((rows, self._kernels.rerank(self._read(rows), queries[of], places, metric, k)))
        return TopK(
            np.concatenate([_rows_at(rows, found.slots) for rows, found in answers]),
            np.concatenate([found.distances for _, found in answers]),
        )

    def bind_graph(self, codes: Codes, graph: Graph, originals: Originals) -> BoundGraph:
        """As ``Kernels.bind_graph``."""
        bound = self._kernels.bind_graph(codes, graph, originals)
        return _WindowedGraph(self, bound, originals, self._room)

    def _read(self, rows: I64Array) -> F32Array:
        read: F32Array = self._file.read_rows("vectors", rows)
        read.flags.writeable = False
        return read


class _WindowedGraph:
    """Walks as the graph does; ranks by vectors that are read."""

    def __init__(self, kernels: _WindowedKernels, bound: BoundGraph, originals: Originals, room: Room) -> None:
        self._kernels = kernels
        self._bound = bound
        self._originals = originals
        self._room = room

    def search(self, queries: F32Array, beam: Beam, k: int, count: int, allowed: U64Array | None = None) -> Candidates:
        """As ``BoundGraph.search``."""
        return self._bound.search(queries, beam, k, count, allowed)

    def answer(self, queries: F32Array, beam: Beam, k: int, count: int, allowed: U64Array | None = None) -> Answers:
        """As ``BoundGraph.answer``."""
        if self._room.fits:
            return self._bound.answer(queries, beam, k, count, allowed)
        walked = self._bound.search(queries, beam, k, count, allowed)
        topk = self._kernels.rerank(self._originals.vectors, queries, walked.slots, self._originals.metric, k)
        return Answers(topk, walked.fewest, walked.distance_computations, walked.hops)

    def scan(self, queries: F32Array, k: int, count: int, allowed: U64Array | None = None) -> Candidates:
        """As ``BoundGraph.scan``."""
        return self._bound.scan(queries, k, count, allowed)

    def answer_scan(self, queries: F32Array, k: int, count: int, allowed: U64Array | None = None) -> Answers:
        """As ``BoundGraph.answer_scan``."""
        if self._room.fits:
            return self._bound.answer_scan(queries, k, count, allowed)
        found = self._bound.scan(queries, k, count, allowed)
        of = self._originals
        kernels = cast(Kernels, self._kernels)
        topk = rank_scanned(kernels, of.vectors, of.metric, queries, found, k, allowed)
        return Answers(topk, found.fewest, found.distance_computations, 0)


def _rows_at(rows: I64Array, places: I32Array) -> I32Array:
    """The row at each place of ``rows``; -1 stays -1."""
    if rows.shape[0] == 0:
        return places
    return np.where(places < 0, np.int32(-1), rows.astype(np.int32)[np.maximum(places, 0)])
