"""Search of an HNSW graph among allowed rows: the walk goes on the subgraph that the allowed rows make of it.

Expanding a row takes its allowed links, and while those are few, the allowed links of the links that are not allowed
(Patel et al. 2024, "ACORN", section 5). Only allowed rows are scored and kept. The walk starts where the descent
arrives and at allowed rows evenly spaced among all of them: where the allowed rows lie far from the query, nothing near
it leads to them. Those are at least ``k``, so that no answer is short. The rest is the walk of
``vecdb.kernels.cpu.graph``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels.arrays import (
    DETOUR_NEIGHBOURS_MIN,
    REMOTE_BITS,
    REMOTE_GAIN,
    REMOTE_SHARE,
    SCATTERED_MIN,
    SLACK_BITS,
)
from vecdb.kernels.cpu.cache import inlined, kernel, part
from vecdb.kernels.cpu.frame import codes_of, links_of, upper_of, vectors_of
from vecdb.kernels.cpu.graph import (
    FAR,
    LINE_BYTES,
    LINE_LINKS,
    count_near,
    descend,
    fetch,
    fuzz_of,
    insert,
    promising,
    score,
    score_nibbles,
    within,
)
from vecdb.kernels.cpu.quantise import bias_of, length_of, quantise_one
from vecdb.kernels.cpu.scan import rank_all
from vecdb.kernels.cpu.selection import count_bits
from vecdb.types import AnyArray

_SEEN_MAX = 16_384
_INSERTED = 64
"""Up to this many rows met, the set of met rows is cleared one by one; beyond, as a whole."""

_AHEAD = 4
"""Lists of links that are asked for before they are read."""

_ONE = np.uint64(1)
_NONE = np.uint64(0)


@inlined
def _word(row: Any) -> Any:
    return np.uint64(row) >> np.uint64(6)


@inlined
def _bit(row: Any) -> Any:
    return np.uint64(row) & np.uint64(63)


@part
def scattered(allowed: AnyArray, wanted: int) -> Any:
    """``wanted`` of the allowed rows, or all where they are fewer, evenly spaced among them, ascending."""
    total: Any = 0
    for number in range(allowed.shape[0]):
        total += count_bits(allowed[number])
    count = min(total, wanted)
    rows = np.empty(count, np.int32)
    found = 0
    before = np.int64(0)
    for number in range(allowed.shape[0]):
        if found == count:
            break
        word = allowed[number]
        here = count_bits(word)
        passed = before
        # The rank of the next one among the allowed rows.
        while found < count and (found * total + (total >> 1)) // count < before + here:
            rank = (found * total + (total >> 1)) // count
            while passed < rank:
                word &= word - _ONE
                passed += 1
            rows[found] = (number << 6) + count_bits((word & (~word + _ONE)) - _ONE)
            found += 1
        before += here
    return rows


@inlined
def _take(line: AnyArray, allowed: AnyArray, met: AnyArray, ids: AnyArray, count: Any) -> Any:
    """Append the allowed links of a node not met yet to the ``count`` of ``ids``, and mark them."""
    for number in range(line.shape[0]):
        neighbour = line[number]
        if neighbour < 0:
            break
        word, bit = _word(neighbour), _bit(neighbour)
        before = met[word]
        fresh = ((allowed[word] & ~before) >> bit) & _ONE
        ids[count] = neighbour
        met[word] = before | (fresh << bit)
        count += np.int64(fresh)
    return count


@part
def _gather(
    links: AnyArray, node: int, allowed: AnyArray, met: AnyArray, ids: AnyArray, detours: AnyArray, log: AnyArray,
    logged: Any,
) -> tuple[Any, Any]:  # fmt: skip
    """Put the allowed rows near a node that were not met yet into ``ids``, and mark them; returns how many.

    Every row marked is appended to ``log`` as long as it has room; the second result counts them.
    """
    line = links[node]
    count = _take(line, allowed, met, ids, 0)
    waiting: Any = 0
    if count < DETOUR_NEIGHBOURS_MIN:
        for number in range(line.shape[0]):
            neighbour = line[number]
            if neighbour < 0:
                break
            word, bit = _word(neighbour), _bit(neighbour)
            detours[waiting] = neighbour
            waiting += np.int64((((allowed[word] | met[word]) >> bit) & _ONE) == _NONE)
    for number in range(min(waiting, _AHEAD)):
        fetch(links, detours[number], LINE_LINKS)
    for number in range(waiting):
        if count >= DETOUR_NEIGHBOURS_MIN:
            break
        if number + _AHEAD < waiting:
            fetch(links, detours[number + _AHEAD], LINE_LINKS)
        through = detours[number]
        met[_word(through)] |= _ONE << _bit(through)
        if logged < log.shape[0]:
            log[logged] = through
        logged += 1
        count = _take(links[through], allowed, met, ids, count)
    if logged + count <= log.shape[0]:
        for number in range(count):
            log[logged + number] = ids[number]
    return count, logged + count


@inlined
def _nearness(key: Any, offset: Any, fuzz: Any) -> Any:
    return max((key >> 32) + offset, fuzz)


@part
def search_allowed(
    codes: Any, upper_rows: AnyArray, upper: Any, links: AnyArray, sketches: AnyArray, query: AnyArray, terms: Any,
    offset: Any, fuzz: Any, k: int, slack: Any, allowed: AnyArray, starts: AnyArray, pool: AnyArray, halves: AnyArray,
    ids: AnyArray, out: AnyArray, detours: AnyArray, met: AnyArray, log: AnyArray, least: int,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Best-first search among the allowed rows; the nearest ``least`` found are left in ``pool`` (ef,), sorted.

    ``met`` (ceil(n / 64),) uint64 must be all zero and is left so. Returns rows in the pool, distances computed, hops.
    """
    table, norms, nibbles, step = codes
    ef = pool.shape[0]
    coarse = nibbles.shape[0] > 0
    place, scored = descend(upper, query, terms, ids, out)
    arrival = upper_rows[place]

    # Where the descent arrives tells how near the nearest of all rows are.
    ids[0] = arrival
    if coarse:
        score_nibbles(nibbles, step, norms, ids, 1, halves, terms, out)
    else:
        score(table, norms, ids, 1, query, terms, out)
    reached = (_nearness(np.int64(out[0]) << 32, offset, fuzz) * REMOTE_SHARE) >> REMOTE_BITS
    scored += 1
    met[_word(arrival)] |= _ONE << _bit(arrival)
    log[0] = arrival
    logged: Any = 1
    count: Any = np.int64((allowed[_word(arrival)] >> _bit(arrival)) & _ONE)
    fresh: Any = 0
    for number in range(starts.shape[0]):
        row = starts[number]
        word, bit = _word(row), _bit(row)
        ids[count] = row
        fresh = np.int64((~met[word] >> bit) & _ONE)
        met[word] |= _ONE << bit
        if logged < log.shape[0]:
            log[logged] = row
        logged += fresh
        count += fresh
    if count == 0:
        met[_word(arrival)] = _NONE
        return 0, scored, 0
    near, logged = _gather(links, arrival, allowed, met, ids[count:], detours, log, logged)
    count += near
    for number in range(count):
        fetch(nibbles if coarse else table, ids[number], LINE_BYTES)
    if coarse:
        score_nibbles(nibbles, step, norms, ids, count, halves, terms, out)
    else:
        score(table, norms, ids, count, query, terms, out)
    size: Any = 0
    # In pieces, because each is sorted by insertion.
    for first in range(0, count, _INSERTED):
        size, _ = insert(pool, size, ids[first:], out[first:], min(count - first, _INSERTED))
    scored += count
    hops: Any = 0
    cursor = 0
    worst: Any = FAR
    while cursor < size:
        key = pool[cursor]
        worst = FAR
        if slack and size >= k:
            kth = _nearness(pool[k - 1], offset, fuzz)
            granted = kth + ((max(kth - reached, 0) * REMOTE_GAIN) >> REMOTE_BITS)
            worst = kth + ((granted * (slack - (1 << SLACK_BITS))) >> SLACK_BITS) - offset
        if (key >> 32) > worst:
            break
        while size > least and (pool[size - 1] >> 32) > worst:
            size -= 1
        if size == ef:
            worst = min(worst, pool[size - 1] >> 32)
        pool[cursor] = key | 1
        hops += 1
        following = cursor + 1
        while following < size and pool[following] & 1:
            following += 1
        if following < size:
            fetch(links, (pool[following] & 0xFFFFFFFF) >> 1, LINE_LINKS)
        count, logged = _gather(links, (key & 0xFFFFFFFF) >> 1, allowed, met, ids, detours, log, logged)
        scored += count
        if worst < FAR and sketches.shape[0] > 0:
            for number in range(count):
                fetch(sketches, ids[number], LINE_BYTES)
            count = promising(sketches, norms, ids, count, query, terms, worst, out)
        for number in range(count):
            fetch(nibbles if coarse else table, ids[number], LINE_BYTES)
        if coarse:
            score_nibbles(nibbles, step, norms, ids, count, halves, terms, out)
        else:
            score(table, norms, ids, count, query, terms, out)
        count = within(ids, out, count, worst)
        size, lowest = insert(pool, size, ids, out, count)
        cursor = min(following, lowest)
        if cursor < size:
            fetch(links, (pool[cursor] & 0xFFFFFFFF) >> 1, LINE_LINKS)
    if logged <= log.shape[0]:
        for number in range(logged):
            met[_word(log[number])] = _NONE
    else:
        met[:] = _NONE
    return size, scored, hops


@kernel
def answer_graph_allowed(
    frame: AnyArray,
    queries: AnyArray,
    step: np.float32,
    reach: float,
    nibble_step: int,
    blur: int,
    metric: int,
    ef: int,
    slack: int,
    k: int,
    count: int,
    allowed: AnyArray,
    slots: AnyArray,
    distances: AnyArray,
) -> tuple[int, int, int]:
    """As ``answer_graph``, among the rows of the bit set ``allowed`` (ceil(n / 64),) uint64."""
    table, norms, sketches, nibbles = codes_of(frame)
    links = links_of(frame)
    upper_rows, upper = upper_of(frame)
    vectors, centre = vectors_of(frame)
    codes = (table, norms, nibbles, nibble_step)
    nq = queries.shape[0]
    degree = links.shape[1]
    starts = scattered(allowed, max(SCATTERED_MIN, k))
    room = max(starts.shape[0] + 2 * degree + DETOUR_NEIGHBOURS_MIN, upper[2].shape[1]) + 8
    pool = np.empty(ef, np.int64)
    ids = np.empty(room, np.int32)
    out = np.empty(room, np.int32)
    detours = np.empty(degree + 1, np.int32)
    log = np.empty(_SEEN_MAX, np.int32)
    met = np.zeros((table.shape[0] + 63) // 64, np.uint64)
    values = np.zeros(max(table.shape[1], 2 * nibbles.shape[1]), np.int8)
    query = values[: table.shape[1]]
    candidates = np.empty((nq, count), np.int32) if distances.shape[0] else slots
    total = 0
    hops = 0
    fewest = count
    for number in range(nq):
        ratio, offset = quantise_one(queries[number], centre, step, metric == 0, reach, query)
        terms = (bias_of(query), ratio, length_of(query))
        fuzz = fuzz_of(blur, terms[2])
        size, scored, steps = search_allowed(
            codes, upper_rows, upper, links, sketches, query, terms, offset, fuzz, k, slack, allowed, starts, pool,
            values, ids, out, detours, met, log, count,
        )  # fmt: skip
        total += scored
        hops += steps
        found = count_near(pool, size, k, fuzz, count)
        fewest = min(fewest, found)
        for at in range(count):
            candidates[number, at] = (pool[at] & 0xFFFFFFFF) >> 1 if at < found else -1
    if distances.shape[0]:
        rank_all(vectors, queries, candidates, metric, slots, distances)
    return fewest, total, hops
