"""The parts of a walk through an HNSW graph (Malkov and Yashunin 2018, algorithms 2 and 5), by integer distances only.

A build walks with one sorted array of 64-bit keys (distance, node, expanded) instead of two heaps. Each hop first
collects the neighbours not met yet, without a branch. Once there is a bound on what can still be of use it
reads their sketches, a cache line each, and gives up those that cannot be near; of the rest it asks for all codes at
once, scores them four at a time and inserts those within the bound. What the next hop needs if nothing nearer turns up,
links and sketches, is on its way from memory meanwhile.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels.arrays import BLUR_ONE, NEARNESS_BLURS, RATIO_BITS, SKETCH_MARGIN, SLACK_BITS
from vecdb.kernels.cpu.cache import part
from vecdb.kernels.cpu.intrinsics import dot_codes_4, dot_nibbles_4, prefetch, promise_4, shift_up
from vecdb.types import AnyArray

LINE_BYTES = 64
LINE_LINKS = 16
FAR = np.int64(0x7FFF_FFFF)
_COUNTED = 64


@part
def score(
    table: AnyArray,
    norms: AnyArray,
    ids: AnyArray,
    count: int,
    query: AnyArray,
    terms: Any,
    out: AnyArray,
) -> None:
    """Integer distances of the first ``count`` of ``ids`` to ``query``; terms are its bias, ratio and length.

    ``ids`` and ``out`` need room for three more: rows are scored by fours.
    """
    bias, ratio, _ = terms
    if count == 0:
        return
    for spare in range(count, (count + 3) & ~3):
        ids[spare] = ids[count - 1]
    for at in range(0, count, 4):
        dot_codes_4(table, ids, at, query, out)
    if ratio:
        for number in range(count):
            weighted = (np.int64(norms[ids[number]]) * ratio) >> RATIO_BITS
            out[number] = np.int32(weighted + bias - out[number])
    else:
        for number in range(count):
            out[number] = np.int32(bias - out[number])


@part
def score_nibbles(
    nibbles: AnyArray,
    step: Any,
    norms: AnyArray,
    ids: AnyArray,
    count: int,
    halves: AnyArray,
    terms: Any,
    out: AnyArray,
) -> None:
    """As ``score``, by nibbles of ``step`` levels; ``halves`` is the query as ``dot_nibbles_4`` takes it."""
    bias, ratio, _ = terms
    if count == 0:
        return
    for spare in range(count, (count + 3) & ~3):
        ids[spare] = ids[count - 1]
    for at in range(0, count, 4):
        dot_nibbles_4(nibbles, ids, at, halves, out)
    bias = (bias * 15 * step) >> 8
    if ratio:
        for number in range(count):
            weighted = (np.int64(norms[ids[number]]) * ratio) >> RATIO_BITS
            out[number] = np.int32(weighted + bias - np.int64(out[number]) * step)
    else:
        for number in range(count):
            out[number] = np.int32(bias - np.int64(out[number]) * step)


@part
def promising(
    sketches: AnyArray,
    norms: AnyArray,
    ids: AnyArray,
    count: int,
    query: AnyArray,
    terms: Any,
    worst: Any,
    out: AnyArray,
) -> Any:
    """Keep those of the first ``count`` of ``ids`` whose sketch may be nearer than ``worst``; returns how many."""
    bias, ratio, length = terms
    for spare in range(count, (count + 3) & ~3):
        ids[spare] = ids[count - 1]
    for at in range(0, count, 4):
        promise_4(sketches, ids, at, query, bias >> 7, length * SKETCH_MARGIN, out)
    kept: Any = 0
    if ratio:
        for number in range(count):
            node = ids[number]
            nearest = ((np.int64(norms[node]) * ratio) >> RATIO_BITS) - out[number]
            ids[kept] = node
            kept += np.int64(nearest <= worst)
    else:
        for number in range(count):
            ids[kept] = ids[number]
            kept += np.int64(-np.int64(out[number]) <= worst)
    return kept


@part
def fetch(array: AnyArray, row: int, line: int) -> None:
    """Ask for a row of an array whose cache lines hold ``line`` elements."""
    width = array.shape[1]
    start = np.int64(row) * width
    for offset in range(0, width, line):
        prefetch(array, start + offset)


@part
def descend(upper: Any, query: AnyArray, terms: Any, ids: AnyArray, out: AnyArray) -> tuple[Any, Any]:
    """Greedy walk from place 0 down through the upper layers; returns where it arrives, and distances computed.

    ``upper``: table, norms, links and level starts.
    """
    table, norms, links, level_starts = upper
    place = np.int32(0)
    ids[0] = 0
    score(table, norms, ids, 1, query, terms, out)
    nearest = out[0]
    scored = 1
    for level in range(level_starts.shape[0] - 1, 0, -1):
        start = level_starts[level - 1]
        moved = True
        while moved:
            moved = False
            line = links[start + place]
            count: Any = 0
            for number in range(line.shape[0]):
                if line[number] < 0:
                    break
                ids[count] = line[number]
                count += 1
            scored += count
            for number in range(count):
                fetch(table, ids[number], LINE_BYTES)
            score(table, norms, ids, count, query, terms, out)
            for number in range(count):
                if out[number] < nearest or (out[number] == nearest and ids[number] < place):
                    nearest = out[number]
                    place = ids[number]
                    moved = True
    return place, scored


@part
def fetch_ahead(line: AnyArray, sketches: AnyArray) -> None:
    """Ask for the sketches of all links of a node."""
    for number in range(line.shape[0]):
        prefetch(sketches, np.int64(line[number]) * sketches.shape[1])


@part
def within(ids: AnyArray, out: AnyArray, count: int, worst: Any) -> Any:
    """Keep those of the first ``count`` of ``ids`` whose distance is at most ``worst``; returns how many."""
    kept: Any = 0
    for number in range(count):
        distance = out[number]
        out[kept] = distance
        ids[kept] = ids[number]
        kept += np.int64(distance <= worst)
    return kept


@part
def collect(line: AnyArray, ids: AnyArray, met: AnyArray) -> Any:
    """Put the links of a node that were not met yet into ``ids``, and mark them; returns how many."""
    # Unsigned numbers, because a signed one that is an index might count from the end, and is looked at for that.
    count = np.uint64(0)
    for number in range(line.shape[0]):
        neighbour = line[number]
        if neighbour < 0:
            break
        word, bit = np.uint64(neighbour) >> np.uint64(6), np.uint64(neighbour) & np.uint64(63)
        before = met[word]
        ids[count] = neighbour
        met[word] = before | (np.uint64(1) << bit)
        count += ((before >> bit) & np.uint64(1)) ^ np.uint64(1)
    return np.int64(count)


@part
def insert(pool: AnyArray, size: int, ids: AnyArray, out: AnyArray, count: int) -> tuple[int, int]:
    """Insert scored nodes into the sorted pool; returns its size and the lowest place that changed.

    The nodes are sorted first, in place; then every key of the pool moves once, however many are inserted before it.
    """
    ef = pool.shape[0]
    for at in range(1, count):
        distance, node = out[at], ids[at]
        hole = at
        while hole > 0 and (out[hole - 1] > distance or (out[hole - 1] == distance and ids[hole - 1] > node)):
            out[hole], ids[hole] = out[hole - 1], ids[hole - 1]
            hole -= 1
        out[hole], ids[hole] = distance, node
    lowest = ef
    end = size
    for number in range(count - 1, -1, -1):
        key = (np.int64(out[number]) << 32) | (np.int64(ids[number]) << 1)
        low = 0
        high = end
        while high - low > _COUNTED:
            middle = (low + high) >> 1
            if pool[middle] < key:
                low = middle + 1
            else:
                high = middle
        # Counting all of a short run takes no branch that could be guessed wrong.
        place: Any = low
        for at in range(low, high):
            place += np.int64(pool[at] < key)
        shift_up(pool, place, min(end, ef - number - 1), number + 1)
        end = place
        if place + number < ef:
            pool[place + number] = key
            lowest = place
    return min(size + count, ef), lowest


@part
def fuzz_of(blur: Any, length: Any) -> Any:
    """By how much two distances may differ and yet be the same, to a walk with this blur."""
    return NEARNESS_BLURS * blur * length // BLUR_ONE


@part
def count_near(pool: AnyArray, size: int, k: int, fuzz: Any, most: int) -> int:
    """How many of a sorted pool to rank: ``k``, and what may be as near as the k-th, at most ``most``."""
    count = min(size, most)
    if count > k:
        last = (pool[k - 1] >> 32) + fuzz
        while count > k and (pool[count - 1] >> 32) > last:
            count -= 1
    return count


@part
def bound(pool: AnyArray, size: int, k: int, slack: Any, offset: Any, fuzz: Any) -> Any:
    """The distance beyond which nothing is of use any more."""
    if slack == 0 or size < k:
        return FAR
    return (max((pool[k - 1] >> 32) + offset, fuzz) * slack >> SLACK_BITS) - offset


@part
def beam(
    table: AnyArray,
    norms: AnyArray,
    sketches: AnyArray,
    links: AnyArray,
    entry: int,
    query: AnyArray,
    terms: Any,
    pool: AnyArray,
    ids: AnyArray,
    out: AnyArray,
    met: AnyArray,
    seen: AnyArray,
) -> int:
    """Best-first search from ``entry`` on byte codes, as a build takes it; ``pool`` (ef,) is left sorted.

    ``met`` (ceil(n / 64),) uint64 must be all zero and is left so; up to as many rows as ``seen`` has room for are
    taken out of it one by one. Returns the number of nodes in the pool.
    """
    ef = pool.shape[0]
    ids[0] = entry
    met[entry >> 6] |= np.uint64(1) << np.uint64(entry & 63)
    seen[0] = entry
    scored = 1
    score(table, norms, ids, 1, query, terms, out)
    size, _ = insert(pool, 0, ids, out, 1)
    cursor = 0
    while cursor < size:
        key = pool[cursor]
        worst = FAR if size < ef else pool[size - 1] >> 32
        pool[cursor] = key | 1
        following = cursor + 1
        while following < size and pool[following] & 1:
            following += 1
        if following < size:
            fetch(links, (pool[following] & 0xFFFFFFFF) >> 1, LINE_LINKS)
        count = collect(links[(key & 0xFFFFFFFF) >> 1], ids, met)
        if scored + count <= seen.shape[0]:
            for number in range(count):
                seen[scored + number] = ids[number]
        scored += count
        if worst < FAR and sketches.shape[0] > 0:
            for number in range(count):
                fetch(sketches, ids[number], LINE_BYTES)
            count = promising(sketches, norms, ids, count, query, terms, worst, out)
        for number in range(count):
            fetch(table, ids[number], LINE_BYTES)
        if following < size and sketches.shape[0] > 0:
            fetch_ahead(links[(pool[following] & 0xFFFFFFFF) >> 1], sketches)
        score(table, norms, ids, count, query, terms, out)
        count = within(ids, out, count, worst)
        size, lowest = insert(pool, size, ids, out, count)
        cursor = min(following, lowest)
        if cursor < size:
            fetch(links, (pool[cursor] & 0xFFFFFFFF) >> 1, LINE_LINKS)
    if scored <= seen.shape[0]:
        for number in range(scored):
            met[seen[number] >> 6] = np.uint64(0)
    else:
        met[:] = np.uint64(0)
    return size  # type: ignore[no-any-return]
