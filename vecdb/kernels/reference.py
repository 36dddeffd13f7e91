"""The oracle: every kernel in plain NumPy, written to be read, not to be fast. Imports no compiler.

Integer results equal those of every other device bit for bit; float32 distances agree to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt, sqrt

import numpy as np

from vecdb.kernels.arrays import (
    BLUR_ONE,
    NEARNESS_BLURS,
    OFFSET_MAX,
    RATIO_BITS,
    SCANNED_BEYOND,
    SCANNED_BLURS,
    SCANNED_FACTOR,
    UNIT_MIN,
    Answers,
    Beam,
    BuildSpace,
    Candidates,
    Codes,
    Graph,
    Layer,
    Merged,
    Originals,
    Prune,
    QueryCodes,
    UpperLayers,
    sketch_bytes,
    stride_bytes,
)
from vecdb.kernels.protocol import Progress, WarmedKernel
from vecdb.kernels.reference_filtered import walk_allowed
from vecdb.kernels.reference_graph import Scorer, bools, descend, links_of, pruned, row_scorer, walk
from vecdb.types import AnyArray, F32Array, I32Array, I64Array, Metric, TopK, U8Array, U64Array

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
        rows = np.flatnonzero(bools(allowed, vectors.shape[0])).astype(np.int32)
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

    def quantise(
        self, queries: F32Array, centre: F32Array, step: float, metric: Metric, reach: float = 0.0
    ) -> QueryCodes:
        """As ``Kernels.quantise``."""
        nq, dim = queries.shape
        values = np.zeros((nq, stride_bytes(dim)), np.int8)
        ratios, offsets = np.zeros(nq, np.int64), np.zeros(nq, np.int64)
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
            levels = values[number, :dim].astype(np.int64)
            length = float((levels * levels).sum())
            if metric is Metric.L2:
                offset = float(unit) / float(np.float32(step)) * length / 2.0
            elif metric is Metric.DOT:
                offset = sqrt(length) * reach
            else:
                # One after the other: another order may round otherwise.
                shift = float(np.cumsum(np.append(0.0, centre.astype(np.float64) * levels))[-1])
                offset = (1.0 / float(unit) - shift) / float(np.float32(step))
            offsets[number] = np.rint(min(max(offset, 0.0), float(OFFSET_MAX)))
        return QueryCodes(values, ratios, offsets)

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

    def bind_graph(self, codes: Codes, graph: Graph, originals: Originals) -> _BoundGraph:
        """As ``Kernels.bind_graph``."""
        return _BoundGraph(codes, graph, originals)

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
                place, _ = descend(upper, row_scorer(above, layer.space, node))
                entry = int(upper.rows[place]) if bottom else place
            scorer = row_scorer(layer.space, layer.space, node)
            pool, _, _ = walk(scorer, layer.links, {entry}, Beam(ef), 1, 0, 0)
            half = int(layer.space.halves[node])
            known = links_of(layer.links[node])
            keys = {(distance + half, row) for distance, row in pool if row != node}
            keys |= set(zip((scorer.distances(known) + half).tolist(), known.tolist(), strict=True))
            chosen = pruned(layer.space, sorted(keys), prune)
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
                distances = row_scorer(layer.space, layer.space, node).distances(np.array(links))
                distances += int(layer.space.halves[node])
                links = pruned(layer.space, sorted(zip(distances.tolist(), links, strict=True)), prune)
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


class _BoundGraph:
    """A graph over codes, and the vectors behind it, as ``BoundGraph``."""

    def __init__(self, codes: Codes, graph: Graph, originals: Originals) -> None:
        self._codes = codes
        self._graph = graph
        self._originals = originals

    def search(self, queries: F32Array, beam: Beam, k: int, count: int, allowed: U64Array | None = None) -> Candidates:
        """As ``BoundGraph.search``."""
        codes, graph, of = self._codes, self._graph, self._originals
        n = codes.table.shape[0]
        nq = queries.shape[0]
        asked = ReferenceKernels().quantise(queries, of.centre, of.step, of.metric, of.reach)
        slots = np.full((nq, count), -1, np.int32)
        members = None if allowed is None else bools(allowed, n)
        scored = hops = 0
        fewest = count if n else 0
        for number in range(nq if n else 0):
            query, ratio = asked.values[number], int(asked.ratios[number])
            offset = int(asked.offsets[number])
            scorer = Scorer(codes.table, codes.norms, query, ratio, sketches=graph.sketches, nibbles=graph.nibbles)
            upper = graph.upper
            place, more = descend(upper, Scorer(upper.table, upper.norms, query, ratio))
            arrival, entry = int(upper.rows[place]), int(upper.rows[0])
            fuzz = NEARNESS_BLURS * graph.nibbles.blur * scorer.length // BLUR_ONE
            if members is None:
                pool, further, steps = walk(scorer, graph.links, {arrival, entry}, beam, k, offset, fuzz)
            else:
                pool, further, steps = walk_allowed(scorer, graph.links, arrival, members, beam, k, offset, fuzz)
            if len(pool) > k:
                pool = [key for at, key in enumerate(pool) if at < k or key[0] <= pool[k - 1][0] + fuzz]
            found = [row for _, row in pool][:count]
            slots[number, : len(found)] = found
            fewest = min(fewest, len(found))
            scored += more + further
            hops += steps
        return Candidates(slots, fewest, scored, hops)

    def answer(self, queries: F32Array, beam: Beam, k: int, count: int, allowed: U64Array | None = None) -> Answers:
        """As ``BoundGraph.answer``."""
        of = self._originals
        found = self.search(queries, beam, k, count, allowed)
        topk = ReferenceKernels().rerank(of.vectors, queries, found.slots, of.metric, k)
        return Answers(topk, found.fewest, found.distance_computations, found.hops)

    def scan(self, queries: F32Array, k: int, count: int, allowed: U64Array | None = None) -> Candidates:
        """As ``BoundGraph.scan``."""
        codes, nibbles, of = self._codes, self._graph.nibbles, self._originals
        rows = np.flatnonzero(bools(allowed, codes.table.shape[0]))
        nq = queries.shape[0]
        asked = ReferenceKernels().quantise(queries, of.centre, of.step, of.metric, of.reach)
        slots = np.full((nq, count), -1, np.int32)
        fewest = count
        for number in range(nq):
            query, ratio = asked.values[number], int(asked.ratios[number])
            scorer = Scorer(codes.table, codes.norms, query, ratio, nibbles=nibbles)
            distances = scorer.walked(rows)
            order = np.lexsort((rows, distances))[:count]
            if order.shape[0] > k:
                fuzz = SCANNED_BLURS * nibbles.blur * scorer.length // BLUR_ONE
                near = int((distances[order] <= distances[order[k - 1]] + fuzz).sum())
                order = order[: max(near, SCANNED_FACTOR * k, k + SCANNED_BEYOND)]
            slots[number, : order.shape[0]] = rows[order]
            fewest = min(fewest, order.shape[0])
        return Candidates(slots, fewest, int(rows.shape[0]) * nq, 0)

    def answer_scan(self, queries: F32Array, k: int, count: int, allowed: U64Array | None = None) -> Answers:
        """As ``BoundGraph.answer_scan``."""
        of = self._originals
        found = self.scan(queries, k, count, allowed)
        topk = ReferenceKernels().rerank(of.vectors, queries, found.slots, of.metric, k)
        if count < bools(allowed, self._codes.table.shape[0]).sum():
            crowded = found.slots[:, -1] >= 0
            exact = ReferenceKernels().scan_topk(of.vectors, queries[crowded], of.metric, k, allowed)
            topk.slots[crowded], topk.distances[crowded] = exact.slots, exact.distances
        return Answers(topk, found.fewest, found.distance_computations, 0)


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
