"""What became of a write, told once it is durable."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of one write batch.

    Attributes
    ----------
    seq
        Its place in the total order of the collection's writes; for a write that changed nothing, the last one.
    durable_seq
        Every batch at or below this seq survives a power loss.
    upserted, deleted
        Points written; points that existed and were removed.
    slowed_s
        Seconds that the write was held back because index building lags behind.
    """

    seq: int
    durable_seq: int
    upserted: int = 0
    deleted: int = 0
    slowed_s: float = 0.0
