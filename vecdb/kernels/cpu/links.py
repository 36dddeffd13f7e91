"""Growing one layer of an HNSW graph: choosing links, adding reverse links, and leaving no node unreachable.

Every decision compares integers, ties by node, so that a graph is a function of the codes and the parameters alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels.arrays import ALPHA_ONE, RATIO_BITS
from vecdb.kernels.cpu.cache import kernel, part
from vecdb.kernels.cpu.graph import beam, descend, score
from vecdb.kernels.cpu.intrinsics import dot_codes_4
from vecdb.kernels.cpu.quantise import bias_of, length_of
from vecdb.kernels.cpu.selection import row_of
from vecdb.types import AnyArray

_SEEN_MAX = 8192
"""Up to this many nodes met, the set of met nodes is cleared one by one; beyond, as a whole."""
_WHOLE = np.int64(1) << RATIO_BITS


@part
def _as_query(table: AnyArray, node: int, query: AnyArray) -> None:
    """The codes of a node as signed bytes: ``code - 128``, which flips the top bit."""
    row = table[node]
    for j in range(query.shape[0]):
        query[j] = np.int8(np.uint8(row[j]) ^ np.uint8(128))


@part
def _terms(query: AnyArray) -> Any:
    """Bias, ratio and length for scoring against a node's own codes."""
    return bias_of(query), _WHOLE, length_of(query)


@part
def _sort(keys: AnyArray, count: int) -> None:
    """Insertion sort: keys come in runs that are sorted already."""
    for at in range(1, count):
        key = keys[at]
        hole = at
        while hole > 0 and keys[hole - 1] > key:
            keys[hole] = keys[hole - 1]
            hole -= 1
        keys[hole] = key


@part
def _prune(
    table: AnyArray,
    halves: AnyArray,
    keys: AnyArray,
    count: int,
    degree_max: int,
    alpha: int,
    query: AnyArray,
    chosen: AnyArray,
    out: AnyArray,
) -> int:
    """Choose from ``count`` sorted keys (distance to the node, candidate); returns how many are in ``chosen``."""
    size = 0
    for at in range(count):
        candidate = row_of(keys[at])
        reach = (keys[at] >> 32) * ALPHA_ONE
        free = True
        if size:
            _as_query(table, candidate, query)
            half = np.int64(halves[candidate]) + bias_of(query)
            for first in range(0, size, 4):
                for spare in range(size, first + 4):
                    chosen[spare] = chosen[size - 1]
                dot_codes_4(table, chosen, first, query, out)
                for number in range(first, min(first + 4, size)):
                    between = half + np.int64(halves[chosen[number]]) - np.int64(out[number])
                    if between * alpha < reach:
                        free = False
                if not free:
                    break
        if free:
            chosen[size] = candidate
            size += 1
            if size == degree_max:
                break
    return size


@kernel
def propose_links(
    table: AnyArray,
    halves: AnyArray,
    sketches: AnyArray,
    links: AnyArray,
    upper_rows: AnyArray,
    upper_table: AnyArray,
    upper_halves: AnyArray,
    upper_links: AnyArray,
    level_starts: AnyArray,
    bottom: bool,
    nodes: AnyArray,
    ef: int,
    alpha: int,
    proposals: AnyArray,
) -> None:
    """Write the links chosen for ``nodes`` (b,) into ``proposals`` (b, degree_max), -1 after the last."""
    degree_max = proposals.shape[1]
    capacity = links.shape[1]
    room = max(capacity, upper_links.shape[1], degree_max) + 8
    pool = np.empty(ef, np.int64)
    keys = np.empty(ef + capacity, np.int64)
    ids = np.empty(room, np.int32)
    out = np.empty(room, np.int32)
    chosen = np.empty(room, np.int32)
    seen = np.empty(_SEEN_MAX, np.int32)
    met = np.zeros((table.shape[0] + 63) // 64, np.uint64)
    query = np.empty(table.shape[1], np.int8)
    other = np.empty(table.shape[1], np.int8)
    upper = (upper_table, upper_halves, upper_links, level_starts)
    for number in range(nodes.shape[0]):
        node = nodes[number]
        _as_query(table, node, query)
        terms = _terms(query)
        entry = node  # a node that is linked already stands amid its neighbours
        if links[node, 0] < 0:
            place, _ = descend(upper, query, terms, ids, out)
            entry = upper_rows[place] if bottom else place
        size = beam(table, halves, sketches, links, entry, query, terms, pool, ids, out, met, seen)
        half = np.int64(halves[node]) << 32
        count = 0
        known = 0
        while known < capacity and links[node, known] >= 0:
            ids[known] = links[node, known]
            known += 1
        score(table, halves, ids, known, query, terms, out)
        for at in range(size):
            found = (pool[at] & 0xFFFFFFFF) >> 1
            if found != node:
                keys[count] = ((pool[at] >> 32 << 32) | found) + half
                count += 1
        first = count
        for at in range(known):
            key = ((np.int64(out[at]) << 32) | np.int64(ids[at])) + half
            fresh = True
            for before in range(first):
                if keys[before] == key:
                    fresh = False
                    break
            if fresh:
                keys[count] = key
                count += 1
        _sort(keys, count)
        kept = _prune(table, halves, keys, count, degree_max, alpha, other, chosen, out)
        for at in range(degree_max):
            proposals[number, at] = chosen[at] if at < kept else -1


@kernel
def accept_links(
    table: AnyArray,
    halves: AnyArray,
    links: AnyArray,
    degrees: AnyArray,
    targets: AnyArray,
    starts: AnyArray,
    sources: AnyArray,
    limit: int,
    degree_max: int,
    alpha: int,
) -> None:
    """Add ``sources`` to the links of ``targets``; prune to ``degree_max`` where there would be more than ``limit``."""
    most = 0
    for number in range(targets.shape[0]):
        most = max(most, starts[number + 1] - starts[number])
    room = links.shape[1] + most + 8
    keys = np.empty(room, np.int64)
    ids = np.empty(room, np.int32)
    out = np.empty(room, np.int32)
    chosen = np.empty(room, np.int32)
    query = np.empty(table.shape[1], np.int8)
    other = np.empty(table.shape[1], np.int8)
    for number in range(targets.shape[0]):
        node = targets[number]
        degree = np.int64(degrees[node])
        for at in range(degree):
            ids[at] = links[node, at]
        count = degree
        for at in range(starts[number], starts[number + 1]):
            source = sources[at]
            fresh = source != node
            for before in range(degree):
                if ids[before] == source:
                    fresh = False
                    break
            if fresh:
                ids[count] = source
                count += 1
        if count <= limit:
            for at in range(degree, count):
                links[node, at] = ids[at]
            degrees[node] = count
            continue
        _as_query(table, node, query)
        score(table, halves, ids, count, query, _terms(query), out)
        half = np.int64(halves[node]) << 32
        for at in range(count):
            keys[at] = ((np.int64(out[at]) << 32) | np.int64(ids[at])) + half
        _sort(keys, count)
        kept = _prune(table, halves, keys, count, degree_max, alpha, other, chosen, out)
        for at in range(links.shape[1]):
            links[node, at] = chosen[at] if at < kept else -1
        degrees[node] = kept


@kernel
def connect(links: AnyArray, degrees: AnyArray, degree_max: int, walk: AnyArray, state: AnyArray, budget: int) -> bool:
    """One bounded part of the walk that ``Kernels.connect`` describes; True when every node was met."""
    n = walk.shape[1]
    order = walk[0]
    parents = walk[1]
    children = walk[2]
    expanded, reached, lonely, adopter, added = state[0], state[1], state[2], state[3], state[4]
    left = budget
    while left > 0 and reached < n:
        left -= 1
        if expanded < reached:
            node = order[expanded]
            expanded += 1
            for at in range(degrees[node]):
                neighbour = links[node, at]
                if parents[neighbour] < 0:
                    parents[neighbour] = node
                    children[node] += 1
                    order[reached] = neighbour
                    reached += 1
            continue
        if parents[lonely] >= 0:
            lonely += 1
            continue
        keeper = -1
        for at in range(degrees[lonely]):
            neighbour = links[lonely, at]
            if parents[neighbour] >= 0 and children[neighbour] < degree_max:
                keeper = neighbour
                break
        if keeper < 0:
            # Room for walk links only ever shrinks, so adopters that were full need not be looked at again.
            while children[order[adopter]] >= degree_max:
                adopter += 1
            keeper = order[adopter]
        if degrees[keeper] < degree_max:
            place = np.int64(degrees[keeper])
            degrees[keeper] += 1
        else:
            place = np.int64(degrees[keeper]) - 1
            while parents[links[keeper, place]] == keeper:
                place -= 1
        links[keeper, place] = lonely
        parents[lonely] = keeper
        children[keeper] += 1
        order[reached] = lonely
        reached += 1
        added += 1
    state[0], state[1], state[2], state[3], state[4] = expanded, reached, lonely, adopter, added
    return bool(reached == n)
