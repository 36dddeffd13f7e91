"""Exact float32 search: all rows or the allowed ones against a batch of queries, and reranking of candidates.

Rows are read once per block for all queries of the batch. Both kernels score a pair of vectors by the same instructions
in the same order, so they report the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels.cpu.cache import kernel, part
from vecdb.kernels.cpu.intrinsics import dot_tile_1, dot_tile_many, l2_tile_1, l2_tile_many, prefetch
from vecdb.kernels.cpu.selection import EMPTY, allowed_rows, distance_of, key_of, row_of, sink, sort_heap
from vecdb.kernels.cpu.target import TARGET
from vecdb.types import AnyArray

L2 = 0
DOT = 1
COSINE = 2
_BLOCK_ROWS = 64
_TILE = TARGET.query_tile
_LINE_FLOATS = 16
_AHEAD_ROWS = 12
_AHEAD_BYTES = 24 * 1024
"""So many vectors, or so much of them, are on their way while others are compared: about what a core can wait for."""


@part
def _distance(value: np.float32, metric: int) -> np.float32:
    if metric == L2:
        return value
    if metric == DOT:
        return -value
    return np.float32(1) - value


@part
def _report(heap: AnyArray, slots: AnyArray, distances: AnyArray) -> None:
    """Sort a heap of keys and write it as one line of a result."""
    sort_heap(heap)
    for number in range(heap.shape[0]):
        key = heap[number]
        if key == EMPTY:
            slots[number] = -1
            distances[number] = np.float32(np.inf)
        else:
            slots[number] = row_of(key)
            distances[number] = distance_of(key)


@part
def scan_all(
    vectors: AnyArray,
    queries: AnyArray,
    metric: int,
    allowed: AnyArray,
    filtered: bool,
    slots: AnyArray,
    distances: AnyArray,
) -> None:
    """Write the nearest allowed rows of every query into ``slots`` and ``distances`` (nq, k)."""
    n = vectors.shape[0]
    nq, k = slots.shape
    heaps = np.full((nq, k), EMPTY, np.int64)
    ids = np.empty(_BLOCK_ROWS, np.int32)
    out = np.empty(4 * max(_TILE, 1), np.float32)
    cursor = 0
    while True:
        count, cursor = allowed_rows(allowed, filtered, n, cursor, ids)
        if count == 0:
            break
        for spare in range(count, min((count + 3) & ~3, _BLOCK_ROWS)):
            ids[spare] = ids[count - 1]  # a whole tile, whose surplus is not looked at
        query = 0
        while query < nq:
            width = _TILE if query + _TILE <= nq else 1
            for at in range(0, count, 4):
                if width > 1:
                    if metric == L2:
                        l2_tile_many(vectors, ids, at, queries, query, out)
                    else:
                        dot_tile_many(vectors, ids, at, queries, query, out)
                elif metric == L2:
                    l2_tile_1(vectors, ids, at, queries, query, out)
                else:
                    dot_tile_1(vectors, ids, at, queries, query, out)
                for column in range(width):
                    heap = heaps[query + column]
                    for row in range(min(4, count - at)):
                        key = key_of(_distance(out[row * width + column], metric), ids[at + row])
                        if key < heap[0]:
                            sink(heap, k, key)
            query += width
    for query in range(nq):
        _report(heaps[query], slots[query], distances[query])


@kernel
def scan_topk(
    vectors: AnyArray,
    queries: AnyArray,
    metric: int,
    allowed: AnyArray,
    filtered: bool,
    slots: AnyArray,
    distances: AnyArray,
) -> None:
    """``scan_all``, as a kernel."""
    scan_all(vectors, queries, metric, allowed, filtered, slots, distances)


@part
def fetch_row(vectors: AnyArray, row: int) -> None:
    """Ask for a vector."""
    dim = vectors.shape[1]
    start = np.int64(row) * dim
    for line in range(0, dim, _LINE_FLOATS):
        prefetch(vectors, start + line)


@part
def rank_all(
    vectors: AnyArray, queries: AnyArray, candidates: AnyArray, metric: int, slots: AnyArray, distances: AnyArray
) -> None:
    """Write the nearest of each line of ``candidates`` (nq, c), -1 skipped, to ``slots`` and ``distances`` (nq, k)."""
    nq, k = slots.shape
    width = candidates.shape[1]
    rows = np.empty(width + 4, np.int32)
    out = np.empty(4, np.float32)
    heap = np.empty(k, np.int64)
    ahead = min(max(_AHEAD_BYTES // (4 * vectors.shape[1]), 4), _AHEAD_ROWS)
    # What is asked for ahead goes on from one query to the next: where it stands, and how many rows it is ahead.
    query_asked: Any = 0
    column_asked: Any = 0
    asked: Any = 0
    for query in range(nq):
        count: Any = 0
        for number in range(width):
            row = candidates[query, number]
            rows[count] = row
            count += np.int64(row >= 0)
        for spare in range(count, (count + 3) & ~3):
            rows[spare] = rows[count - 1]  # a whole tile, whose surplus is not looked at
        heap[:] = EMPTY
        for at in range(0, count, 4):
            while asked < ahead and query_asked < nq:
                if column_asked == width:
                    query_asked += 1
                    column_asked = 0
                    continue
                row = candidates[query_asked, column_asked]
                column_asked += 1
                if row >= 0:
                    fetch_row(vectors, row)
                    asked += 1
            if metric == L2:
                l2_tile_1(vectors, rows, at, queries, query, out)
            else:
                dot_tile_1(vectors, rows, at, queries, query, out)
            size = min(4, count - at)
            asked -= size
            for number in range(size):
                key = key_of(_distance(out[number], metric), rows[at + number])
                if key < heap[0]:
                    sink(heap, k, key)
        _report(heap, slots[query], distances[query])


@kernel
def rerank(
    vectors: AnyArray, queries: AnyArray, candidates: AnyArray, metric: int, slots: AnyArray, distances: AnyArray
) -> None:
    """``rank_all``, as a kernel."""
    rank_all(vectors, queries, candidates, metric, slots, distances)


@kernel
def merge(
    slots: AnyArray,
    distances: AnyArray,
    merged_sources: AnyArray,
    merged_slots: AnyArray,
    merged_distances: AnyArray,
) -> None:
    """Merge the sorted runs of length k that each line of ``slots`` and ``distances`` (nq, runs * k) consists of."""
    nq, k = merged_slots.shape
    runs = slots.shape[1] // k
    heads = np.empty(runs, np.int64)
    for query in range(nq):
        heads[:] = 0
        for place in range(k):
            source = -1
            nearest = np.float32(np.inf)
            for run in range(runs):
                at = run * k + heads[run]
                if heads[run] < k and slots[query, at] >= 0 and (source < 0 or distances[query, at] < nearest):
                    source = run
                    nearest = distances[query, at]
            merged_sources[query, place] = source
            merged_distances[query, place] = nearest
            merged_slots[query, place] = -1
            if source >= 0:
                merged_slots[query, place] = slots[query, source * k + heads[source]]
                heads[source] += 1
