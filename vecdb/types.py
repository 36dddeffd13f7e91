"""Values and array types that every layer shares.

Three vocabularies meet here and must not be mixed: a ``PointId`` is the caller's key, a ``Row`` an ordinal inside one
segment, a ``Seq`` the position of a write in the total order of writes. A vector field numbers its vectors by ``Slot``,
which equals the row where every row has a vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, NewType, TypeAlias

import numpy as np
from numpy.typing import NDArray

PointId: TypeAlias = int | str
"""The caller's key of a point: an unsigned 64-bit integer, or a string of 1 to 512 UTF-8 bytes. ``1`` is not "1"."""

Row = NewType("Row", int)
"""Ordinal of a row inside one segment or memtable, dense from 0, below 2**31."""

Seq = NewType("Seq", int)
"""Position of a write batch in the total order of a collection's writes, from 1."""

SegmentId = NewType("SegmentId", int)
"""Number of a segment inside one collection, never used twice."""

Payload: TypeAlias = dict[str, Any]
"""A JSON object."""

F32Array: TypeAlias = NDArray[np.float32]
I8Array: TypeAlias = NDArray[np.int8]
U8Array: TypeAlias = NDArray[np.uint8]
I32Array: TypeAlias = NDArray[np.int32]
U32Array: TypeAlias = NDArray[np.uint32]
I64Array: TypeAlias = NDArray[np.int64]
U64Array: TypeAlias = NDArray[np.uint64]
BoolArray: TypeAlias = NDArray[np.bool_]
AnyArray: TypeAlias = NDArray[Any]

DEFAULT_VECTOR = ""
"""Name of the vector field of a collection that was created without naming one."""


class Metric(Enum):
    """How near two vectors are.

    Inside, every metric is a float32 distance of which smaller is nearer: squared Euclidean, minus the dot product, and
    1 - dot product of normalised vectors. Outside, ``score`` is larger-is-nearer and ``distance`` the natural value.
    """

    COSINE = "cosine"
    DOT = "dot"
    L2 = "l2"


# Not frozen, as each search makes one: that would take four times as long.
@dataclass(slots=True)
class TopK:
    """The nearest slots of a batch of queries, nearest first; ties by slot.

    Attributes
    ----------
    slots
        (nq, k) int32, C order; -1 where fewer than k were found, always after the found ones.
    distances
        (nq, k) float32, internal distances (smaller is nearer); +inf where ``slots`` is -1.
    """

    slots: I32Array
    distances: F32Array
