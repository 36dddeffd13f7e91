"""The process that runs one engine and times it, told what to do by its parent.

One line of JSON in, one line of JSON out, one at a time: between two commands the process sleeps in ``readline``, so of
all engines of a run only one works. Replies go to the descriptor that standard output was at the start; whatever a
library prints goes to standard error and cannot break the protocol.
"""

from __future__ import annotations

import gc
import itertools
import json
import math
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from vecdb.bench.engines import make_engine
from vecdb.bench.engines.protocol import BenchVectors, Bound, Engine
from vecdb.bench.memory import MemoryUse, memory_use, peak_resident_bytes, reset_peak, resident_bytes
from vecdb.types import F32Array, Metric

PAGE_BYTES = 4096

Command = dict[str, Any]
Reply = dict[str, Any]


class Worker:
    """One engine from its import to its end."""

    kind = "indexes"

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self.directory = Path()
        self.memory_before: dict[int, MemoryUse] = {}

    @property
    def engine(self) -> Engine:
        """The engine; there is one from ``open`` on."""
        assert self._engine is not None, "open comes first"
        return self._engine

    def open(self, command: Command) -> Reply:
        """Pin the process, map the data set, import the engine."""
        if command["core"] is not None:
            os.sched_setaffinity(0, {command["core"]})
        self.directory = Path(command["directory"])
        vectors = mapped_vectors(Path(command["data"]), Metric(command["metric"]))
        # Every page of the data set is resident from here on, so no later difference of resident memory holds it.
        for array in (vectors.train, vectors.unit_train) if command.get("touch", True) else ():
            touch(array)
        self._engine = make_engine(command["engine"], self.directory, command["seed"], self.kind)
        start = time.perf_counter()
        self.engine.prepare(vectors)
        return {"prepare_seconds": time.perf_counter() - start, "parameters": dict(self.engine.parameters())}

    def build(self, command: Command) -> Reply:
        """Build the index; how long it took and the most memory it held meanwhile."""
        pids = self.remember_memory()
        resident_before = {pid: resident_bytes(pid) for pid in pids if reset_peak(pid)}
        cpu, start = _cpu_seconds(), time.perf_counter()
        self.engine.build()
        seconds = time.perf_counter() - start
        peaks = [
            peak - before
            for pid, before in resident_before.items()
            if before is not None and (peak := peak_resident_bytes(pid)) is not None
        ]
        return {
            "seconds": seconds,
            "cpu_seconds": _cpu_seconds() - cpu,
            "peak_bytes": sum(peaks) if len(peaks) == len(pids) else None,
            "facts": dict(self.engine.facts()),
        }

    def search(self, command: Command) -> Reply:
        """Time the queries at one effort; the rows found go to the file that the command names."""
        bound = self.engine.bind(command["k"], command["effort"])
        timed = time_single if command["mode"] == "single" else time_batch
        reply, rows = timed(bound, command["queries"], command["seconds_min"])
        if command["rows_to"] is not None:
            np.save(command["rows_to"], rows, allow_pickle=False)
        return {**reply, "alone": not self.engine.processes()}

    def memory(self, command: Command) -> Reply:
        """Memory added since before the build."""
        gc.collect()
        now = {pid: memory_use(pid, self.directory) for pid in self._pids()}
        added = [
            (
                use.anonymous_bytes - before.anonymous_bytes,
                use.own_file_bytes - before.own_file_bytes,
                before.anonymous_bytes,
            )
            for pid, before in self.memory_before.items()
            if (use := now.get(pid)) is not None
        ]
        if not added or len(added) < len(now):
            return {"anonymous_bytes": None, "own_file_bytes": None, "process_bytes": None}
        anonymous, own_file, process = (sum(column) for column in zip(*added, strict=True))
        return {"anonymous_bytes": anonymous, "own_file_bytes": own_file, "process_bytes": process}

    def disk(self, command: Command) -> Reply:
        """Bytes on disk."""
        return {"bytes": self.engine.disk_bytes()}

    def close(self, command: Command) -> Reply:
        """Release everything."""
        if self._engine is not None:
            self._engine.close()
        return {}

    def remember_memory(self) -> list[int]:
        """Let ``memory`` count from now on; the processes counted."""
        gc.collect()
        pids = self._pids()
        self.memory_before = {pid: use for pid in pids if (use := memory_use(pid, self.directory)) is not None}
        return pids

    def verbs(self) -> dict[str, Callable[[Command], Reply]]:
        """What the parent can ask for."""
        return {
            "open": self.open,
            "build": self.build,
            "search": self.search,
            "memory": self.memory,
            "disk": self.disk,
            "close": self.close,
        }

    def _pids(self) -> list[int]:
        return list(self.engine.processes()) or [os.getpid()]


def mapped_vectors(directory: Path, metric: Metric) -> BenchVectors:
    """The data set that the parent laid out in ``directory``, mapped read-only."""

    def mapped(name: str) -> F32Array:
        array: F32Array = np.load(directory / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        return array

    train, queries = mapped("train"), mapped("queries")
    if metric is not Metric.COSINE:
        return BenchVectors(metric, train, queries, train, queries)
    return BenchVectors(metric, train, queries, mapped("unit_train"), mapped("unit_queries"))


def touch(array: F32Array) -> int:
    """Read one byte of every page of ``array``; the sum, so that nothing can leave it out."""
    return int(array.reshape(-1).view(np.uint8)[::PAGE_BYTES].sum(dtype=np.int64))


def time_single(bound: Bound, queries: int, seconds_min: float, seconds_max: float = math.inf) -> tuple[Reply, Any]:
    """One query a call: all of them, again and again until ``seconds_min`` have passed.

    After ``seconds_max`` it ends within a round; the rows found are then those of the first queries alone.
    """
    one, clock = bound.one, time.perf_counter_ns
    warm_until = clock() + seconds_max * 1e9 / 4
    for at in range(min(queries, 100)):
        one(at)
        if clock() > warm_until:
            break
    found: list[Any] = []
    latencies: list[int] = []
    cpu, total_ns = time.process_time(), 0
    while not latencies or total_ns < seconds_min * 1e9:
        answers: list[Any] = []
        marks = [clock()]
        until = marks[0] + seconds_max * 1e9 - total_ns
        keep, mark = answers.append, marks.append
        for at in range(queries):
            keep(one(at))
            now = clock()
            mark(now)
            if now > until:
                break
        latencies.extend(later - earlier for earlier, later in itertools.pairwise(marks))
        total_ns += marks[-1] - marks[0]
        found = found or answers
    p50, p95, p99 = np.percentile(np.array(latencies), [50, 95, 99]) / 1e3
    reply = _timing(len(latencies), total_ns / 1e9, time.process_time() - cpu)
    rows = [list(bound.rows_of_one(each)) for each in found]
    return {**reply, "latency_us_p50": p50, "latency_us_p95": p95, "latency_us_p99": p99}, _table(rows)


def time_batch(bound: Bound, queries: int, seconds_min: float) -> tuple[Reply, Any]:
    """All queries in one call, again and again until ``seconds_min`` have passed."""
    bound.few()
    count, found = 0, None
    cpu, start, total_s = time.process_time(), time.perf_counter(), 0.0
    while not count or total_s < seconds_min:
        found = bound.all()
        count += queries
        total_s = time.perf_counter() - start
    return _timing(count, total_s, time.process_time() - cpu), bound.rows_of_all(found)


def _timing(count: int, seconds: float, cpu_seconds: float) -> Reply:
    return {"queries": count, "seconds": seconds, "cpu_seconds": cpu_seconds}


def _table(rows: list[list[int]]) -> Any:
    table = np.full((len(rows), max(map(len, rows))), -1, np.int64)
    for at, each in enumerate(rows):
        table[at, : len(each)] = each
    return table


def _cpu_seconds() -> float:
    """Processor time of this process and of the children that have ended."""
    use = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in use)


def serve(worker: Worker, commands: TextIO, replies: TextIO) -> None:
    """Obey until ``close`` or until the parent is gone."""
    verbs = worker.verbs()
    for line in commands:
        command = json.loads(line)
        try:
            reply = {"ok": True, **verbs[command["do"]](command)}
        # Whatever an engine raises is the result of this command: the parent reports it and goes on without the engine.
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            reply = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
        if command["do"] == "close":
            return


def main(worker: Worker) -> None:
    """Take over standard input and output, then serve."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)
        serve(worker, sys.stdin, replies)


if __name__ == "__main__":
    main(Worker())
