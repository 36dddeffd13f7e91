"""The CPU's side of ``Kernels``: checks shapes, hands read-only views to compiled kernels, wraps what they return.

Every array reaches a kernel as a read-only view unless the kernel writes it, because Numba compiles a kernel once more
for every mixture of read-only and writable arguments.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vecdb.kernels.arrays import (
    CODE_BLUR,
    Answers,
    Beam,
    BuildSpace,
    Candidates,
    Codes,
    Graph,
    Layer,
    Merged,
    Nibbles,
    Originals,
    Prune,
    QueryCodes,
    UpperLayers,
    sketch_bytes,
    stride_bytes,
)
from vecdb.kernels.cpu import coded_scan as coded_scan_kernels
from vecdb.kernels.cpu import filtered as filtered_kernels
from vecdb.kernels.cpu import links as link_kernels
from vecdb.kernels.cpu import lockstep as lockstep_kernels
from vecdb.kernels.cpu import quantise as code_kernels
from vecdb.kernels.cpu import scan as scan_kernels
from vecdb.kernels.cpu.frame import framed
from vecdb.kernels.cpu.target import TARGET
from vecdb.kernels.memory import aligned_empty
from vecdb.kernels.protocol import Progress, WarmedKernel
from vecdb.types import AnyArray, F32Array, I32Array, I64Array, Metric, TopK, U8Array, U64Array

_METRICS = {Metric.L2: scan_kernels.L2, Metric.DOT: scan_kernels.DOT, Metric.COSINE: scan_kernels.COSINE}
_SEARCHING = {
    "scan_topk": scan_kernels.scan_topk,
    "answer_scan": coded_scan_kernels.answer_scan,
    "answer_graph": lockstep_kernels.answer_graph,
    "answer_graph_allowed": filtered_kernels.answer_graph_allowed,
    "rerank": scan_kernels.rerank,
    "merge": scan_kernels.merge,
}
_I32, _F32 = np.dtype(np.int32), np.dtype(np.float32)
_UNRANKED = np.empty((0, 0), _F32)
"""In place of distances, where rows are found and not ranked."""
_CALL_QUERIES = 4096
_NO_WORDS = np.zeros(0, np.uint64)
_NO_WORDS.flags.writeable = False


def _view(array: Any, dtype: Any) -> AnyArray:
    """A read-only view in C order; a copy only where the array is of another type or order."""
    flags = array.flags
    if not flags.c_contiguous or array.dtype != dtype:
        view = np.ascontiguousarray(array, dtype).view()
    elif flags.writeable:
        view = array.view()
    else:
        return array  # type: ignore[no-any-return]
    view.flags.writeable = False
    return view


class CpuKernels:
    """Kernels compiled for this CPU by Numba, on first use or by ``warm_up``. Safe to share between threads."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """The instruction set, as in "cpu/avx512vnni"."""
        return f"cpu/{TARGET.name}"

    def is_ready(self, *verbs: str) -> bool:
        """As ``Kernels.is_ready``; for the verbs that a search uses."""
        return all(_SEARCHING[verb].overloads for verb in verbs)

    def scan_topk(
        self, vectors: F32Array, queries: F32Array, metric: Metric, k: int, allowed: U64Array | None = None
    ) -> TopK:
        """As ``Kernels.scan_topk``."""
        vectors, queries = _view(vectors, np.float32), _view(queries, np.float32)
        _same_dimension(vectors, queries)
        result = _unfilled(queries.shape[0], k)
        words = _words(allowed, vectors.shape[0])
        scan_kernels.scan_topk(
            vectors, queries, _METRICS[metric], words, allowed is not None, result.slots, result.distances
        )
        return result

    def rerank(self, vectors: F32Array, queries: F32Array, candidates: I32Array, metric: Metric, k: int) -> TopK:
        """As ``Kernels.rerank``."""
        vectors, queries = _view(vectors, np.float32), _view(queries, np.float32)
        _same_dimension(vectors, queries)
        assert candidates.shape[0] == queries.shape[0], (candidates.shape, queries.shape)
        result = _unfilled(queries.shape[0], k)
        scan_kernels.rerank(
            vectors, queries, _view(candidates, np.int32), _METRICS[metric], result.slots, result.distances
        )
        return result

    def encode(self, vectors: F32Array, centre: F32Array, step: float) -> Codes:
        """As ``Kernels.encode``."""
        vectors = _view(vectors, np.float32)
        table = aligned_empty((vectors.shape[0], stride_bytes(vectors.shape[1])), np.uint8)
        norms = np.empty(vectors.shape[0], np.int32)
        code_kernels.encode(vectors, _view(centre, np.float32), np.float32(step), table, norms)
        return Codes(table, norms)

    def quantise(
        self, queries: F32Array, centre: F32Array, step: float, metric: Metric, reach: float = 0.0
    ) -> QueryCodes:
        """As ``Kernels.quantise``."""
        queries = _view(queries, np.float32)
        nq = queries.shape[0]
        values = np.empty((nq, stride_bytes(queries.shape[1])), np.int8)
        ratios, offsets = np.empty(nq, np.int64), np.empty(nq, np.int64)
        code_kernels.quantise(
            queries,
            _view(centre, np.float32),
            np.float32(step),
            metric is Metric.L2,
            reach if metric is Metric.DOT else -1.0,
            values,
            ratios,
            offsets,
        )
        values.flags.writeable = ratios.flags.writeable = offsets.flags.writeable = False
        return QueryCodes(values, ratios, offsets)

    def sketch(self, codes: Codes, dim: int) -> U8Array:
        """As ``Kernels.sketch``."""
        table = _view(codes.table, np.uint8)
        sketches = np.empty((table.shape[0], sketch_bytes(table.shape[1])), np.uint8)
        code_kernels.sketch(table, dim, sketches, sketches.view(np.int32))
        return sketches

    def bind_graph(self, codes: Codes, graph: Graph, originals: Originals) -> CpuGraph:
        """As ``Kernels.bind_graph``."""
        return CpuGraph(codes, graph, originals)

    def merge(self, rankings: Sequence[TopK]) -> Merged:
        """As ``Kernels.merge``."""
        nq, k = rankings[0].slots.shape
        slots = np.concatenate([each.slots for each in rankings], axis=1)
        distances = np.concatenate([each.distances for each in rankings], axis=1)
        merged = Merged(np.empty((nq, k), np.int32), np.empty((nq, k), np.int32), np.empty((nq, k), np.float32))
        scan_kernels.merge(slots, distances, merged.sources, merged.slots, merged.distances)
        return merged

    def propose_links(
        self, layer: Layer, upper: UpperLayers, bottom: bool, nodes: I32Array, ef: int, prune: Prune
    ) -> I32Array:
        """As ``Kernels.propose_links``."""
        proposals = np.empty((nodes.shape[0], prune.degree_max), np.int32)
        link_kernels.propose_links(
            *_space(layer.space),
            _view(layer.space.sketches, np.uint8),
            _view(layer.links, np.int32),
            *_upper(upper),
            bottom,
            _view(nodes, np.int32),
            ef,
            prune.alpha,
            proposals,
        )
        return proposals

    def accept_links(
        self, layer: Layer, targets: I32Array, starts: I64Array, sources: I32Array, limit: int, prune: Prune
    ) -> None:
        """As ``Kernels.accept_links``."""
        assert prune.degree_max <= limit <= layer.links.shape[1], (prune.degree_max, limit, layer.links.shape)
        link_kernels.accept_links(
            *_space(layer.space),
            layer.links,
            layer.degrees,
            _view(targets, np.int32),
            _view(starts, np.int64),
            _view(sources, np.int32),
            limit,
            prune.degree_max,
            prune.alpha,
        )

    def connect(self, layer: Layer, degree_max: int, walk: I32Array, state: I64Array, budget: int) -> bool:
        """As ``Kernels.connect``."""
        return bool(link_kernels.connect(layer.links, layer.degrees, degree_max, walk, state, budget))

    def warm_up(self, progress: Progress | None = None) -> tuple[WarmedKernel, ...]:
        """As ``Kernels.warm_up``: runs every kernel once on four rows."""
        warmed = []
        for name, dispatcher, run in self._rehearsal():
            hits = sum(dispatcher.stats.cache_hits.values())
            start = time.perf_counter()
            run()
            seconds = time.perf_counter() - start
            cached = sum(dispatcher.stats.cache_hits.values()) > hits or seconds < 0.05
            warmed.append(WarmedKernel(name, seconds, cached))
            if progress is not None:
                progress(name, seconds)
        return tuple(warmed)

    def _rehearsal(self) -> tuple[tuple[str, Any, Callable[[], Any]], ...]:
        """Name, dispatcher and a smallest call of every kernel."""
        vectors = np.eye(4, dtype=np.float32)
        centre = np.zeros(4, np.float32)
        table = np.full((4, stride_bytes(4)), 128, np.uint8)
        norms = np.zeros(4, np.int32)
        codes = Codes(table, norms)
        links = np.full((4, 2), -1, np.int32)
        ids = np.arange(4, dtype=np.int32)
        upper = UpperLayers(ids[:1], table[:1], norms[:1], links[:1], np.array([0, 1]))
        layer = Layer(BuildSpace(table, norms, table[:0]), links, np.zeros(4, np.int32))
        prune = Prune(2, 64)
        walk = np.zeros((3, 4), np.int32)
        sketches = np.zeros((4, sketch_bytes(table.shape[1])), np.uint8)
        graph = Graph(links, sketches, Nibbles(table[:0], 16, CODE_BLUR), upper)
        bound = CpuGraph(codes, graph, Originals(vectors, centre, 1.0, Metric.L2, 1.0))
        return (
            ("scan_topk", scan_kernels.scan_topk, lambda: self.scan_topk(vectors, vectors, Metric.L2, 1)),
            ("rerank", scan_kernels.rerank, lambda: self.rerank(vectors, vectors, ids[:, None], Metric.L2, 1)),
            ("encode", code_kernels.encode, lambda: self.encode(vectors, centre, 1.0)),
            ("quantise", code_kernels.quantise, lambda: self.quantise(vectors, centre, 1.0, Metric.L2)),
            ("sketch", code_kernels.sketch, lambda: self.sketch(codes, 4)),
            ("answer_scan", coded_scan_kernels.answer_scan, lambda: bound.answer_scan(vectors[:1], 1, 1)),
            ("answer_graph", lockstep_kernels.answer_graph, lambda: bound.answer(vectors[:1], Beam(2), 1, 1)),
            (
                "answer_graph_allowed",
                filtered_kernels.answer_graph_allowed,
                lambda: bound.answer(vectors[:1], Beam(2), 1, 1, np.ones(1, np.uint64)),
            ),
            ("merge", scan_kernels.merge, lambda: self.merge([_unfilled(1, 1)])),
            (
                "propose_links",
                link_kernels.propose_links,
                lambda: self.propose_links(layer, upper, True, ids, 2, prune),
            ),
            (
                "accept_links",
                link_kernels.accept_links,
                lambda: self.accept_links(layer, ids[:1], np.array([0, 1]), ids[1:2], 2, prune),
            ),
            ("connect", link_kernels.connect, lambda: self.connect(layer, 2, walk, np.array([0, 4, 0, 0, 0]), 1)),
        )


class CpuGraph:
    """A graph over codes, as ``BoundGraph``: its arrays as the kernels take them."""

    __slots__ = ("_arrays", "_dim", "_frame", "_originals", "_rows")

    def __init__(self, codes: Codes, graph: Graph, originals: Originals) -> None:
        self._rows = codes.table.shape[0]
        upper = graph.upper
        # The addresses in the frame are good for as long as the arrays are held here.
        self._arrays = (
            _view(codes.table, np.uint8),
            _view(codes.norms, np.int32),
            _view(graph.sketches, np.uint8),
            _view(graph.nibbles.table, np.uint8),
            _view(graph.links, np.int32),
            _view(upper.rows, np.int32),
            _view(upper.table, np.uint8),
            _view(upper.norms, np.int32),
            _view(upper.links, np.int32),
            _view(upper.level_starts, np.int64),
            _view(originals.vectors, np.float32),
            _view(originals.centre, np.float32),
        )
        self._frame = framed(self._arrays)
        self._dim = originals.centre.shape[0]
        self._originals = (
            np.float32(originals.step),
            originals.reach if originals.metric is Metric.DOT else -1.0,
            graph.nibbles.step,
            graph.nibbles.blur,
            _METRICS[originals.metric],
        )

    def search(self, queries: F32Array, beam: Beam, k: int, count: int, allowed: U64Array | None = None) -> Candidates:
        """As ``BoundGraph.search``."""
        nq = queries.shape[0]
        if self._rows == 0:
            return Candidates(np.full((nq, count), -1, np.int32), 0, 0, 0)
        slots = np.empty((nq, count), _I32)
        costs = self._walk(queries, beam, k, count, allowed, slots, _UNRANKED)
        slots.flags.writeable = False
        return Candidates(slots, *costs)

    def answer(self, queries: F32Array, beam: Beam, k: int, count: int, allowed: U64Array | None = None) -> Answers:
        """As ``BoundGraph.answer``."""
        nq = queries.shape[0]
        if self._rows == 0:
            return Answers(TopK(np.full((nq, k), -1, np.int32), np.full((nq, k), np.inf, np.float32)), 0, 0, 0)
        slots, distances = np.empty((nq, k), _I32), np.empty((nq, k), _F32)
        return Answers(TopK(slots, distances), *self._walk(queries, beam, k, count, allowed, slots, distances))

    def scan(self, queries: F32Array, k: int, count: int, allowed: U64Array | None = None) -> Candidates:
        """As ``BoundGraph.scan``."""
        slots = np.empty((queries.shape[0], count), _I32)
        found = self._scan(queries, k, count, allowed, slots, _UNRANKED)
        slots.flags.writeable = False
        return Candidates(slots, *found, 0)

    def answer_scan(self, queries: F32Array, k: int, count: int, allowed: U64Array | None = None) -> Answers:
        """As ``BoundGraph.answer_scan``."""
        nq = queries.shape[0]
        slots, distances = np.empty((nq, k), _I32), np.empty((nq, k), _F32)
        return Answers(TopK(slots, distances), *self._scan(queries, k, count, allowed, slots, distances), 0)

    def _scan(
        self, queries: F32Array, k: int, count: int, allowed: U64Array | None, slots: I32Array, distances: F32Array
    ) -> tuple[int, int]:
        """Least number of rows found for a query, and distances computed."""
        queries = _view(queries, _F32)
        assert queries.shape[1] == self._dim, (queries.shape, self._dim)
        words, filtered = _words(allowed, self._rows), allowed is not None
        found = [
            coded_scan_kernels.answer_scan(
                self._frame, queries[some], *self._originals, k, count, words, filtered, slots[some], distances[some]
            )
            for some in _calls(queries.shape[0])
        ]
        return min((each[0] for each in found), default=count), sum(each[1] for each in found)

    def _walk(
        self,
        queries: F32Array,
        beam: Beam,
        k: int,
        count: int,
        allowed: U64Array | None,
        slots: I32Array,
        distances: F32Array,
    ) -> tuple[int, int, int]:
        """Least number of rows found for a query, distances computed and hops."""
        queries = _view(queries, _F32)
        nq, dim = queries.shape
        assert dim == self._dim, (dim, self._dim)
        if nq > _CALL_QUERIES:
            parts = _calls(nq)
            costs = [self._walk(queries[some], beam, k, count, allowed, slots[some], distances[some]) for some in parts]
            return min(each[0] for each in costs), sum(each[1] for each in costs), sum(each[2] for each in costs)
        common = (self._frame, queries, *self._originals, beam.ef, beam.slack, k, count)
        if allowed is None:
            found = lockstep_kernels.answer_graph(*common, slots, distances)
        else:
            found = filtered_kernels.answer_graph_allowed(*common, _words(allowed, self._rows), slots, distances)
        return found  # type: ignore[no-any-return]


def _calls(nq: int) -> list[slice]:
    """Which queries are handed over together: a call keeps all that it ranks, until it ranks."""
    return [slice(at, at + _CALL_QUERIES) for at in range(0, nq, _CALL_QUERIES)]


def _same_dimension(vectors: AnyArray, queries: AnyArray) -> None:
    assert vectors.ndim == queries.ndim == 2, (vectors.shape, queries.shape)
    assert vectors.shape[1] == queries.shape[1], (vectors.shape, queries.shape)


def _unfilled(nq: int, k: int) -> TopK:
    """A result for a kernel to write into."""
    return TopK(np.empty((nq, k), np.int32), np.empty((nq, k), np.float32))


def _words(allowed: U64Array | None, n: int) -> AnyArray:
    """The bit set as a kernel takes it."""
    if allowed is None:
        return _NO_WORDS
    assert allowed.shape == ((n + 63) // 64,), (allowed.shape, n)
    return _view(allowed, np.uint64)


def _space(space: BuildSpace) -> tuple[AnyArray, AnyArray]:
    return _view(space.table, np.uint8), _view(space.halves, np.int32)


def _upper(upper: UpperLayers) -> tuple[AnyArray, ...]:
    """The upper layers as a build takes them."""
    return (
        _view(upper.rows, np.int32),
        _view(upper.table, np.uint8),
        _view(upper.norms, np.int32),
        _view(upper.links, np.int32),
        _view(upper.level_starts, np.int64),
    )
