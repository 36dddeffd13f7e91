"""The k smallest keys of a stream, in a binary heap whose root is the largest kept.

A key is an int64: a distance in the upper half, a row in the lower, so one comparison orders by (distance, row).
Float32 distances are mapped to int32 of the same order first. A heap starts full of ``EMPTY``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels.cpu.cache import part
from vecdb.kernels.cpu.intrinsics import bits_of, float_of, lowest_bit
from vecdb.types import AnyArray

EMPTY = np.int64(0x7FFF_FFFF_FFFF_FFFF)
"""Larger than every key: marks what was not found."""

_LOW = np.int64(0xFFFF_FFFF)
_MANTISSA = np.int32(0x7FFF_FFFF)


@part
def key_of(distance: np.float32, row: Any) -> Any:
    """Key of a float32 distance."""
    bits = bits_of(np.float32(distance + np.float32(0)))  # minus zero becomes zero
    bits ^= (bits >> np.int32(31)) & _MANTISSA
    return (np.int64(bits) << 32) | np.int64(row)


@part
def distance_of(key: Any) -> Any:
    """The float32 distance in a key."""
    bits = np.int32(key >> 32)
    bits ^= (bits >> np.int32(31)) & _MANTISSA
    return float_of(bits)


@part
def row_of(key: Any) -> Any:
    """The row in a key."""
    return key & _LOW


@part
def sink(heap: AnyArray, size: int, key: int) -> None:
    """Replace the root of the first ``size`` keys by ``key`` and restore the order."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= key:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = key


@part
def sort_heap(heap: AnyArray) -> None:
    """Turn a heap into an ascending array."""
    for last in range(heap.shape[0] - 1, 0, -1):
        largest = heap[0]
        moved = heap[last]
        sink(heap, last, moved)
        heap[last] = largest


@part
def count_bits(word: Any) -> Any:
    """Bits set in a word of 64."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@part
def allowed_rows(allowed: AnyArray, filtered: bool, n: int, cursor: int, ids: AnyArray) -> tuple[int, int]:
    """Fill ``ids`` with the next allowed rows from ``cursor`` on; returns how many, and the next cursor."""
    count = 0
    room = ids.shape[0]
    if not filtered:
        while count < room and cursor < n:
            ids[count] = cursor
            count += 1
            cursor += 1
        return count, cursor
    while cursor < n:
        word = allowed[cursor >> 6] >> np.uint64(cursor & 63)
        while word != np.uint64(0):
            row = cursor + lowest_bit(word)
            if count == room:
                return count, row
            ids[count] = row
            count += 1
            word &= word - np.uint64(1)
        cursor = ((cursor >> 6) + 1) << 6
    return count, cursor
