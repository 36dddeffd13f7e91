"""Byte codes and sketches: encoding rows and queries.

The same arithmetic as ``vecdb.kernels.reference``, operation by operation in float32, so that codes are the same bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels.arrays import OFFSET_MAX, RATIO_BITS, UNIT_MIN
from vecdb.kernels.cpu.cache import exact_kernel, exact_part, kernel, part
from vecdb.types import AnyArray

_LARGEST = np.float32(np.finfo(np.float32).max)
_SMALLEST = np.float32(UNIT_MIN)
_OFFSET_MAX = np.float64(OFFSET_MAX)


@exact_kernel
def encode(vectors: AnyArray, centre: AnyArray, step: np.float32, table: AnyArray, norms: AnyArray) -> None:
    """Write the code of every row into ``table`` (n, stride) and its squared norm into ``norms`` (n,)."""
    dim = vectors.shape[1]
    scale = np.float32(1) / step
    for row in range(vectors.shape[0]):
        source = vectors[row]
        target = table[row]
        norm = np.int32(0)
        for j in range(dim):
            code = np.rint(np.float32(np.float32(source[j] - centre[j]) * scale))
            level = np.int32(min(max(code, np.float32(-127)), np.float32(127)))
            norm += level * level
            target[j] = np.uint8(level + 128)
        for j in range(dim, target.shape[0]):
            target[j] = np.uint8(128)
        norms[row] = norm


@exact_part
def quantise_one(
    source: AnyArray, centre: AnyArray, step: np.float32, weighted: bool, reach: float, target: AnyArray
) -> tuple[Any, Any]:
    """Write a query's code into ``target`` (stride,); returns its ratio and its offset.

    ``weighted`` for L2. ``reach`` is negative but for dot.
    """
    dim = source.shape[0]
    largest = np.float32(0)
    for j in range(dim):
        y = np.float32(source[j] - centre[j]) if weighted else source[j]
        largest = max(largest, abs(y))
    unit = np.float32(min(largest, _LARGEST) / np.float32(127))
    ratio = np.int64(0)
    if weighted:
        unit = max(unit, step)
        ratio = np.int64(np.rint(np.float64(step) / (2.0 * np.float64(unit)) * (1 << RATIO_BITS)))
    else:
        unit = unit if unit > _SMALLEST else np.float32(1)
    scale = np.float32(1) / unit
    for j in range(dim):
        y = np.float32(source[j] - centre[j]) if weighted else source[j]
        code = np.rint(np.float32(y * scale))
        target[j] = np.int8(min(max(code, np.float32(-127)), np.float32(127)))
    for j in range(dim, target.shape[0]):
        target[j] = np.int8(0)
    length = np.int64(0)
    shift = np.float64(0)
    for j in range(dim):
        length += np.int64(target[j]) * np.int64(target[j])
        shift += np.float64(centre[j]) * np.float64(target[j])
    if weighted:
        offset = np.float64(unit) / np.float64(step) * np.float64(length) / 2.0
    elif reach >= 0.0:
        offset = np.sqrt(np.float64(length)) * reach
    else:
        offset = (1.0 / np.float64(unit) - shift) / np.float64(step)
    return ratio, np.int64(np.rint(min(max(offset, 0.0), _OFFSET_MAX)))


@exact_kernel
def quantise(
    queries: AnyArray,
    centre: AnyArray,
    step: np.float32,
    weighted: bool,
    reach: float,
    values: AnyArray,
    ratios: AnyArray,
    offsets: AnyArray,
) -> None:
    """Write each query's code into ``values`` (nq, stride), what goes with it into ``ratios`` and ``offsets`` (nq,)."""
    for query in range(queries.shape[0]):
        ratios[query], offsets[query] = quantise_one(queries[query], centre, step, weighted, reach, values[query])


@kernel
def sketch(table: AnyArray, dim: int, sketches: AnyArray, fields: AnyArray) -> None:
    """Write the sign bits of every row into ``sketches``, and its factor and error into the int32 view ``fields``."""
    stride = table.shape[1]
    last = fields.shape[1]
    for row in range(table.shape[0]):
        codes = table[row]
        bits = sketches[row]
        norm = np.int64(0)
        size = np.int64(0)
        for j in range(stride):
            level = np.int64(codes[j]) - 128
            norm += level * level
            size += abs(level)
        for octet in range(stride >> 3):
            word = np.uint8(0)
            for bit in range(8):
                word |= (codes[(octet << 3) + bit] >> np.uint8(7)) << np.uint8(bit)
            bits[octet] = word
        for octet in range(stride >> 3, bits.shape[0]):
            bits[octet] = 0
        factor = (norm << 8) // max(size, np.int64(1))
        square = (factor * factor - (norm << 16) // dim) >> 8
        fields[row, last - 2] = factor
        fields[row, last - 1] = np.int64(np.sqrt(np.float64(max(square, np.int64(0)))))


@part
def bias_of(query: AnyArray) -> Any:
    """What ``dot(code, query)`` exceeds ``dot(code - 128, query)`` by."""
    total = np.int64(0)
    for j in range(query.shape[0]):
        total += query[j]
    return total * 128


@part
def length_of(query: AnyArray) -> Any:
    """Euclidean length of a query's code, rounded down."""
    total = np.int64(0)
    for j in range(query.shape[0]):
        total += np.int64(query[j]) * np.int64(query[j])
    return np.int64(np.sqrt(np.float64(total)))
