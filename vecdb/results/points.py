"""Stored points, one by one or in the pages of a scroll. A payload is decoded when it is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vecdb.payload import decode_payload
from vecdb.types import F32Array, Payload, PointId


@dataclass(frozen=True, slots=True)
class Point:
    """A stored point.

    Attributes
    ----------
    id
        The caller's key.
    payload_json
        Its payload as UTF-8 JSON; ``None`` where it was not asked for.
    vectors
        Its vectors by field name ((dim,) float32 each); empty where they were not asked for.
    """

    id: PointId
    payload_json: bytes | None = None
    vectors: Mapping[str, F32Array] = field(default_factory=dict)

    @property
    def payload(self) -> Payload | None:
        """The payload as a JSON object, decoded at each access; ``None`` where it was not asked for."""
        return None if self.payload_json is None else decode_payload(self.payload_json)

    @property
    def vector(self) -> F32Array | None:
        """The vector of a point that has exactly one, else ``None``."""
        if len(self.vectors) != 1:
            return None
        return next(iter(self.vectors.values()))


@dataclass(frozen=True, slots=True)
class Page:
    """Some points in scroll order, and where to go on.

    Attributes
    ----------
    points
        At most as many as were asked for.
    next_cursor
        Opaque; hand it to the next call. ``None`` at the end. It stays valid across writes, flushes and reopening.
    """

    points: Sequence[Point]
    next_cursor: bytes | None
