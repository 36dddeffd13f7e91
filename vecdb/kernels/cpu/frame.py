"""What a graph consists of, as one array of addresses and shapes.

Handing a dozen arrays to compiled code one by one takes longer than a hop, so a kernel that answers a search takes the
*frame* of a graph and opens it itself. Whoever makes a frame holds the arrays: their addresses are all that is in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from vecdb.kernels.cpu.cache import inlined
from vecdb.kernels.cpu.intrinsics import pointer_of
from vecdb.types import AnyArray, I64Array

FRAMED = (
    "table", "norms", "sketches", "nibbles", "links",
    "upper_rows", "upper_table", "upper_norms", "upper_links", "level_starts",
    "vectors", "centre",
)  # fmt: skip
"""The arrays of a frame, in order; three numbers each: address, rows, columns (of one row where it is flat)."""


def framed(arrays: tuple[AnyArray, ...]) -> I64Array:
    """The frame of these arrays, which are those of ``FRAMED``."""
    assert len(arrays) == len(FRAMED), (len(arrays), FRAMED)
    frame = np.array(
        [(each.ctypes.data, *(each.shape if each.ndim == 2 else (1, each.shape[0]))) for each in arrays], np.int64
    )
    frame.flags.writeable = False
    return frame


@inlined
def _bytes(frame: AnyArray, number: int) -> Any:
    return carray(pointer_of(frame[number, 0]), (frame[number, 1], frame[number, 2]), np.uint8)


@inlined
def _integers(frame: AnyArray, number: int) -> Any:
    return carray(pointer_of(frame[number, 0]), (frame[number, 1], frame[number, 2]), np.int32)


@inlined
def _longs(frame: AnyArray, number: int) -> Any:
    return carray(pointer_of(frame[number, 0]), (frame[number, 1], frame[number, 2]), np.int64)


@inlined
def _floats(frame: AnyArray, number: int) -> Any:
    return carray(pointer_of(frame[number, 0]), (frame[number, 1], frame[number, 2]), np.float32)


@inlined
def codes_of(frame: AnyArray) -> tuple[Any, Any, Any, Any]:
    """Code table, norms, sketches and nibbles."""
    return _bytes(frame, 0), _integers(frame, 1)[0], _bytes(frame, 2), _bytes(frame, 3)


@inlined
def links_of(frame: AnyArray) -> Any:
    """The links of the bottom layer."""
    return _integers(frame, 4)


@inlined
def upper_of(frame: AnyArray) -> tuple[Any, Any]:
    """The rows of the upper layers, and these layers as ``vecdb.kernels.cpu.graph.descend`` takes them."""
    layers = (_bytes(frame, 6), _integers(frame, 7)[0], _integers(frame, 8), _longs(frame, 9)[0])
    return _integers(frame, 5)[0], layers


@inlined
def vectors_of(frame: AnyArray) -> tuple[Any, Any]:
    """The vectors that the codes were made of, and the centre of the codes."""
    return _floats(frame, 10), _floats(frame, 11)[0]
