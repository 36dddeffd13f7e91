"""What a run of the demo found out, as values."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

RECALL_MIN = 0.95
PASSAGES_MIN = 20_000
"""What a run must reach to be told as a success; the passages only where as many were asked for."""


@dataclass(slots=True)
class Stopwatch:
    """Seconds by what they were spent on."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measuring(self, what: str) -> Iterator[None]:
        """Add the time of the block to ``what``."""
        start = time.perf_counter()
        yield
        self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class Measures:
    """Quality and speed of searching what was indexed.

    Attributes
    ----------
    queries
        Held-out texts that were searched for.
    recall_at_10
        Share of the true ten nearest that a search at default settings found; the truth is computed by NumPy.
    latency_ms_p50, latency_ms_p99
        Of one search in one thread, hits and ids included.
    qps_single, qps_batch
        Searches a second, one query a call and all in one call.
    """

    queries: int
    recall_at_10: float
    latency_ms_p50: float
    latency_ms_p99: float
    qps_single: float
    qps_batch: float


@dataclass(frozen=True, slots=True)
class CrashReport:
    """What was left of a database whose writer was killed.

    Attributes
    ----------
    acknowledged_batches, acknowledged_row_writes
        What the writer had reported as durable before it was killed; a row that was written again counts again.
    compared_rows
        The different rows among them; each was compared with what was last acknowledged of it.
    lost_rows
        Acknowledged rows that the reopened database lacks or holds otherwise. The promise is 0.
    disturbed_rows
        Rows written long before the crash that are missing or changed. The promise is 0.
    stray_rows
        Rows that nobody wrote. The promise is 0.
    in_flight
        What became of the one batch whose write had begun and was not acknowledged: ``"none"`` of it is there,
        ``"all"`` of it, or a ``"part"``, which would break a promise. ``"idle"``: the kill came between two writes.
    killed_after_s
        Time between the first acknowledgement and the kill.
    reopened_in_s
        Time to open the directory again, recover, and answer the first query.
    """

    acknowledged_batches: int
    acknowledged_row_writes: int
    compared_rows: int
    lost_rows: int
    disturbed_rows: int
    stray_rows: int
    in_flight: str
    killed_after_s: float
    reopened_in_s: float

    @property
    def in_mid_write(self) -> bool:
        """Whether a write had begun and was not acknowledged when the kill came."""
        return self.in_flight != "idle"

    @property
    def kept(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost_rows or self.disturbed_rows or self.stray_rows or self.in_flight == "part")


@dataclass(frozen=True, slots=True)
class DemoReport:
    """A whole run.

    Attributes
    ----------
    path, collection
        Where the passages are.
    rows_asked
        Passages that were to be read.
    passages
        Passages in the collection at the end.
    compile_s
        Seconds spent compiling kernels, apart from everything else; next to nothing where they were cached.
    seconds
        Seconds by what they were spent on.
    total_s
        From beginning to end.
    answers
        Titles of what each question found.
    disk_bytes, role_bytes, log_bytes
        Of the collection after indexing: everything, its segment files by role, its log.
    """

    path: str
    collection: str
    rows_asked: int
    passages: int
    compile_s: float
    seconds: Mapping[str, float]
    total_s: float
    answers: Mapping[str, list[str]]
    measures: Measures
    disk_bytes: int
    role_bytes: Mapping[str, int]
    log_bytes: int
    crash: CrashReport

    @property
    def shortfalls(self) -> list[str]:
        """What was to be shown and was not, besides the promises of the crash test; a line each."""
        found = []
        if self.measures.recall_at_10 < RECALL_MIN:
            found.append(f"recall@10 is {self.measures.recall_at_10:.3f}, below {RECALL_MIN}")
        # A smaller run was asked for by whoever asks for fewer; the queries are no passages of the collection.
        if self.passages < PASSAGES_MIN <= self.rows_asked - self.measures.queries:
            found.append(f"{self.passages:,} passages are searchable, fewer than {PASSAGES_MIN:,}")
        return found

    @property
    def ok(self) -> bool:
        """Whether the run showed all it is to show."""
        return self.crash.kept and not self.shortfalls

    def as_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return asdict(self) | {"ok": self.ok, "shortfalls": self.shortfalls}
