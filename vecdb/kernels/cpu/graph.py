"""Search of an HNSW graph on byte codes (Malkov and Yashunin 2018, algorithms 2 and 5), by integer distances only.

The bottom layer is searched with one sorted array of 64-bit keys (distance, node, expanded) instead of two heaps. Each
hop first collects the neighbours not met yet, without a branch. Once there is a bound on what can still be of use it
reads their sketches, a cache line each, and gives up those that cannot be near; of the rest it asks for all codes at
once, scores them four at a time and inserts those within the bound. What the next hop needs if nothing nearer turns up,
links and sketches, is on its way from memory meanwhile.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels.arrays import BLUR_ONE, NEARNESS_BLURS, RATIO_BITS, SKETCH_MARGIN, SLACK_BITS
from vecdb.kernels.cpu.cache import kernel, part
from vecdb.kernels.cpu.intrinsics import dot_codes_4, dot_nibbles_4, prefetch, shift_up, sum_signs_4
from vecdb.kernels.cpu.quantise import bias_of, length_of
from vecdb.types import AnyArray

LINE_BYTES = 64
LINE_LINKS = 16
FAR = np.int64(0x7FFF_FFFF)
_COUNTED = 64
_SEEN_MAX = 8192
"""Up to this many nodes met, the set of met nodes is cleared one by one; beyond, as a whole."""


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
    fields: AnyArray,
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
    total = bias >> 7
    last = fields.shape[1]
    for spare in range(count, (count + 3) & ~3):
        ids[spare] = ids[count - 1]
    for at in range(0, count, 4):
        sum_signs_4(sketches, ids, at, query, out)
    kept: Any = 0
    for number in range(count):
        node = ids[number]
        line = fields[node]
        near = ((2 * np.int64(out[number]) - total) * np.int64(line[last - 2])) >> 8
        near += (np.int64(line[last - 1]) * length * SKETCH_MARGIN) >> 8
        if ratio:
            near -= (np.int64(norms[node]) * ratio) >> RATIO_BITS
        ids[kept] = node
        kept += np.int64(-near <= worst)
    return kept


@part
def fetch(array: AnyArray, row: int, line: int) -> None:
    """Ask for a row of an array whose cache lines hold ``line`` elements."""
    width = array.shape[1]
    start = np.int64(row) * width
    for offset in range(0, width, line):
        prefetch(array, start + offset)


@part
def descend(
    upper_table: AnyArray,
    upper_norms: AnyArray,
    upper_links: AnyArray,
    level_starts: AnyArray,
    query: AnyArray,
    terms: Any,
    ids: AnyArray,
    out: AnyArray,
) -> tuple[Any, Any]:
    """Greedy walk from place 0 down through the upper layers; returns where it arrives, and distances computed."""
    place = np.int32(0)
    ids[0] = 0
    score(upper_table, upper_norms, ids, 1, query, terms, out)
    nearest = out[0]
    scored = 1
    for level in range(level_starts.shape[0] - 1, 0, -1):
        start = level_starts[level - 1]
        moved = True
        while moved:
            moved = False
            links = upper_links[start + place]
            count = 0
            for number in range(links.shape[0]):
                if links[number] < 0:
                    break
                ids[count] = links[number]
                count += 1
            for number in range(count):
                fetch(upper_table, ids[number], LINE_BYTES)
            score(upper_table, upper_norms, ids, count, query, terms, out)
            scored += count
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
    count: Any = 0
    for number in range(line.shape[0]):
        neighbour = line[number]
        if neighbour < 0:
            break
        word = np.uint64(neighbour) >> np.uint64(6)
        bit = np.uint64(1) << (np.uint64(neighbour) & np.uint64(63))
        before = met[word]
        ids[count] = neighbour
        met[word] = before | bit
        count += np.int64((before & bit) == np.uint64(0))
    return count


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
    fields: AnyArray,
    nibbles: AnyArray,
    step: Any,
    links: AnyArray,
    entry: int,
    anchor: int,
    query: AnyArray,
    halves: AnyArray,
    terms: Any,
    k: int,
    slack: Any,
    offset: Any,
    fuzz: Any,
    pool: AnyArray,
    ids: AnyArray,
    out: AnyArray,
    met: AnyArray,
    seen: AnyArray,
) -> tuple[int, int, int]:
    """Best-first search from ``entry`` and ``anchor``; ``pool`` (ef,) is left sorted.

    ``met`` (ceil(n / 64),) uint64 must be all zero and is left so. Returns nodes in the pool, distances computed, hops.
    """
    ef = pool.shape[0]
    coarse = nibbles.shape[0] > 0
    ids[0] = entry
    ids[1] = anchor
    scored = 1 if entry == anchor else 2
    for number in range(scored):
        node = ids[number]
        met[node >> 6] |= np.uint64(1) << np.uint64(node & 63)
        seen[number] = node
    if coarse:
        score_nibbles(nibbles, step, norms, ids, scored, halves, terms, out)
    else:
        score(table, norms, ids, scored, query, terms, out)
    size, _ = insert(pool, 0, ids, out, scored)
    hops = 0
    cursor = 0
    while cursor < size:
        key = pool[cursor]
        worst = bound(pool, size, k, slack, offset, fuzz)
        if (key >> 32) > worst:
            break
        if size == ef:
            worst = min(worst, pool[size - 1] >> 32)
        pool[cursor] = key | 1
        hops += 1
        following = cursor + 1
        while following < size and pool[following] & 1:
            following += 1
        if following < size:
            fetch(links, (pool[following] & 0xFFFFFFFF) >> 1, LINE_LINKS)
        count = collect(links[(key & 0xFFFFFFFF) >> 1], ids, met)
        if scored + count <= _SEEN_MAX:
            for number in range(count):
                seen[scored + number] = ids[number]
        scored += count
        if worst < FAR and sketches.shape[0] > 0:
            for number in range(count):
                fetch(sketches, ids[number], LINE_BYTES)
            count = promising(sketches, fields, norms, ids, count, query, terms, worst, out)
        for number in range(count):
            fetch(nibbles if coarse else table, ids[number], LINE_BYTES)
        if following < size and sketches.shape[0] > 0:
            fetch_ahead(links[(pool[following] & 0xFFFFFFFF) >> 1], sketches)
        if coarse:
            score_nibbles(nibbles, step, norms, ids, count, halves, terms, out)
        else:
            score(table, norms, ids, count, query, terms, out)
        count = within(ids, out, count, worst)
        size, lowest = insert(pool, size, ids, out, count)
        cursor = min(following, lowest)
        if cursor < size:
            fetch(links, (pool[cursor] & 0xFFFFFFFF) >> 1, LINE_LINKS)
    if scored <= _SEEN_MAX:
        for number in range(scored):
            met[seen[number] >> 6] = np.uint64(0)
    else:
        met[:] = np.uint64(0)
    return size, scored, hops


@kernel
def search_graph(
    table: AnyArray,
    norms: AnyArray,
    sketches: AnyArray,
    fields: AnyArray,
    nibbles: AnyArray,
    nibble_step: int,
    blur: int,
    links: AnyArray,
    upper_rows: AnyArray,
    upper_table: AnyArray,
    upper_norms: AnyArray,
    upper_links: AnyArray,
    level_starts: AnyArray,
    values: AnyArray,
    ratios: AnyArray,
    offsets: AnyArray,
    k: int,
    ef: int,
    slack: int,
    slots: AnyArray,
) -> tuple[int, int, int]:
    """Write the best rows found for each query into ``slots`` (nq, count).

    Returns the least number of rows found for a query, distances computed and hops.
    """
    nq, width = slots.shape
    room = max(links.shape[1], upper_links.shape[1]) + 4
    pool = np.empty(ef, np.int64)
    ids = np.empty(room, np.int32)
    out = np.empty(room, np.int32)
    seen = np.empty(_SEEN_MAX, np.int32)
    met = np.zeros((table.shape[0] + 63) // 64, np.uint64)
    halves = np.zeros(max(values.shape[1], 2 * nibbles.shape[1]), np.int8)
    total = 0
    hops = 0
    fewest = width
    for number in range(nq):
        query = values[number]
        halves[: query.shape[0]] = query
        terms = (bias_of(query), ratios[number], length_of(query))
        fuzz = fuzz_of(blur, terms[2])
        place, scored = descend(upper_table, upper_norms, upper_links, level_starts, query, terms, ids, out)
        size, more, steps = beam(
            table, norms, sketches, fields, nibbles, nibble_step, links, upper_rows[place], upper_rows[0],
            query, halves, terms, k, slack, offsets[number], fuzz, pool, ids, out, met, seen,
        )  # fmt: skip
        total += scored + more
        hops += steps
        count = count_near(pool, size, k, fuzz, width)
        fewest = min(fewest, count)
        for at in range(width):
            slots[number, at] = (pool[at] & 0xFFFFFFFF) >> 1 if at < count else -1
    return fewest, total, hops
