"""The vectors of one field as search sees them: normalised under cosine, with the row of each slot.

A point may lack the vector of a field; then slots are fewer than rows and ``slot_rows`` maps between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vecdb.bitmap import Bitmap
from vecdb.norms import extremes, row_norms
from vecdb.schema import VectorField
from vecdb.types import F32Array, I64Array, Metric, U32Array

_SUBNORMAL = 1e-30


def normalised(values: F32Array, exact: NDArray[np.float64] | None = None) -> tuple[F32Array, F32Array]:
    """Rows of length one and the lengths they had: ((n, dim), (n,)) float32. No row may be zero.

    ``exact`` are their lengths, (n,) float64, where they are known.
    """
    if exact is None:
        exact = row_norms(values)
    norms = exact.astype(np.float32)
    if exact.shape[0] and extremes(exact)[0] < _SUBNORMAL:
        # float32 keeps only a few bits of numbers this small.
        return (values / exact[:, np.newaxis]).astype(np.float32), norms
    return values / norms[:, np.newaxis], norms


def comparable(values: F32Array, lengths: NDArray[np.float64], declared: VectorField) -> F32Array:
    """Queries ((nq, dim), of the given ``lengths``) in the form in which the field's vectors are stored."""
    return normalised(values, lengths)[0] if declared.metric is Metric.COSINE else values


@dataclass(frozen=True, slots=True)
class FieldVectors:
    """The first m vectors of a field.

    Attributes
    ----------
    vectors
        (m, dim) float32.
    norms
        (m,) float32 under cosine, else ``None``.
    slot_rows
        (m,) uint32 ascending; ``None`` where slot and row are the same.
    """

    vectors: F32Array
    norms: F32Array | None
    slot_rows: U32Array | None

    @property
    def slots(self) -> int:
        """Number of vectors."""
        return int(self.vectors.shape[0])

    def allowed_slots(self, allowed_rows: Bitmap | None) -> Bitmap | None:
        """The slots of the allowed rows; ``None`` stands for all of them, before and after."""
        if allowed_rows is None or self.slot_rows is None:
            return allowed_rows
        return Bitmap.from_bools(allowed_rows.contains(self.slot_rows))

    def rows_of(self, slots: I64Array) -> I64Array:
        """The row of each slot; -1 stays -1."""
        if self.slot_rows is None:
            return slots
        return np.where(slots < 0, -1, self.slot_rows[np.maximum(slots, 0)].astype(np.int64))

    def slot_of(self, row: int) -> int | None:
        """The slot of a row, ``None`` where the row lacks the vector."""
        if self.slot_rows is None:
            return row if row < self.slots else None
        at = int(np.searchsorted(self.slot_rows, row))
        return at if at < self.slots and self.slot_rows[at] == row else None

    def original(self, slot: int) -> F32Array:
        """The vector as it was given, to float32 rounding, (dim,) float32."""
        return self.unnormalised(self.vectors[slot].copy(), slot)

    def unnormalised(self, stored: F32Array, slot: int) -> F32Array:
        """The vector of a slot in its own length, given as it is ``stored``, which is written to."""
        if self.norms is not None:
            stored *= self.norms[slot]
        return stored
