"""The oracle: every kernel in plain NumPy, written to be read, not to be fast. Imports no compiler.

Integer results equal those of every other device bit for bit; float32 distances agree to rounding.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from math import isqrt

import numpy as np

from vecdb.kernels.protocol import (
    ALPHA_ONE,
    RATIO_BITS,
    SKETCH_MARGIN,
    UNIT_MIN,
    BuildSpace,
    Candidates,
    Codes,
    Graph,
    Layer,
    Merged,
    Progress,
    Prune,
    QueryCodes,
    UpperLayers,
    WarmedKernel,
    sketch_bytes,
    stride_bytes,
)
from vecdb.types import AnyArray, BoolArray, F32Array, I32Array, I64Array, Metric, TopK, U8Array, U64Array

_BLOCK_FLOATS = 1 << 20


class ReferenceKernels:
    """``Kernels`` in NumPy. Stateless; safe to share between threads."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """Always "reference"."""
        return "reference"

    def is_ready(self, *verbs: str) -> bool:
        """Always: nothing is compiled."""
        del verbs
        return True

    def scan_topk(
        self, vectors: F32Array, queries: F32Array, metric: Metric, k: int, allowed: U64Array | None = None
    ) -> TopK:
        """As ``Kernels.scan_topk``."""
        rows = np.flatnonzero(_bools(allowed, vectors.shape[0])).astype(np.int32)
        candidates = np.broadcast_to(rows, (queries.shape[0], rows.shape[0]))
        return self.rerank(vectors, queries, candidates, metric, k)

    def rerank(self, vectors: F32Array, queries: F32Array, candidates: I32Array, metric: Metric, k: int) -> TopK:
        """As ``Kernels.rerank``."""
        slots = np.full((queries.shape[0], k), -1, np.int32)
        distances = np.full((queries.shape[0], k), np.inf, np.float32)
        for number, query in enumerate(queries):
            rows = candidates[number]
            rows = rows[rows >= 0]
            found = _distances(vectors, rows, query, metric)
            order = np.lexsort((rows, found))[:k]
            slots[number, : order.shape[0]] = rows[order]
            distances[number, : order.shape[0]] = found[order]
        return TopK(slots, distances)

    def encode(self, vectors: F32Array, centre: F32Array, step: float) -> Codes:
        """As ``Kernels.encode``."""
        n, dim = vectors.shape
        table = np.full((n, stride_bytes(dim)), 128, np.uint8)
        norms = np.zeros(n, np.int32)
        block = max(1, _BLOCK_FLOATS // max(1, dim))
        for at in range(0, n, block):
            levels = _levels(vectors[at : at + block] - centre, np.float32(step))
            table[at : at + block, :dim] = levels + 128
            norms[at : at + block] = (levels * levels).sum(axis=1)
        return Codes(table, norms)

    def quantise(self, queries: F32Array, centre: F32Array, step: float, metric: Metric) -> QueryCodes:
        """As ``Kernels.quantise``."""
        nq, dim = queries.shape
        values = np.zeros((nq, stride_bytes(dim)), np.int8)
        ratios = np.zeros(nq, np.int64)
        for number in range(nq):
            moved = queries[number] - centre if metric is Metric.L2 else queries[number]
            largest = min(np.abs(moved).max(initial=np.float32(0)), np.finfo(np.float32).max)
            unit = np.float32(largest / np.float32(127))
            if metric is Metric.L2:
                unit = max(unit, np.float32(step))
                ratios[number] = np.rint(float(np.float32(step)) / (2.0 * float(unit)) * (1 << RATIO_BITS))
            elif unit <= np.float32(UNIT_MIN):
                unit = np.float32(1)
            values[number, :dim] = _levels(moved, unit)
        return QueryCodes(values, ratios)

    def sketch(self, codes: Codes, dim: int) -> U8Array:
        """As ``Kernels.sketch``."""
        table = codes.table
        n, stride = table.shape
        sketches = np.zeros((n, sketch_bytes(stride)), np.uint8)
        sketches[:, : stride // 8] = np.packbits(table >= 128, axis=1, bitorder="little")
        levels = table.astype(np.int64) - 128
        norms = (levels * levels).sum(axis=1)
        sizes = np.maximum(np.abs(levels).sum(axis=1), 1)
        factors = (norms << 8) // sizes
        squares = np.maximum((factors * factors - (norms << 16) // dim) >> 8, 0)
        fields = sketches.view(np.int32)
        fields[:, -2] = factors
        fields[:, -1] = [isqrt(square) for square in squares.tolist()]
        return sketches

    def scan_codes(self, codes: Codes, queries: QueryCodes, count: int, allowed: U64Array | None = None) -> Candidates:
        """As ``Kernels.scan_codes``."""
        rows = np.flatnonzero(_bools(allowed, codes.table.shape[0]))
        nq = queries.values.shape[0]
        slots = np.full((nq, count), -1, np.int32)
        for number in range(nq):
            scorer = _Scorer(codes.table, codes.norms, queries.values[number], int(queries.ratios[number]))
            nearest = rows[np.lexsort((rows, scorer.distances(rows)))][:count]
            slots[number, : nearest.shape[0]] = nearest
        return Candidates(slots, min(count, rows.shape[0]), int(rows.shape[0]) * nq, 0)

    def bind_graph(self, codes: Codes, graph: Graph) -> ReferenceGraph:
        """As ``Kernels.bind_graph``."""
        return ReferenceGraph(codes, graph)

    def merge(self, rankings: Sequence[TopK]) -> Merged:
        """As ``Kernels.merge``."""
        nq, k = rankings[0].slots.shape
        merged = Merged(np.full((nq, k), -1, np.int32), np.full((nq, k), -1, np.int32), np.full((nq, k), np.inf, "f4"))
        for number in range(nq):
            hits = sorted(
                (distance, source, slot)
                for source, each in enumerate(rankings)
                for slot, distance in zip(each.slots[number].tolist(), each.distances[number].tolist(), strict=True)
                if slot >= 0
            )
            for place, (distance, source, slot) in enumerate(hits[:k]):
                merged.sources[number, place] = source
                merged.slots[number, place] = slot
                merged.distances[number, place] = distance
        return merged

    def propose_links(
        self, layer: Layer, upper: UpperLayers, bottom: bool, nodes: I32Array, ef: int, prune: Prune
    ) -> I32Array:
        """As ``Kernels.propose_links``."""
        proposals = np.full((nodes.shape[0], prune.degree_max), -1, np.int32)
        above = BuildSpace(upper.table, upper.norms, layer.space.sketches[:0])
        for number, node in enumerate(nodes.tolist()):
            entry = node
            if layer.links[node, 0] < 0:
                place, _ = _descend(upper, _row_scorer(above, layer.space, node))
                entry = int(upper.rows[place]) if bottom else place
            scorer = _row_scorer(layer.space, layer.space, node)
            pool, _, _ = _beam(scorer, layer.links, {entry}, ef)
            half = int(layer.space.halves[node])
            known = _linked(layer.links[node])
            keys = {(distance + half, row) for distance, row in pool if row != node}
            keys |= set(zip((scorer.distances(known) + half).tolist(), known.tolist(), strict=True))
            chosen = _prune(layer.space, sorted(keys), prune)
            proposals[number, : len(chosen)] = chosen
        return proposals

    def accept_links(
        self, layer: Layer, targets: I32Array, starts: I64Array, sources: I32Array, limit: int, prune: Prune
    ) -> None:
        """As ``Kernels.accept_links``."""
        for number, node in enumerate(targets.tolist()):
            links = layer.links[node, : layer.degrees[node]].tolist()
            linked = set(links) | {node}
            links += [row for row in sources[starts[number] : starts[number + 1]].tolist() if row not in linked]
            if len(links) > limit:
                distances = _row_scorer(layer.space, layer.space, node).distances(np.array(links))
                distances += int(layer.space.halves[node])
                links = _prune(layer.space, sorted(zip(distances.tolist(), links, strict=True)), prune)
            layer.links[node] = -1
            layer.links[node, : len(links)] = links
            layer.degrees[node] = len(links)

    def connect(self, layer: Layer, degree_max: int, walk: I32Array, state: I64Array, budget: int) -> bool:
        """As ``Kernels.connect``."""
        order, parents, children = walk
        n = walk.shape[1]
        expanded, reached, lonely, adopter, added = state.tolist()
        for _ in range(budget):
            if reached == n:
                break
            if expanded < reached:
                node = int(order[expanded])
                expanded += 1
                for neighbour in layer.links[node, : layer.degrees[node]].tolist():
                    if parents[neighbour] < 0:
                        parents[neighbour] = node
                        children[node] += 1
                        order[reached] = neighbour
                        reached += 1
                continue
            if parents[lonely] >= 0:
                lonely += 1
                continue
            own = layer.links[lonely, : layer.degrees[lonely]].tolist()
            keeper = next((row for row in own if parents[row] >= 0 and children[row] < degree_max), -1)
            if keeper < 0:
                while children[order[adopter]] >= degree_max:
                    adopter += 1
                keeper = int(order[adopter])
            place = int(layer.degrees[keeper])
            if place < degree_max:
                layer.degrees[keeper] += 1
            else:
                place -= 1
                while parents[layer.links[keeper, place]] == keeper:
                    place -= 1
            layer.links[keeper, place] = lonely
            parents[lonely] = keeper
            children[keeper] += 1
            order[reached] = lonely
            reached += 1
            added += 1
        state[:] = (expanded, reached, lonely, adopter, added)
        return bool(reached == n)

    def warm_up(self, progress: Progress | None = None) -> tuple[WarmedKernel, ...]:
        """Nothing to do."""
        del progress
        return ()


class ReferenceGraph:
    """A graph over codes, as ``BoundGraph``."""

    def __init__(self, codes: Codes, graph: Graph) -> None:
        self._codes = codes
        self._graph = graph

    def search(self, queries: QueryCodes, ef: int, count: int, allowed: U64Array | None = None) -> Candidates:
        """As ``BoundGraph.search``."""
        codes, graph = self._codes, self._graph
        n = codes.table.shape[0]
        nq = queries.values.shape[0]
        slots = np.full((nq, count), -1, np.int32)
        members = _bools(allowed, n)
        scored = hops = 0
        fewest = count if n else 0
        for number in range(nq if n else 0):
            query, ratio = queries.values[number], int(queries.ratios[number])
            scorer = _Scorer(codes.table, codes.norms, query, ratio, sketches=graph.sketches)
            place, more = _descend(graph.upper, _Scorer(graph.upper.table, graph.upper.norms, query, ratio))
            pool, further, steps = _beam(
                scorer, graph.links, {int(graph.upper.rows[place]), int(graph.upper.rows[0])}, ef
            )
            found = [row for _, row in pool if members[row]][:count]
            slots[number, : len(found)] = found
            fewest = min(fewest, len(found))
            scored += more + further
            hops += steps
        return Candidates(slots, fewest, scored, hops)


class _Scorer:
    """Integer distances of one query to the rows of one table."""

    def __init__(
        self,
        table: U8Array,
        norms: I32Array,
        query: AnyArray,
        ratio: int,
        *,
        sketches: U8Array | None = None,
    ) -> None:
        self.table = table
        self.norms = norms
        self.query = query.astype(np.int64)
        self.ratio = ratio
        self.sketches = sketches if sketches is not None and sketches.shape[0] else None
        self.length = isqrt(int((self.query * self.query).sum()))

    def _terms(self, rows: AnyArray) -> I64Array:
        """What does not come from the dot product."""
        terms = np.zeros(rows.shape[0], np.int64)
        if self.ratio:
            terms += (self.norms[rows].astype(np.int64) * self.ratio) >> RATIO_BITS
        return terms

    def distances(self, rows: AnyArray) -> I64Array:
        """Distances of ``rows``, by code."""
        dots: I64Array = (self.table[rows].astype(np.int64) - 128) @ self.query
        return self._terms(rows) - dots

    def promising(self, rows: AnyArray, worst: int) -> AnyArray:
        """Those of ``rows`` whose sketch may be nearer than ``worst``."""
        assert self.sketches is not None
        bits = np.unpackbits(self.sketches[rows], axis=1, bitorder="little")[:, : self.query.shape[0]]
        fields = self.sketches[rows].view(np.int32).astype(np.int64)
        sums = bits.astype(np.int64) @ self.query
        near = ((2 * sums - self.query.sum()) * fields[:, -2]) >> 8
        near += (fields[:, -1] * self.length * SKETCH_MARGIN) >> 8
        kept: AnyArray = rows[self._terms(rows) - near <= worst]
        return kept


def _row_scorer(space: BuildSpace, own: BuildSpace, node: int) -> _Scorer:
    """Distances from a row of ``own`` to the rows of ``space``, less the row's own half norm."""
    query = own.table[node].astype(np.int64) - 128
    return _Scorer(space.table, space.halves, query, 1 << RATIO_BITS, sketches=space.sketches)


def _linked(links: I32Array) -> I32Array:
    """The links of one node, without the padding after the last."""
    ended = links < 0
    return links[: int(ended.argmax())] if ended.any() else links


def _descend(upper: UpperLayers, scorer: _Scorer) -> tuple[int, int]:
    """Greedy walk down through the upper layers; the place arrived at, and distances computed."""
    best = (int(scorer.distances(np.zeros(1, np.int64))[0]), 0)
    scored = 1
    for level in range(upper.level_starts.shape[0] - 1, 0, -1):
        while True:
            links = _linked(upper.links[upper.level_starts[level - 1] + best[1]])
            scored += links.shape[0]
            nearest = min(zip(scorer.distances(links).tolist(), links.tolist(), strict=True), default=best)
            if nearest >= best:
                break
            best = nearest
    return best[1], scored


def _beam(scorer: _Scorer, links: I32Array, entries: set[int], ef: int) -> tuple[list[tuple[int, int]], int, int]:
    """Best-first search; the best ``ef`` (distance, node) found, ascending, distances computed, nodes expanded."""
    first = np.array(sorted(entries))
    pool = sorted(zip(scorer.distances(first).tolist(), first.tolist(), strict=True))[:ef]
    met = set(entries)
    expanded: set[int] = set()
    hops = 0
    while True:
        following = next((node for _, node in pool if node not in expanded), None)
        if following is None:
            return pool, len(met), hops
        expanded.add(following)
        hops += 1
        fresh = np.array([node for node in _linked(links[following]).tolist() if node not in met], np.int64)
        met.update(fresh.tolist())
        if len(pool) == ef and scorer.sketches is not None:
            fresh = scorer.promising(fresh, pool[-1][0])
        for key in zip(scorer.distances(fresh).tolist(), fresh.tolist(), strict=True):
            bisect.insort(pool, key)
        del pool[ef:]


def _prune(space: BuildSpace, keys: list[tuple[int, int]], prune: Prune) -> list[int]:
    """Nearest first, dropping a candidate that is nearer to a chosen one than to the node."""
    chosen: list[int] = []
    for distance, candidate in keys:
        if chosen:
            between = _row_scorer(space, space, candidate).distances(np.array(chosen)) + int(space.halves[candidate])
            if (between * prune.alpha < distance * ALPHA_ONE).any():
                continue
        chosen.append(candidate)
        if len(chosen) == prune.degree_max:
            break
    return chosen


def _levels(moved: AnyArray, unit: np.float32) -> I32Array:
    """Float32 values in whole units, clipped to what a signed byte holds on both sides."""
    scale = np.float32(1) / unit
    levels: I32Array = np.clip(np.rint(moved * scale), -127, 127).astype(np.int32)
    return levels


def _distances(vectors: F32Array, rows: I32Array, query: F32Array, metric: Metric) -> F32Array:
    """Exact distances, float32, a block of rows at a time."""
    found = np.empty(rows.shape[0], np.float32)
    block = max(1, _BLOCK_FLOATS // max(1, vectors.shape[1]))
    for at in range(0, rows.shape[0], block):
        taken = vectors[rows[at : at + block]]
        if metric is Metric.L2:
            difference = taken - query
            found[at : at + block] = np.einsum("ij,ij->i", difference, difference)
        elif metric is Metric.DOT:
            found[at : at + block] = -np.einsum("ij,j->i", taken, query)
        else:
            found[at : at + block] = np.float32(1) - np.einsum("ij,j->i", taken, query)
    return found + np.float32(0)


def _bools(allowed: U64Array | None, n: int) -> BoolArray:
    """(n,) bool from a bit set."""
    if allowed is None:
        return np.ones(n, np.bool_)
    return np.unpackbits(np.ascontiguousarray(allowed).view(np.uint8), count=n, bitorder="little").view(np.bool_)
