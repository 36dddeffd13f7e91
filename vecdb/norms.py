"""Lengths of vectors, right for every finite float32."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.types import AnyArray, F32Array

_SQUARE_MIN, _SQUARE_MAX = 1e-20, 1e30
"""Between these a float32 sum of squares has neither overflowed nor lost what matters to underflow."""


def ordinary_length(vector: F32Array) -> float:
    """The length of one vector ((dim,) or (1, dim)); 0.0 unless it is finite, not zero, and neither huge nor tiny.

    The same as among others: a query gets the same answer alone and in a batch.
    """
    # vdot raises no floating-point warnings, whatever overflows in it.
    square = float(np.vdot(vector, vector))
    return math.sqrt(square) if _SQUARE_MIN < square < _SQUARE_MAX else 0.0


def extremes(numbers: AnyArray) -> tuple[Any, Any]:
    """The least and the greatest of (n,) numbers, n at least 1; NaN where one of them is."""
    if numbers.shape[0] == 1:
        # The one query of a search: a fraction of what two reductions cost.
        return numbers[0], numbers[0]
    return numbers.min(), numbers.max()


def row_norms(values: F32Array) -> NDArray[np.float64]:
    """Euclidean length of each row of (n, dim) ``values``, (n,) float64; not finite where the row is not."""
    if values.shape[0] == 1:
        length = ordinary_length(values)
        if length:
            return np.array([length])
    elif values.shape[0]:
        with np.errstate(over="ignore"):
            squares: F32Array = np.vecdot(values, values)
        if squares.min() > _SQUARE_MIN and squares.max() < _SQUARE_MAX:
            lengths: NDArray[np.float64] = np.sqrt(squares, dtype=np.float64)
            return lengths
    # Rare: huge, tiny, zero or not finite. float64 holds the square of every float32.
    exact: NDArray[np.float64] = np.einsum("ij,ij->i", values, values, dtype=np.float64, casting="unsafe")
    return np.sqrt(exact, out=exact)
