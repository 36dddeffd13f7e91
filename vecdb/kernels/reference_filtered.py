"""The oracle's walk through a graph among allowed rows, in plain NumPy; see ``vecdb.kernels.cpu.filtered``."""

from __future__ import annotations

import bisect

import numpy as np

from vecdb.kernels.arrays import (
    DETOUR_NEIGHBOURS_MIN,
    REMOTE_BITS,
    REMOTE_GAIN,
    REMOTE_SHARE,
    SCATTERED_MIN,
    SLACK_BITS,
    Beam,
)
from vecdb.kernels.reference_graph import Scorer, links_of
from vecdb.types import BoolArray, I32Array

_FAR = 0x7FFF_FFFF


def scattered(members: BoolArray, k: int) -> list[int]:
    """Allowed rows, evenly spaced among all of them: at least ``k`` where there are so many."""
    rows = np.flatnonzero(members)
    count = min(rows.shape[0], max(SCATTERED_MIN, k))
    return [int(rows[(at * rows.shape[0] + rows.shape[0] // 2) // count]) for at in range(count)]


def gathered(links: I32Array, node: int, members: BoolArray, met: set[int]) -> list[int]:
    """Allowed rows near a node that were not met yet, by its links and while they are few by theirs; marks them."""
    found: list[int] = []

    def take(through: int) -> None:
        for row in links_of(links[through]).tolist():
            if members[row] and row not in met:
                met.add(row)
                found.append(row)

    take(node)
    for through in links_of(links[node]).tolist():
        if len(found) >= DETOUR_NEIGHBOURS_MIN:
            break
        if not members[through] and through not in met:
            met.add(through)
            take(through)
    return found


def walk_allowed(
    scorer: Scorer, links: I32Array, arrival: int, members: BoolArray, beam: Beam, k: int, offset: int, fuzz: int
) -> tuple[list[tuple[int, int]], int, int]:
    """Best-first search among ``members``; the (distance, row) kept, ascending, distances computed, nodes expanded."""
    at_arrival = int(scorer.walked(np.array([arrival]))[0])
    reached = max(at_arrival + offset, fuzz) * REMOTE_SHARE >> REMOTE_BITS
    scored = 1
    starts = scattered(members, k)
    if not starts:
        return [], scored, 0
    met = {arrival, *starts}
    first = np.array([row for row in met if members[row]] + gathered(links, arrival, members, met))
    scored += first.shape[0]
    pool = sorted(zip(scorer.walked(first).tolist(), first.tolist(), strict=True))[: beam.ef]
    expanded: set[int] = set()
    hops = 0
    while True:
        following = next((key for key in pool if key[1] not in expanded), None)
        bound = _FAR
        if beam.slack and len(pool) >= k:
            kth = max(pool[k - 1][0] + offset, fuzz)
            granted = kth + (max(kth - reached, 0) * REMOTE_GAIN >> REMOTE_BITS)
            bound = kth + (granted * (beam.slack - (1 << SLACK_BITS)) >> SLACK_BITS) - offset
        if following is None or following[0] > bound:
            return pool, scored, hops
        if len(pool) == beam.ef:
            bound = min(bound, pool[-1][0])
        expanded.add(following[1])
        hops += 1
        fresh = np.array(gathered(links, following[1], members, met), np.int64)
        scored += fresh.shape[0]
        if bound < _FAR and scorer.sketches is not None:
            fresh = scorer.promising(fresh, bound)
        for key in zip(scorer.walked(fresh).tolist(), fresh.tolist(), strict=True):
            if key[0] <= bound:
                bisect.insort(pool, key)
        del pool[beam.ef :]
