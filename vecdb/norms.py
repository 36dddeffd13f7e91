"""Lengths of vectors, right for every finite float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.types import AnyArray, F32Array

_SQUARE_MIN, _SQUARE_MAX = np.float32(1e-20), np.float32(1e30)
"""Between these a float32 sum of squares has neither overflowed nor lost what matters to underflow."""


def is_ordinary(vector: F32Array) -> bool:
    """Whether the length of one vector can be had in float32: it is finite, not zero, and neither huge nor tiny."""
    return bool(_SQUARE_MIN < np.vdot(vector, vector) < _SQUARE_MAX)


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
