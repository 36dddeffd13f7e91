"""Whole searches of an HNSW graph, from float32 queries to ranked rows, several queries in step with each other.

The bottom layer is searched best first (Malkov and Yashunin 2018, algorithm 2) by integer distances only. A hop waits
for memory three times: for links, for sketches, for codes. So a few queries take each of these stages in turn: while
the lines of one are on their way, another computes. What a query finds does not depend on those it shares a call with.

A walk keeps one sorted array of 64-bit keys (distance, row, expanded) instead of two heaps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels.cpu.cache import inlined, kernel
from vecdb.kernels.cpu.frame import codes_of, links_of, upper_of, vectors_of
from vecdb.kernels.cpu.graph import (
    FAR,
    LINE_BYTES,
    LINE_LINKS,
    bound,
    collect,
    count_near,
    descend,
    fetch,
    fetch_ahead,
    fuzz_of,
    insert,
    promising,
    score,
    score_nibbles,
    within,
)
from vecdb.kernels.cpu.quantise import bias_of, length_of, quantise_one
from vecdb.kernels.cpu.scan import rank_all
from vecdb.types import AnyArray

LANES = 8
"""Queries in step. More gain little and take more of the innermost cache."""

_WORDS_WIPED = 4096
"""A set of met rows of at most so many words is wiped as a whole: that takes less than to remember who is in it."""

_SEEN_MAX = 1024
"""Of a larger one, up to so many rows are taken out one by one."""

_QUERY, _SIZE, _CURSOR, _FOLLOWING, _SCORED, _COUNT, _WORST, _HOPS = range(8)
_BIAS, _RATIO, _LENGTH, _OFFSET, _FUZZ = range(8, 13)
_FIELDS = 13
"""What is known of the query in a lane. ``_QUERY`` is -1 where there is none."""


@inlined
def _row(key: Any) -> Any:
    return (key & 0xFFFFFFFF) >> 1


@inlined
def _terms(lane: AnyArray) -> tuple[Any, Any, Any]:
    return lane[_BIAS], lane[_RATIO], lane[_LENGTH]


@inlined
def _score(codes: Any, ids: AnyArray, count: int, query: AnyArray, lane: AnyArray, out: AnyArray) -> None:
    """Integer distances, by nibbles where there are any."""
    table, norms, nibbles, step = codes
    if nibbles.shape[0]:
        score_nibbles(nibbles, step, norms, ids, count, query, _terms(lane), out)
    else:
        score(table, norms, ids, count, query[: table.shape[1]], _terms(lane), out)


@inlined
def _over(k: int, slack: Any, lane: AnyArray, pool: AnyArray) -> bool:
    """Whether the walk has ended; sets the distance beyond which nothing is of use."""
    if lane[_CURSOR] >= lane[_SIZE]:
        return True
    worst = bound(pool, lane[_SIZE], k, slack, lane[_OFFSET], lane[_FUZZ])
    lane[_WORST] = worst
    return bool((pool[lane[_CURSOR]] >> 32) > worst)


@inlined
def _expand(
    sketches: AnyArray, links: AnyArray, least: int, lane: AnyArray, pool: AnyArray, ids: AnyArray, met: AnyArray,
    seen: AnyArray,
) -> None:  # fmt: skip
    """Take the nearest row not expanded, collect its neighbours and ask for their sketches."""
    size, cursor, worst = lane[_SIZE], lane[_CURSOR], lane[_WORST]
    # What lies beyond the bound is never expanded; without it insertion has less to move.
    while size > least and (pool[size - 1] >> 32) > worst:
        size -= 1
    lane[_SIZE] = size
    if size == pool.shape[0]:
        lane[_WORST] = min(worst, pool[size - 1] >> 32)
    key = pool[cursor]
    pool[cursor] = key | 1
    following = cursor + 1
    while following < size and pool[following] & 1:
        following += 1
    lane[_FOLLOWING] = following
    if following < size:
        fetch(links, _row(pool[following]), LINE_LINKS)
    count = collect(links[_row(key)], ids, met)
    scored = lane[_SCORED]
    if met.shape[0] > _WORDS_WIPED and scored + count <= _SEEN_MAX:
        for number in range(count):
            seen[scored + number] = ids[number]
    lane[_SCORED] = scored + count
    lane[_COUNT] = count
    lane[_HOPS] += 1
    if lane[_WORST] < FAR and sketches.shape[0]:
        for number in range(count):
            fetch(sketches, ids[number], LINE_BYTES)


@inlined
def _sift(
    codes: Any, sketches: AnyArray, links: AnyArray, ahead: bool, query: AnyArray, lane: AnyArray, pool: AnyArray,
    ids: AnyArray, out: AnyArray,
) -> None:  # fmt: skip
    """Give up the neighbours whose sketch is too far and ask for the codes of the rest."""
    table, norms, nibbles, _ = codes
    count = lane[_COUNT]
    if lane[_WORST] < FAR and sketches.shape[0]:
        count = promising(sketches, norms, ids, count, query[: table.shape[1]], _terms(lane), lane[_WORST], out)
        lane[_COUNT] = count
    for number in range(count):
        fetch(nibbles if nibbles.shape[0] else table, ids[number], LINE_BYTES)
    following = lane[_FOLLOWING]
    if ahead and following < lane[_SIZE] and sketches.shape[0]:
        fetch_ahead(links[_row(pool[following])], sketches)


@inlined
def _keep(
    codes: Any, links: AnyArray, query: AnyArray, lane: AnyArray, pool: AnyArray, ids: AnyArray, out: AnyArray
) -> None:
    """Score the neighbours left, insert those within the bound and ask for the links of the next row."""
    count = lane[_COUNT]
    _score(codes, ids, count, query, lane, out)
    count = within(ids, out, count, lane[_WORST])
    size, lowest = insert(pool, lane[_SIZE], ids, out, count)
    cursor = min(lane[_FOLLOWING], lowest)
    lane[_SIZE] = size
    lane[_CURSOR] = cursor
    if cursor < size:
        fetch(links, _row(pool[cursor]), LINE_LINKS)


@inlined
def _clear(lane: AnyArray, met: AnyArray, seen: AnyArray) -> None:
    """Leave no row met."""
    if met.shape[0] > _WORDS_WIPED and lane[_SCORED] <= _SEEN_MAX:
        for number in range(lane[_SCORED]):
            met[seen[number] >> 6] = np.uint64(0)
    else:
        met[:] = np.uint64(0)


@kernel
def answer_graph(
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
    slots: AnyArray,
    distances: AnyArray,
) -> tuple[int, int, int]:
    """Write the rows nearest to each of ``queries`` (nq, dim) into ``slots`` and ``distances`` (nq, k).

    At most ``count`` rows are ranked by their vectors. ``blur`` is that of ``Nibbles``, ``reach`` is negative but for
    dot. Where ``distances`` has no rows nothing is ranked: ``slots`` (nq, count) are the rows found, nearest first.
    Returns the least number of rows found for a query, distances computed and hops.
    """
    table, norms, sketches, nibbles = codes_of(frame)
    links = links_of(frame)
    upper_rows, upper = upper_of(frame)
    vectors, centre = vectors_of(frame)
    codes = (table, norms, nibbles, nibble_step)

    nq = queries.shape[0]
    lanes = min(LANES, nq)
    # One query alone has nothing else to do while it waits: it asks for what it may need next.
    ahead = lanes == 1
    room = max(links.shape[1], upper[2].shape[1]) + 4
    state = np.full((lanes, _FIELDS), -1, np.int64)
    pools = np.empty((lanes, ef), np.int64)
    all_ids = np.empty((lanes, room), np.int32)
    all_out = np.empty((lanes, room), np.int32)
    all_met = np.zeros((lanes, (table.shape[0] + 63) // 64), np.uint64)
    all_seen = np.empty((lanes, _SEEN_MAX), np.int32)
    values = np.zeros((lanes, max(table.shape[1], 2 * nibbles.shape[1])), np.int8)
    # Ranked when all walks are done: vectors would drive what walks share out of the caches.
    candidates = np.empty((nq, count), np.int32) if distances.shape[0] else slots
    begun = 0
    finished = 0
    scored = 0
    hops = 0
    fewest = count
    while finished < nq:
        for at in range(lanes):
            lane, pool, ids, out = state[at], pools[at], all_ids[at], all_out[at]
            query, met, seen = values[at], all_met[at], all_seen[at]
            while True:
                number = lane[_QUERY]
                if number >= 0:
                    if not _over(k, slack, lane, pool):
                        break
                    _clear(lane, met, seen)
                    scored += lane[_SCORED]
                    hops += lane[_HOPS]
                    found = count_near(pool, lane[_SIZE], k, lane[_FUZZ], count)
                    for place in range(count):
                        candidates[number, place] = _row(pool[place]) if place < found else -1
                    fewest = min(fewest, found)
                    finished += 1
                    lane[_QUERY] = -1
                if begun == nq:
                    break
                lane[_QUERY] = begun
                narrow = query[: table.shape[1]]
                ratio, offset = quantise_one(queries[begun], centre, step, metric == 0, reach, narrow)
                lane[_BIAS], lane[_LENGTH] = bias_of(query), length_of(query)
                lane[_RATIO], lane[_OFFSET] = ratio, offset
                lane[_FUZZ] = fuzz_of(blur, lane[_LENGTH])
                begun += 1
                place, more = descend(upper, narrow, _terms(lane), ids, out)
                scored += more
                ids[0], ids[1] = upper_rows[place], upper_rows[0]
                entries = 1 if ids[0] == ids[1] else 2
                for number in range(entries):
                    node = ids[number]
                    met[node >> 6] |= np.uint64(1) << np.uint64(node & 63)
                    seen[number] = node
                lane[_SCORED] = lane[_COUNT] = entries
                lane[_SIZE] = lane[_FOLLOWING] = lane[_HOPS] = 0
                lane[_WORST] = FAR
                _keep(codes, links, query, lane, pool, ids, out)
            if lane[_QUERY] >= 0:
                _expand(sketches, links, count, lane, pool, ids, met, seen)
        for at in range(lanes):
            if state[at, _QUERY] >= 0:
                _sift(codes, sketches, links, ahead, values[at], state[at], pools[at], all_ids[at], all_out[at])
        for at in range(lanes):
            if state[at, _QUERY] >= 0:
                _keep(codes, links, values[at], state[at], pools[at], all_ids[at], all_out[at])
    if distances.shape[0]:
        rank_all(vectors, queries, candidates, metric, slots, distances)
    return fewest, scored, hops
