"""The report of warming: what was made ready, and how long that took."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WarmReport:
    """What ``warm`` did.

    Attributes
    ----------
    segments
        Segments that were opened and verified.
    resident_bytes
        Bytes of their files that were brought into memory, or were there.
    left_out_bytes
        Bytes of files for which the memory budget had no room; they are read when they are needed.
    kernels
        Kernels that are ready to run; ``kernels_compiled`` of them were compiled by this call.
    compile_s, verify_s, read_s
        Seconds: for the kernels, for opening and verifying files, for bringing them into memory.
    """

    segments: int = 0
    resident_bytes: int = 0
    left_out_bytes: int = 0
    kernels: int = 0
    kernels_compiled: int = 0
    compile_s: float = 0.0
    verify_s: float = 0.0
    read_s: float = 0.0

    @classmethod
    def of_all(cls, reports: Iterable[WarmReport]) -> WarmReport:
        """What several collections of one database report, together: they share their kernels."""
        each = list(reports)
        return cls(
            segments=sum(report.segments for report in each),
            resident_bytes=sum(report.resident_bytes for report in each),
            left_out_bytes=sum(report.left_out_bytes for report in each),
            kernels=max((report.kernels for report in each), default=0),
            kernels_compiled=sum(report.kernels_compiled for report in each),
            compile_s=sum(report.compile_s for report in each),
            verify_s=sum(report.verify_s for report in each),
            read_s=sum(report.read_s for report in each),
        )
