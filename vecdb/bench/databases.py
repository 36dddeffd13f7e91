"""The run of embedded databases: each loaded in one process, started cold in others, then searched turn by turn.

Loads run one after another. Cold starts and searches are interleaved as ``run`` interleaves, one turn for each database
at a time. The true neighbours are exact for every filter.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vecdb.bench.curve import median
from vecdb.bench.dataset import Dataset
from vecdb.bench.engines.database import buckets_of
from vecdb.bench.memory import allocated_bytes
from vecdb.bench.result import EngineResult, Point, RunResult, Turn
from vecdb.bench.run import BUILD_SHARE, Progress, Race
from vecdb.bench.truth import F64Array, distances_of, exact_neighbours, recall_at, tie_margins
from vecdb.bench.turns import EngineFailed, EngineProcess
from vecdb.types import AnyArray

WORKER = "vecdb.bench.database_worker"
TIMEOUT_S = 1_800.0

RECALL = 0.95
"""Filtered searches are made with the least effort that has this recall without a filter."""

UNFILTERED = "single"
ASKED = "asked"


def filtered(below: int) -> str:
    """The mode of searches among ``below`` rows in a thousand, as in the document."""
    return f"filter-{below}"


@dataclass(slots=True)
class DatabaseResult(EngineResult):
    """What is measured of a database beyond what is measured of an index.

    Attributes
    ----------
    durable
        A batch whose insert has returned is synced.
    insert_seconds
        Of ``build_seconds``, the inserts.
    cold_seconds
        From the start of a new process to its first answer, once a round.
    filter_effort
        The effort of filtered searches; ``None``: chosen by the database, or there is none.
    """

    durable: bool | None = None
    insert_seconds: float | None = None
    cold_seconds: list[float] = field(default_factory=list)
    filter_effort: int | None = None

    def more(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "durable": self.durable,
            "insert_seconds": self.insert_seconds,
            "cold_seconds": list(self.cold_seconds),
            "filter_effort": self.filter_effort,
        }

    def measured(self, mode: str) -> Point | None:
        """The one point of a mode that is measured at one effort."""
        return next((each for each in self.points if each.mode == mode and each.turns), None)


@dataclass(frozen=True, slots=True)
class FilterTruth:
    """The exact answers among the rows that match.

    Attributes
    ----------
    allowed
        (n,) bool.
    wanted
        Rows that a complete answer has: k, or all that match where these are fewer.
    distances, margins
        (nq, wanted) float64, as in ``Dataset``.
    """

    allowed: AnyArray
    wanted: int
    distances: F64Array
    margins: F64Array

    @classmethod
    def of(cls, dataset: Dataset, allowed: AnyArray, k: int) -> FilterTruth:
        """Found by exact search among the allowed rows."""
        raw, rows = dataset.raw, np.flatnonzero(allowed)
        wanted = min(k, len(rows))
        nearest = rows[exact_neighbours(raw.train[rows], raw.queries, wanted, raw.metric)]
        distances = distances_of(raw.train, raw.queries, nearest, raw.metric)
        return cls(allowed, wanted, distances, tie_margins(raw.train, raw.queries, nearest, raw.metric))

    def judge(self, dataset: Dataset, rows: AnyArray) -> tuple[float, int]:
        """Recall of these answers to the first queries, and how many are short; rows not allowed do not count."""
        raw, asked = dataset.raw, len(rows)
        rows = np.where((rows >= 0) & self.allowed[rows], rows, -1)
        complete = [len(np.unique(each[each >= 0])) >= self.wanted for each in rows]
        distances = distances_of(raw.train, raw.queries[:asked], rows, raw.metric)
        recall = recall_at(self.wanted, rows, distances, self.distances[:asked], self.margins[:asked])
        return recall, asked - sum(complete)


class DatabaseRace(Race):
    """The databases of one run and their processes."""

    result_type = DatabaseResult

    def __init__(self, result: RunResult, dataset: Dataset, place: Path, report: Progress) -> None:
        super().__init__(result, dataset, place, report)
        buckets = buckets_of(len(dataset.raw.train), self.plan.seed)
        everything = np.ones(len(buckets), np.bool_)
        self.truths: Mapping[int | None, FilterTruth] = {
            below: FilterTruth.of(dataset, everything if below is None else buckets < below, self.plan.k)
            for below in (None, *self.plan.filters)
        }

    def databases(self) -> list[tuple[DatabaseResult, EngineProcess]]:
        """Those still in the run that are open for searching."""
        found = []
        for engine, process in self.running():
            assert isinstance(engine, DatabaseResult)
            found.append((engine, process))
        return found

    def started(self, engine: EngineResult, *, load: bool = False) -> EngineProcess:
        """A new process for the database, which is the one that is closed with the run."""
        free = load and not self.plan.load_pinned
        threads = len(os.sched_getaffinity(0)) if free else 1
        process = EngineProcess(
            engine.name, self.place / engine.name, module=WORKER, threads=threads, timeout_s=TIMEOUT_S
        )
        self.processes[engine.name] = process
        opened = process.ask(
            "open",
            engine=engine.name,
            directory=str(process.directory),
            data=str(self.place / "data"),
            metric=self.dataset.raw.metric.value,
            seed=self.plan.seed,
            core=None if free else self.plan.core,
            touch=load,
        )
        engine.prepare_seconds, engine.parameters = opened["prepare_seconds"], opened["parameters"]
        return process

    def ended(self, engine: EngineResult) -> None:
        """Close the process of the database."""
        self.processes.pop(engine.name).close()

    def _build(self, engine: EngineResult) -> None:
        assert isinstance(engine, DatabaseResult)
        engine.started = True
        built = self.started(engine, load=True).ask("build")
        engine.facts, engine.peak_bytes = built["facts"], built["peak_bytes"]
        engine.build_seconds, engine.build_cpu_seconds = built["seconds"], built["cpu_seconds"]
        engine.insert_seconds, engine.durable = built["insert_seconds"], built["durable"]
        directory = self.processes[engine.name].directory
        self.ended(engine)
        engine.disk_bytes = allocated_bytes(directory)

    def measure(self) -> None:
        """Cold starts, then all rounds of searches."""
        bare = []
        for round in range(self.plan.rounds):
            bare.append(self._start_nothing())
            self.report(f"cold starts, round {round + 1} of {self.plan.rounds}", BUILD_SHARE)
            for engine in [each for each in self.result.engines if each.error is None]:
                with self.dropped_on_failure(engine):
                    self._start_cold(engine)
        self.result.process_seconds = median(bare)
        for engine in [each for each in self.result.engines if each.error is None]:
            with self.dropped_on_failure(engine):
                self.started(engine).ask("open_again")
        for round in range(self.plan.rounds):
            self._search(round)

    def _start_nothing(self) -> float:
        start = time.perf_counter()
        with EngineProcess("nothing", self.place / "nothing", module=WORKER) as process:
            process.ask("nothing")
            return time.perf_counter() - start

    def _start_cold(self, engine: EngineResult) -> None:
        assert isinstance(engine, DatabaseResult)
        start = time.perf_counter()
        answer = self.started(engine).ask("first_answer", k=self.plan.k, effort=self._cold_effort(engine))
        engine.cold_seconds.append(time.perf_counter() - start)
        if not answer["rows"]:
            raise EngineFailed(f"{engine.name} found nothing after it was opened again", field="engines")
        self.ended(engine)

    def _cold_effort(self, engine: EngineResult) -> int | None:
        entry = self.entries[engine.name]
        return None if entry.exact or entry.asks_recall else max(self.plan.k, 64)

    def _search(self, round: int) -> None:
        """One round: the curves, then filters at the effort that the first round's curve shows."""
        efforts = self.plan.usable_efforts
        curve: list[tuple[str | int, int | None]] = [(UNFILTERED, effort) for effort in efforts]
        steps = [*curve, (ASKED, None), *((below, None) for below in self.plan.filters)]
        for at, (mode, effort) in enumerate(steps):
            share = (round + at / len(steps)) / self.plan.rounds
            told = f"round {round + 1} of {self.plan.rounds}, {mode if effort is None else f'effort {effort}'}"
            self.report(told, BUILD_SHARE + (1 - BUILD_SHARE) * share)
            running = self.databases()
            first = round % max(1, len(running))
            for engine, process in running[first:] + running[:first]:
                with self.dropped_on_failure(engine):
                    self._step(engine, process, mode, effort)

    def _step(self, engine: DatabaseResult, process: EngineProcess, mode: str | int, effort: int | None) -> None:
        entry = self.entries[engine.name]
        if mode == UNFILTERED:
            if not entry.exact:
                self._ask(engine, process, UNFILTERED, effort, None)
            elif effort == self.plan.usable_efforts[0]:
                self._ask(engine, process, UNFILTERED, None, None)
            return
        if engine.filter_effort is None and not entry.exact and not entry.asks_recall:
            engine.filter_effort = least_effort(engine)
        if isinstance(mode, int):
            self._ask(engine, process, filtered(mode), engine.filter_effort, mode)
        elif entry.asks_recall:
            self._ask(engine, process, ASKED, None, None)

    def _ask(
        self, engine: DatabaseResult, process: EngineProcess, mode: str, effort: int | None, below: int | None
    ) -> None:
        rows_to = self.place / "rows.npy"
        timing = process.ask(
            "search",
            k=self.plan.k,
            effort=effort,
            below=below,
            queries=len(self.dataset.raw.queries),
            seconds_min=self.plan.seconds_min,
            seconds_max=self.plan.seconds_max,
            rows_to=str(rows_to),
        )
        rows = np.load(rows_to, allow_pickle=False)
        recall, short = self.truths[below].judge(self.dataset, rows)
        engine.point(mode, effort).turns.append(
            Turn(
                qps=timing["queries"] / timing["seconds"],
                recall=recall,
                busy=timing["cpu_seconds"] / timing["seconds"] if timing["alone"] else None,
                asked=len(rows),
                short=short,
                errors=timing["errors"],
                **{name: timing[name] for name in ("latency_us_p50", "latency_us_p95", "latency_us_p99")},
            )
        )

    def weigh(self) -> None:
        """Memory, after all queries."""
        for engine, process in self.databases():
            self.report(f"weighing {engine.name}", 0.99)
            with self.dropped_on_failure(engine):
                memory = process.ask("memory")
                engine.anonymous_bytes, engine.own_file_bytes = memory["anonymous_bytes"], memory["own_file_bytes"]
                engine.process_bytes = memory["process_bytes"]


def least_effort(engine: EngineResult) -> int | None:
    """The least effort whose recall is ``RECALL``; where none has it, the one with the most."""
    points = [each for each in engine.points if each.mode == UNFILTERED and each.turns]
    enough = [point for point in points if point.recall >= RECALL]
    best = min(enough, key=lambda point: point.effort or 0) if enough else max(points, key=lambda point: point.recall)
    return best.effort
