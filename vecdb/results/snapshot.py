"""What is told of a named snapshot."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A named snapshot.

    Attributes
    ----------
    created_s
        When it was taken, seconds since 1970-01-01 UTC.
    seq
        The last write that it holds.
    """

    name: str
    created_s: float
    seq: int
