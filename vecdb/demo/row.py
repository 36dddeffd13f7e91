"""A point as the demo hands it in, which is what it must be when it is read back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vecdb.results.points import Point
from vecdb.types import F32Array, Payload

VECTOR_ERROR_MAX = 1e-5
"""``get`` returns a vector to float32 rounding: under cosine it is stored normalised, beside its length."""


@dataclass(frozen=True, slots=True)
class Row:
    """Id, payload and vector ((dim,) float32)."""

    id: str
    payload: Payload
    vector: F32Array

    def revised(self, revision: int) -> Row:
        """This row after its ``revision``-th rewriting: another payload, and another vector of the same length."""
        return Row(self.id, {**self.payload, "revision": revision}, np.roll(self.vector, revision))

    def is_stored_as(self, point: Point | None) -> bool:
        """Whether ``point`` holds exactly this payload, and this vector to rounding."""
        return (
            point is not None
            and point.vector is not None
            and point.payload == self.payload
            and bool(np.allclose(point.vector, self.vector, rtol=0.0, atol=VECTOR_ERROR_MAX))
        )
