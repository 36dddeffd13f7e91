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
    """The length of one query ((dim,) or (1, dim)); 0.0 unless it is finite, not zero, and neither huge nor tiny.

    Fast, and in the last bit another on another processor: for what is not stored.
    """
    # vdot raises no floating-point warnings, whatever overflows in it.
    square = float(np.vdot(vector, vector))
    return math.sqrt(square) if _SQUARE_MIN < square < _SQUARE_MAX else 0.0


def ordinary_lengths(queries: F32Array) -> NDArray[np.float64] | None:
    """``ordinary_length`` of each row of (n, dim), n at least 1, to the last bit; ``None`` where one is 0.0."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares: F32Array = np.vecdot(queries, queries)
    if not (squares.min() > _SQUARE_MIN and squares.max() < _SQUARE_MAX):
        return None
    lengths: NDArray[np.float64] = np.sqrt(squares, dtype=np.float64)
    return lengths


def extremes(numbers: AnyArray) -> tuple[Any, Any]:
    """The least and the greatest of (n,) numbers, n at least 1; NaN where one of them is."""
    if numbers.shape[0] == 1:
        # The one query of a search: a fraction of what two reductions cost.
        return numbers[0], numbers[0]
    return numbers.min(), numbers.max()


def row_norms(values: F32Array) -> NDArray[np.float64]:
    """Euclidean length of each row of (n, dim) ``values``, (n,) float64; not finite where the row is not."""
    # einsum raises no floating-point warnings, whatever overflows in it.
    squares = np.einsum("ij,ij->i", values, values)
    if squares.shape[0]:
        least, greatest = extremes(squares)
        if least > _SQUARE_MIN and greatest < _SQUARE_MAX:
            return _roots(squares.astype(np.float64))
    # Rare: huge, tiny, zero or not finite. float64 holds the square of every float32.
    return _roots(np.einsum("ij,ij->i", values, values, dtype=np.float64, casting="unsafe"))


def _roots(squares: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(squares, out=squares)
