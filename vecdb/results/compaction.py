"""The report of a compaction: what it did, or would do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CompactionReport:
    """What a compaction did, or would do.

    Attributes
    ----------
    segments_before, segments_after
        Number of segments.
    size_bytes_before, size_bytes_after
        Bytes of their files; those of a forecast are estimates.
    rows_dropped
        Rows of deleted or replaced points whose space was reclaimed.
    """

    segments_before: int
    segments_after: int
    size_bytes_before: int
    size_bytes_after: int
    rows_dropped: int
