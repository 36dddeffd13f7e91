"""The oracle's walks through graphs, in plain NumPy; see ``vecdb.kernels.reference``."""

from __future__ import annotations

import bisect
from functools import cached_property
from math import isqrt

import numpy as np

from vecdb.kernels.arrays import (
    ALPHA_ONE,
    RATIO_BITS,
    SKETCH_MARGIN,
    SLACK_BITS,
    Beam,
    BuildSpace,
    Nibbles,
    Prune,
    UpperLayers,
)
from vecdb.types import AnyArray, BoolArray, I32Array, I64Array, U8Array, U64Array

_FAR = 0x7FFF_FFFF


class Scorer:
    """Integer distances of one query to the rows of one table."""

    def __init__(
        self,
        table: U8Array,
        norms: I32Array,
        query: AnyArray,
        ratio: int,
        *,
        sketches: U8Array | None = None,
        nibbles: Nibbles | None = None,
    ) -> None:
        self.table = table
        self.norms = norms
        self.query = query.astype(np.int64)
        self.ratio = ratio
        self.sketches = sketches if sketches is not None and sketches.shape[0] else None
        self.nibbles = nibbles if nibbles is not None and nibbles.table.shape[0] else None

    @cached_property
    def length(self) -> int:
        """The length of the query, rounded down."""
        return isqrt(int((self.query * self.query).sum()))

    def _terms(self, rows: AnyArray) -> I64Array:
        """What does not come from the dot product."""
        if not self.ratio:
            return np.zeros(rows.shape[0], np.int64)
        terms: I64Array = self.norms[rows].astype(np.int64) * self.ratio >> RATIO_BITS
        return terms

    def distances(self, rows: AnyArray) -> I64Array:
        """Distances of ``rows``, by code."""
        dots: I64Array = (self.table[rows].astype(np.int64) - 128) @ self.query
        return self._terms(rows) - dots

    def walked(self, rows: AnyArray) -> I64Array:
        """Distances of ``rows`` as a walk takes them: by nibbles where there are any."""
        if self.nibbles is None:
            return self.distances(rows)
        step = self.nibbles.step
        both = self.nibbles.table[rows].astype(np.int64)
        nibbles = np.concatenate([both & 15, both >> 4], axis=1)[:, : self.query.shape[0]]
        dots: I64Array = step * (nibbles @ self.query) - (15 * step * int(self.query.sum()) >> 1)
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


def row_scorer(space: BuildSpace, own: BuildSpace, node: int) -> Scorer:
    """Distances from a row of ``own`` to the rows of ``space``, less the row's own half norm."""
    query = own.table[node].astype(np.int64) - 128
    return Scorer(space.table, space.halves, query, 1 << RATIO_BITS, sketches=space.sketches)


def links_of(links: I32Array) -> I32Array:
    """The links of one node, without the padding after the last."""
    if not links.shape[0]:
        return links
    end = int((links < 0).argmax())
    return links[:end] if links[end] < 0 else links


def descend(upper: UpperLayers, scorer: Scorer) -> tuple[int, int]:
    """Greedy walk down through the upper layers; the place arrived at, and distances computed."""
    best = (int(scorer.distances(np.zeros(1, np.int64))[0]), 0)
    scored = 1
    for level in range(upper.level_starts.shape[0] - 1, 0, -1):
        while True:
            links = links_of(upper.links[upper.level_starts[level - 1] + best[1]])
            scored += links.shape[0]
            nearest = min(zip(scorer.distances(links).tolist(), links.tolist(), strict=True), default=best)
            if nearest >= best:
                break
            best = nearest
    return best[1], scored


def walk(
    scorer: Scorer, links: I32Array, entries: set[int], beam: Beam, k: int, offset: int, fuzz: int
) -> tuple[list[tuple[int, int]], int, int]:
    """Best-first search; the (distance, node) kept, ascending, distances computed, nodes expanded."""
    first = np.array(sorted(entries))
    pool = sorted(zip(scorer.walked(first).tolist(), first.tolist(), strict=True))[: beam.ef]
    met = set(entries)
    expanded: set[int] = set()
    hops = 0
    while True:
        following = next((key for key in pool if key[1] not in expanded), None)
        bound = _FAR
        if beam.slack and len(pool) >= k:
            bound = (max(pool[k - 1][0] + offset, fuzz) * beam.slack >> SLACK_BITS) - offset
        if following is None or following[0] > bound:
            return pool, len(met), hops
        if len(pool) == beam.ef:
            bound = min(bound, pool[-1][0])
        expanded.add(following[1])
        hops += 1
        fresh = np.array([node for node in links_of(links[following[1]]).tolist() if node not in met], np.int64)
        met.update(fresh.tolist())
        if bound < _FAR and scorer.sketches is not None:
            fresh = scorer.promising(fresh, bound)
        for key in zip(scorer.walked(fresh).tolist(), fresh.tolist(), strict=True):
            if key[0] <= bound:
                bisect.insort(pool, key)
        del pool[beam.ef :]


def pruned(space: BuildSpace, keys: list[tuple[int, int]], prune: Prune) -> list[int]:
    """Nearest first, dropping a candidate that is nearer to a chosen one than to the node."""
    rows = np.array([row for _, row in keys], np.int64)
    codes = space.table[rows].astype(np.int64) - 128
    halves = space.halves[rows].astype(np.int64)
    between = halves[:, np.newaxis] + halves - codes @ codes.T
    chosen: list[int] = []  # By place among the candidates.
    for place, (distance, _) in enumerate(keys):
        if not (between[place, chosen] * prune.alpha < distance * ALPHA_ONE).any():
            chosen.append(place)
            if len(chosen) == prune.degree_max:
                break
    return rows[chosen].tolist()  # type: ignore[no-any-return]


def bools(allowed: U64Array | None, n: int) -> BoolArray:
    """(n,) bool from a bit set."""
    if allowed is None:
        return np.ones(n, np.bool_)
    return np.unpackbits(np.ascontiguousarray(allowed).view(np.uint8), count=n, bitorder="little").view(np.bool_)
