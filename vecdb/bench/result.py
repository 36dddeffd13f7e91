"""What a run found, as values, and as the JSON document that is written and read again.

``docs/benchmarks.md`` describes the document. Every round is kept, so that another statistic can be computed later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from vecdb.bench.curve import CurvePoint, QpsAtRecall, median, qps_at_recall
from vecdb.bench.engines import REFERENCE
from vecdb.bench.plan import RECALLS, BenchPlan

FORMAT = "vecdb-bench/1"

BUSY_MIN = 0.97
"""A turn in which the process had less of its core than this was disturbed by something else on the machine."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One engine at one effort in one round.

    Attributes
    ----------
    qps
        Queries a second, by wall clock.
    recall
        Mean recall at k.
    busy
        Processor time over wall time of the measuring process; ``None`` where the work is done in another process.
    latency_us_p50, latency_us_p95, latency_us_p99
        Of single calls; ``None`` in batch mode.
    asked
        Queries that were answered at least once; recall is theirs.
    short
        Of these, answers with fewer rows than k although so many match.
    errors
        Of these, calls that raised an error; each is a short answer too.
    """

    qps: float
    recall: float
    busy: float | None
    latency_us_p50: float | None = None
    latency_us_p95: float | None = None
    latency_us_p99: float | None = None
    asked: int | None = None
    short: int | None = None
    errors: int | None = None


@dataclass(slots=True)
class Point:
    """All rounds of one engine at one effort (``None`` for an exact engine) in one mode."""

    mode: str
    effort: int | None
    turns: list[Turn] = field(default_factory=list)

    @property
    def qps(self) -> float:
        """The median over the rounds."""
        return median([turn.qps for turn in self.turns])

    @property
    def recall(self) -> float:
        """The median over the rounds: the same in each, for an engine that answers the same each time."""
        return median([turn.recall for turn in self.turns])

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "mode": self.mode,
            "effort": self.effort,
            "recall": self.recall,
            "qps": self.qps,
            "qps_best": max(turn.qps for turn in self.turns),
            "turns": [asdict(turn) for turn in self.turns],
        }


@dataclass(slots=True)
class EngineResult:
    """All that was measured of one engine; ``None`` for what could not be.

    Attributes
    ----------
    name, what, version
        The engine, one line about it, and the version of its package.
    parameters, facts
        What was chosen, and what came of the build.
    prepare_seconds
        Imports, and compiled kernels loaded; not part of the build.
    build_seconds, build_cpu_seconds
        From the first row to everything indexed.
    peak_bytes
        Most memory added at any moment of the build.
    anonymous_bytes, own_file_bytes
        Memory added, after all queries.
    process_bytes
        Anonymous memory of the process before the build: interpreter, libraries, compiled kernels.
    disk_bytes
        Bytes on disk.
    error
        Why the engine is missing from the run, or left it.
    started
        It could run here: an ``error`` is then a failure, and not a missing package.
    """

    name: str
    what: str
    version: str | None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    prepare_seconds: float | None = None
    build_seconds: float | None = None
    build_cpu_seconds: float | None = None
    peak_bytes: int | None = None
    anonymous_bytes: int | None = None
    own_file_bytes: int | None = None
    process_bytes: int | None = None
    disk_bytes: int | None = None
    points: list[Point] = field(default_factory=list)
    error: str | None = None
    started: bool = False

    @property
    def memory_bytes(self) -> int | None:
        """Memory added: anonymous, and resident pages of its own files."""
        if self.anonymous_bytes is None or self.own_file_bytes is None:
            return None
        return self.anonymous_bytes + self.own_file_bytes

    def point(self, mode: str, effort: int | None) -> Point:
        """The point of this mode and effort, made when first asked for."""
        for each in self.points:
            if (each.mode, each.effort) == (mode, effort):
                return each
        self.points.append(Point(mode, effort))
        return self.points[-1]

    def curve(self, mode: str) -> list[CurvePoint]:
        """Medians over the rounds."""
        return [CurvePoint(each.recall, each.qps) for each in self.points if each.mode == mode and each.turns]

    def curve_of_round(self, mode: str, round: int) -> list[CurvePoint]:
        """One round alone."""
        return [
            CurvePoint(each.turns[round].recall, each.turns[round].qps)
            for each in self.points
            if each.mode == mode and len(each.turns) > round
        ]

    def more(self) -> dict[str, Any]:
        """What the document says beyond this class's attributes."""
        return {}

    @property
    def disturbed(self) -> float:
        """Share of turns in which something else had the core; 0.0 where that cannot be told."""
        known = [turn.busy for point in self.points for turn in point.turns if turn.busy is not None]
        return sum(busy < BUSY_MIN for busy in known) / len(known) if known else 0.0


@dataclass(frozen=True, slots=True)
class Ratio:
    """QPS over the reference's at equal recall: median, least and most over the rounds."""

    median: float
    least: float
    most: float


@dataclass(slots=True)
class RunResult:
    """One run of the benchmark.

    Attributes
    ----------
    plan
        What was asked for.
    dataset
        Name, source, rows, dimensions, metric, digest and hardness of the data.
    machine, versions, commit
        What it ran on.
    taken_at
        Start, ISO 8601, UTC.
    load_before, load_after
        Load averages.
    engines
        In the order of the plan.
    process_seconds
        Databases: the part of every cold start that a process of the benchmark takes before it knows of a database.
    """

    plan: BenchPlan
    dataset: Mapping[str, Any]
    machine: Mapping[str, Any]
    versions: Mapping[str, str | None]
    commit: Mapping[str, Any] | None
    taken_at: str
    load_before: Sequence[float]
    engines: list[EngineResult]
    load_after: Sequence[float] = ()
    seconds: float = 0.0
    process_seconds: float | None = None

    def engine(self, name: str) -> EngineResult | None:
        """The result of this engine, if it took part."""
        return next((each for each in self.engines if each.name == name and each.error is None), None)

    def at_recall(self, engine: EngineResult, mode: str, recall: float) -> QpsAtRecall | None:
        """QPS on the engine's curve of medians."""
        return qps_at_recall(engine.curve(mode), recall)

    def ratio(self, engine: EngineResult, mode: str, recall: float) -> Ratio | None:
        """QPS over the reference's, computed within each round and then summarised.

        Within a round the engines ran side by side, so what slowed the machine then slowed them alike. ``None`` where
        either curve does not reach the recall, or lies wholly above it.
        """
        reference = self.engine(REFERENCE)
        if reference is None:
            return None
        ratios = []
        for round in range(self.plan.rounds):
            own = qps_at_recall(engine.curve_of_round(mode, round), recall)
            other = qps_at_recall(reference.curve_of_round(mode, round), recall)
            if own is not None and other is not None and not other.lower_bound:
                ratios.append(own.qps / other.qps)
        return Ratio(median(ratios), min(ratios), max(ratios)) if ratios else None

    def document(self) -> dict[str, Any]:
        """The JSON document."""
        return {
            "format": FORMAT,
            "taken_at": self.taken_at,
            "seconds": round(self.seconds, 1),
            "process_seconds": self.process_seconds,
            "parameters": {**asdict(self.plan), "statistic": "median over rounds", "reference": REFERENCE},
            "dataset": dict(self.dataset),
            "machine": {**self.machine, "load_before": list(self.load_before), "load_after": list(self.load_after)},
            "versions": dict(self.versions),
            "commit": None if self.commit is None else dict(self.commit),
            "engines": [self._engine_document(each) for each in self.engines],
        }

    def _engine_document(self, engine: EngineResult) -> dict[str, Any]:
        at_recall = {
            mode: {f"{recall:.2f}": self._recall_document(engine, mode, recall) for recall in RECALLS}
            for mode in self.plan.modes
        }
        plain = {name: getattr(engine, name) for name in PLAIN_ATTRIBUTES}
        return {
            **plain,
            "parameters": dict(engine.parameters),
            "facts": dict(engine.facts),
            "disturbed": engine.disturbed,
            "at_recall": at_recall if engine.error is None else {},
            "points": [each.document() for each in engine.points if each.turns],
            **engine.more(),
        }

    def _recall_document(self, engine: EngineResult, mode: str, recall: float) -> dict[str, Any] | None:
        at = self.at_recall(engine, mode, recall)
        if at is None:
            return None
        ratio = self.ratio(engine, mode, recall)
        return {**asdict(at), "ratio": None if ratio is None else asdict(ratio)}


PLAIN_ATTRIBUTES = (
    "name", "what", "version", "error", "started", "prepare_seconds", "build_seconds", "build_cpu_seconds",
    "peak_bytes", "memory_bytes", "anonymous_bytes", "own_file_bytes", "process_bytes", "disk_bytes",
)  # fmt: skip
