"""A whole scan of a code table, from float32 queries to ranked rows: all by their codes, the nearest by their vectors.

Rows are read once per block for all queries of a call. Those that a filter allows are where no hardware expects the
next one to be, so they are asked for ahead.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels.arrays import BLUR_ONE, SCANNED_BEYOND, SCANNED_BLURS, SCANNED_FACTOR
from vecdb.kernels.cpu.cache import inlined, kernel
from vecdb.kernels.cpu.frame import codes_of, vectors_of
from vecdb.kernels.cpu.graph import LINE_BYTES, count_near, fetch, score, score_nibbles
from vecdb.kernels.cpu.quantise import bias_of, length_of, quantise_one
from vecdb.kernels.cpu.scan import rank_all, scan_all
from vecdb.kernels.cpu.selection import EMPTY, allowed_rows, row_of, sink, sort_heap
from vecdb.types import AnyArray

_BLOCK_ROWS = 256
_STEP_ROWS = 32

_BIAS, _RATIO, _LENGTH = range(3)


@inlined
def _look(
    codes: Any, ids: AnyArray, first: int, count: int, query: AnyArray, terms: AnyArray, heap: AnyArray,
    some: AnyArray, out: AnyArray,
) -> None:  # fmt: skip
    """Score ``count`` of ``ids`` and keep the nearest in ``heap``."""
    table, norms, nibbles, step = codes
    for number in range(count):
        some[number] = ids[first + number]
    asked = (terms[_BIAS], terms[_RATIO], terms[_LENGTH])
    if nibbles.shape[0]:
        score_nibbles(nibbles, step, norms, some, count, query, asked, out)
    else:
        score(table, norms, some, count, query[: table.shape[1]], asked, out)
    worst = heap[0] >> 32
    for number in range(count):
        # Seldom, once the heap is full: comparing whole keys would take longer than this.
        if out[number] <= worst:
            key = (np.int64(out[number]) << 32) | np.int64(some[number])
            if key < heap[0]:
                sink(heap, heap.shape[0], key)
                worst = heap[0] >> 32


@kernel
def answer_scan(
    frame: AnyArray,
    queries: AnyArray,
    step: np.float32,
    reach: float,
    nibble_step: int,
    blur: int,
    metric: int,
    k: int,
    count: int,
    allowed: AnyArray,
    filtered: bool,
    slots: AnyArray,
    distances: AnyArray,
) -> tuple[int, int]:
    """Write the allowed rows nearest to each of ``queries`` (nq, dim) into ``slots`` and ``distances`` (nq, k).

    At most ``count`` rows are ranked by their vectors, or all where codes cannot tell which are the nearest. Where
    ``distances`` has no rows nothing is ranked: ``slots`` (nq, count) are the rows found, nearest first. Returns the
    least number of rows found for a query, and distances computed.
    """
    table, norms, _, nibbles = codes_of(frame)
    vectors, centre = vectors_of(frame)
    codes = (table, norms, nibbles, nibble_step)
    nq = queries.shape[0]
    values = np.zeros((nq, max(table.shape[1], 2 * nibbles.shape[1])), np.int8)
    terms = np.empty((nq, 3), np.int64)
    for query in range(nq):
        narrow = values[query, : table.shape[1]]
        terms[query, _RATIO], _ = quantise_one(queries[query], centre, step, metric == 0, reach, narrow)
        terms[query, _BIAS], terms[query, _LENGTH] = bias_of(narrow), length_of(narrow)
    heaps = np.full((nq, count), EMPTY, np.int64)
    ids = np.empty(_BLOCK_ROWS, np.int32)
    some = np.empty(_STEP_ROWS + 4, np.int32)
    out = np.empty(_STEP_ROWS + 4, np.int32)
    cursor = 0
    rows = 0
    while True:
        here, cursor = allowed_rows(allowed, filtered, table.shape[0], cursor, ids)
        if here == 0:
            break
        rows += here
        for number in range(min(here, _STEP_ROWS)):
            fetch(nibbles if nibbles.shape[0] else table, ids[number], LINE_BYTES)
        for query in range(nq):
            line, asked, heap = values[query], terms[query], heaps[query]
            for first in range(0, here, _STEP_ROWS):
                for number in range(first + _STEP_ROWS, min(first + 2 * _STEP_ROWS, here) if query == 0 else 0):
                    fetch(nibbles if nibbles.shape[0] else table, ids[number], LINE_BYTES)
                _look(codes, ids, first, min(_STEP_ROWS, here - first), line, asked, heap, some, out)
    candidates = np.empty((nq, count), np.int32) if distances.shape[0] else slots
    fewest = count
    for query in range(nq):
        heap = heaps[query]
        sort_heap(heap)
        fuzz = SCANNED_BLURS * blur * terms[query, _LENGTH] // BLUR_ONE
        found = count_near(heap, min(count, rows), k, fuzz, count)
        found = max(found, min(count, rows, max(SCANNED_FACTOR * k, k + SCANNED_BEYOND)))
        fewest = min(fewest, found)
        for number in range(count):
            candidates[query, number] = row_of(heap[number]) if number < found else -1
    if distances.shape[0]:
        rank_all(vectors, queries, candidates, metric, slots, distances)
        for query in range(nq if count < rows else 0):
            if candidates[query, count - 1] >= 0:
                one = slice(query, query + 1)
                scan_all(vectors, queries[one], metric, allowed, filtered, slots[one], distances[one])
    return fewest, rows * nq
