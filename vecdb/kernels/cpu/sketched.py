"""Scan of the allowed rows by sketch, and by code where the sketch leaves it open whether a row is near enough.

A sketch is a cache line, a row of codes several; of most rows nothing but the sketch is read.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.arrays import SCAN_BLOCK_ROWS, SCAN_MARGIN, SKETCH_MARGIN
from vecdb.kernels.cpu.cache import kernel
from vecdb.kernels.cpu.graph import FAR, LINE_BYTES, fetch, promising, score
from vecdb.kernels.cpu.quantise import bias_of, length_of
from vecdb.kernels.cpu.selection import EMPTY, allowed_rows, row_of, sink, sort_heap
from vecdb.types import AnyArray

_WIDER = SCAN_MARGIN // SKETCH_MARGIN


@kernel
def scan_sketched(
    table: AnyArray,
    norms: AnyArray,
    sketches: AnyArray,
    fields: AnyArray,
    values: AnyArray,
    ratios: AnyArray,
    allowed: AnyArray,
    filtered: bool,
    slots: AnyArray,
) -> int:
    """Write the rows nearest by integer distance into ``slots`` (nq, count); returns the number of rows looked at."""
    n = table.shape[0]
    nq, width = slots.shape
    heaps = np.full((nq, width), EMPTY, np.int64)
    ids = np.empty(SCAN_BLOCK_ROWS, np.int32)
    kept = np.empty(SCAN_BLOCK_ROWS + 4, np.int32)
    out = np.empty(SCAN_BLOCK_ROWS + 4, np.int32)
    biases = np.empty(nq, np.int64)
    lengths = np.empty(nq, np.int64)
    for query in range(nq):
        biases[query] = bias_of(values[query])
        lengths[query] = length_of(values[query])
    cursor = 0
    looked_at = 0
    while True:
        count, cursor = allowed_rows(allowed, filtered, n, cursor, ids)
        if count == 0:
            break
        looked_at += count * nq
        for number in range(count):
            fetch(sketches, ids[number], LINE_BYTES)
        for query in range(nq):
            line = values[query]
            heap = heaps[query]
            terms = (biases[query], ratios[query], lengths[query] * _WIDER)
            worst = min(heap[0] >> 32, FAR)
            kept[:count] = ids[:count]
            near = promising(sketches, fields, norms, kept, count, line, terms, worst, out) if worst < FAR else count
            for number in range(near):
                fetch(table, kept[number], LINE_BYTES)
            score(table, norms, kept, near, line, terms, out)
            for number in range(near):
                key = (np.int64(out[number]) << 32) | np.int64(kept[number])
                if key < heap[0]:
                    sink(heap, width, key)
    for query in range(nq):
        heap = heaps[query]
        sort_heap(heap)
        for number in range(width):
            slots[query, number] = -1 if heap[number] == EMPTY else row_of(heap[number])
    return looked_at
