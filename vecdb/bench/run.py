"""The run itself: every engine built in its own process, then measured turn by turn.

Builds run one after another. The measurements are interleaved: in each round, at each effort, each engine gets its turn
while the others sleep, so that a change of the machine's speed meets all of them. The order of the engines is rotated
from round to round.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np

from vecdb.bench.dataset import Dataset, with_truth
from vecdb.bench.engines import entries_of, missing
from vecdb.bench.machine import commit, load_average, machine, version_of, versions
from vecdb.bench.plan import BenchPlan
from vecdb.bench.result import EngineResult, RunResult, Turn
from vecdb.bench.sources import source_of
from vecdb.bench.truth import distances_of, recall_at, unit_rows
from vecdb.bench.turns import EngineFailed, EngineProcess
from vecdb.types import Metric

Progress = Callable[[str, float], None]
"""Told what is being done, and what share of the run is done."""

BUILD_SHARE = 0.5
"""Of the progress: the rest belongs to the rounds."""


def run(
    plan: BenchPlan,
    *,
    race: type[Race] | None = None,
    scratch: Path | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Carry out a plan. An engine that fails says so in its result and is left out of the rest.

    Parameters
    ----------
    race
        What is done with the engines; ``None``: ``Race``.
    scratch
        Existing directory for the data set and the engines' files; ``None``: the system's. What is written there is
        removed at the end.
    cache
        Directory of cached ground truth; ``None``: the private one.
    progress
        Called often.

    Raises
    ------
    InvalidArgument, NotFound, FailedPrecondition
        The data set cannot be had.
    """
    start = time.perf_counter()
    report: Progress = progress or _silent
    kind = race or Race
    report(f"reading {plan.dataset}", 0.0)
    raw = source_of(plan.dataset, plan.seed, plan.queries)
    report("finding the true neighbours", 0.01)
    dataset = with_truth(raw, plan.k, cache)
    result = RunResult(
        plan=plan,
        dataset=described(dataset),
        machine=machine(),
        versions=versions(),
        commit=commit(),
        taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
        load_before=load_average(),
        engines=[
            kind.result_type(entry.name, entry.what, version_of(entry.library), error=missing(entry))
            for entry in entries_of(plan.engines, plan.kind)
        ],
    )
    with (
        tempfile.TemporaryDirectory(prefix="vecdb-bench-", dir=scratch) as place,
        kind(result, dataset, Path(place), report) as engines,
    ):
        engines.build()
        engines.measure()
        engines.weigh()
    result.load_after = load_average()
    result.seconds = time.perf_counter() - start
    report("done", 1.0)
    return result


def _silent(what: str, share: float) -> None:
    """No progress."""


def described(dataset: Dataset) -> dict[str, Any]:
    """What the record says about a data set."""
    raw, dimension = dataset.raw, dataset.intrinsic_dimension
    return {
        "name": raw.name,
        "source": raw.source,
        "rows": len(raw.train),
        "dim": raw.train.shape[1],
        "metric": raw.metric.value,
        "queries": len(raw.queries),
        "truth": dataset.truth,
        "digest": dataset.digest,
        "intrinsic_dimension": None if dimension is None else round(dimension, 1),
    }


def lay_out(dataset: Dataset, directory: Path) -> None:
    """Write the arrays where the measuring processes map them from."""
    directory.mkdir()
    raw = dataset.raw
    arrays = {"train": raw.train, "queries": raw.queries}
    if raw.metric is Metric.COSINE:
        arrays |= {"unit_train": unit_rows(raw.train), "unit_queries": unit_rows(raw.queries)}
    for name, array in arrays.items():
        np.save(directory / f"{name}.npy", array, allow_pickle=False)


class Race:
    """The engines of one run and their processes."""

    result_type: type[EngineResult] = EngineResult

    def __init__(self, result: RunResult, dataset: Dataset, place: Path, report: Progress) -> None:
        self.result, self.dataset, self.place, self.report = result, dataset, place, report
        self.plan = result.plan
        self.entries = {entry.name: entry for entry in entries_of(self.plan.engines, self.plan.kind)}
        self.processes: dict[str, EngineProcess] = {}
        self.steps_done = 0

    def __enter__(self) -> Self:
        lay_out(self.dataset, self.place / "data")
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.ExitStack() as stack:  # closes every one, even where closing another fails
            for process in self.processes.values():
                stack.callback(process.close)
        self.processes.clear()

    def running(self) -> list[tuple[EngineResult, EngineProcess]]:
        """The engines still in the run."""
        return [(each, self.processes[each.name]) for each in self.result.engines if each.error is None]

    @contextlib.contextmanager
    def dropped_on_failure(self, engine: EngineResult) -> Iterator[None]:
        """What an engine raises is the engine's result; the others go on."""
        try:
            yield
        except EngineFailed as error:
            engine.error = error.message
            process = self.processes.pop(engine.name, None)
            if process is not None:
                process.close()

    def build(self) -> None:
        """Start and build each engine, one after another."""
        engines = [each for each in self.result.engines if each.error is None]
        for at, engine in enumerate(engines):
            self.report(f"building {engine.name}", 0.02 + (BUILD_SHARE - 0.02) * at / len(engines))
            with self.dropped_on_failure(engine):
                self._build(engine)

    def _build(self, engine: EngineResult) -> None:
        engine.started = True
        directory = self.place / engine.name
        process = self.processes[engine.name] = EngineProcess(engine.name, directory)
        opened = process.ask(
            "open",
            engine=engine.name,
            directory=str(directory),
            data=str(self.place / "data"),
            metric=self.dataset.raw.metric.value,
            seed=self.plan.seed,
            core=self.plan.core,
        )
        built = process.ask("build")
        engine.parameters, engine.facts = opened["parameters"], built["facts"]
        engine.prepare_seconds = opened["prepare_seconds"]
        engine.build_seconds, engine.build_cpu_seconds = built["seconds"], built["cpu_seconds"]
        engine.peak_bytes = built["peak_bytes"]

    def measure(self) -> None:
        """All rounds."""
        efforts = self.plan.usable_efforts
        steps = self.plan.rounds * len(self.plan.modes) * len(efforts)
        for round in range(self.plan.rounds):
            for mode in self.plan.modes:
                for effort in efforts:
                    share = BUILD_SHARE + (1 - BUILD_SHARE) * self.steps_done / steps
                    self.report(f"round {round + 1} of {self.plan.rounds}, {mode}, effort {effort}", share)
                    running = self.running()
                    first = round % max(1, len(running))
                    for engine, process in running[first:] + running[:first]:
                        if effort == efforts[0] or not self.entries[engine.name].exact:
                            with self.dropped_on_failure(engine):
                                self._take_turn(engine, process, mode, effort)
                    self.steps_done += 1

    def _take_turn(self, engine: EngineResult, process: EngineProcess, mode: str, effort: int) -> None:
        rows_to = self.place / "rows.npy"
        timing = process.ask(
            "search",
            mode=mode,
            effort=effort,
            k=self.plan.k,
            queries=len(self.dataset.raw.queries),
            seconds_min=self.plan.seconds_min,
            rows_to=str(rows_to),
        )
        rows = np.load(rows_to, allow_pickle=False)
        raw, truth = self.dataset.raw, self.dataset
        distances = distances_of(raw.train, raw.queries, rows, raw.metric)
        recall = recall_at(self.plan.k, rows, distances, truth.distances, truth.margins)
        turn = Turn(
            qps=timing["queries"] / timing["seconds"],
            recall=recall,
            busy=timing["cpu_seconds"] / timing["seconds"] if timing["alone"] else None,
            **{name: timing.get(name) for name in ("latency_us_p50", "latency_us_p95", "latency_us_p99")},
        )
        engine.point(mode, None if self.entries[engine.name].exact else effort).turns.append(turn)

    def weigh(self) -> None:
        """Memory and disk, after all queries."""
        for engine, process in self.running():
            self.report(f"weighing {engine.name}", 0.99)
            with self.dropped_on_failure(engine):
                memory = process.ask("memory")
                engine.anonymous_bytes, engine.own_file_bytes = memory["anonymous_bytes"], memory["own_file_bytes"]
                engine.process_bytes = memory["process_bytes"]
                engine.disk_bytes = process.ask("disk")["bytes"]
