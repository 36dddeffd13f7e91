"""Asked recall against measured recall, with queries like the data and with others, and what it costs.

``python bench/recall.py --dataset clustered-96-cosine-100k`` loads each data set into a database, asks for each recall
and measures what is found, on held-out queries; then with noise added to the queries, before and after ``--live`` such
queries were searched. Beside each: distance computations of a query over those of the smallest fixed ef that reaches
the measured recall, and the asked one. Exit status 1 where a measured mean is more than 0.01 below what was asked with
queries like the data, or with others after the live queries.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vecdb.bench.sources import source_of
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.options import EngineOptions
from vecdb.engine.search import plan_search
from vecdb.engine.store import OpenCollection
from vecdb.query.plan import Strategy
from vecdb.requests import SearchRequest
from vecdb.schema import IndexKind, IndexSpec
from vecdb.types import F32Array

ASKED = (0.90, 0.95, 0.99)
SHORTFALL_MAX = 0.01
BATCH_ROWS = 1_000
EF_MAX = 4_096


@dataclass(frozen=True)
class Cell:
    """One asked recall on one set of queries.

    Attributes
    ----------
    estimate
        Mean ``recall_estimate`` of the answers.
    work
        Mean distance computations of a query.
    ef, ef_work
        The smallest ef that reaches the measured recall, and its distance computations; 0 where none up to 4,096 does.
    asked_ef, asked_ef_work
        The same for the recall that was asked for.
    """

    dataset: str
    queries: str
    asked: float
    measured: float
    error: float
    estimate: float
    work: float
    ef: int
    ef_work: float
    asked_ef: int
    asked_ef_work: float

    @property
    def text(self) -> str:
        """A line of the table."""
        ratios = [f"{self.work / work:5.2f}" if work else "    -" for work in (self.ef_work, self.asked_ef_work)]
        return (
            f"{self.dataset:28} {self.queries:24} {self.asked:5.2f} {self.measured:7.4f} +-{self.error:6.4f} "
            f"{self.estimate:8.4f} {self.work:7.0f} {ratios[0]} ({self.ef:4}) {ratios[1]} ({self.asked_ef:4})"
        )


class Subject:
    """A loaded collection, looked at from inside: what it finds and what that costs."""

    def __init__(self, opened: OpenCollection, k: int) -> None:
        self._opened = opened
        self.state = opened._state  # noqa: SLF001 - nothing else tells what a batch of searches costs
        self._k = k

    def right(self, queries: F32Array) -> F32Array:
        """Distance of the k-th nearest row of each query, (nq,)."""
        return self._found(SearchRequest(queries, self._k, recall=1.0))[0][:, -1]

    def found(self, queries: F32Array, right: F32Array, recall: float, ef: int | None = None) -> tuple[F32Array, float]:
        """Recall of each query, and mean distance computations."""
        distances, work = self._found(SearchRequest(queries, self._k, recall=recall, ef=ef))
        return (distances <= right[:, None]).mean(axis=1, dtype=np.float32), work / len(queries)

    def cheapest_ef(self, queries: F32Array, right: F32Array, recall: float) -> tuple[int, float]:
        """The smallest ef that reaches the recall, and its distance computations."""
        low, high = 0, EF_MAX
        while high - low > max(1, high // 64):
            middle = max(1, int((low * high) ** 0.5)) if low else min(64, (low + high) // 2)
            middle = min(max(middle, low + 1), high - 1)
            if self.found(queries, right, 0.5, middle)[0].mean() >= recall:
                high = middle
            else:
                low = middle
        found, work = self.found(queries, right, 0.5, high)
        return (high, work) if found.mean() >= recall else (0, 0.0)

    def drain(self) -> None:
        """Return when no check of a live query waits."""
        self._opened.wait_recall_checked(600.0)

    def _found(self, request: SearchRequest) -> tuple[F32Array, int]:
        """Distances of the nearest, (nq, k), and distance computations."""
        search = plan_search(self.state, self.state.view, request)
        work = 0
        parts: list[F32Array] = []
        for each in search.planned:
            index = {Strategy.GRAPH: each.part.graph, Strategy.SCAN: each.part.scan}.get(
                each.plan.strategy, each.part.exact
            )
            answer = index.search(search.queries, request.k, beam=each.plan.beam, allowed=each.allowed)
            work += answer.distance_computations
            parts.append(answer.topk.distances)
        return np.sort(np.concatenate(parts, axis=1), axis=1)[:, : request.k], work


def noisy(queries: F32Array, share: float, seed: int) -> F32Array:
    """Queries with normal noise of ``share`` of their length."""
    noise = np.random.default_rng(seed).standard_normal(queries.shape, np.float32)
    lengths = np.linalg.norm(queries, axis=1, keepdims=True)
    return np.asarray(queries + share * lengths * noise / np.sqrt(queries.shape[1]), np.float32)


def tell(line: str) -> None:
    """Print it now: a run takes minutes."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Run:
    """One data set."""

    def __init__(self, arguments: argparse.Namespace, dataset: str, directory: Path) -> None:
        self._arguments = arguments
        self._directory = directory
        self._vectors = source_of(dataset, arguments.seed, arguments.queries)
        self.cells: list[Cell] = []

    def load(self) -> None:
        """Build the database."""
        vectors = self._vectors
        train = vectors.train[: self._arguments.rows]
        spec = IndexSpec(IndexKind.HNSW)
        with EmbeddedDatabase.open(self._directory, options=EngineOptions(memtable_size_bytes=2**30)) as database:
            begun_s = time.perf_counter()
            docs = database.create_collection("docs", train.shape[1], vectors.metric, spec)
            for at in range(0, len(train), BATCH_ROWS):
                ids = np.arange(at, min(at + BATCH_ROWS, len(train)))
                docs.upsert(ids.tolist(), train[at : at + BATCH_ROWS])
            docs.wait_indexed(36_000.0)
            tell(f"{vectors.name}: {train.shape} loaded in {time.perf_counter() - begun_s:.0f} s")

    def measure(self) -> None:
        """All cells."""
        arguments = self._arguments
        queries = self._vectors.queries[: arguments.queries]
        half = len(queries) // 2
        with self._opened(checked_share=0.0) as (subject, _):
            right = subject.right(queries)
            for asked in ASKED:
                self._cell(subject, "like the data", queries, right, asked)
        away = np.concatenate([noisy(queries[half:], arguments.noise, seed) for seed in (1, 2)])
        live = np.concatenate([noisy(queries[:half], arguments.noise, seed) for seed in (3, 4)])[: arguments.live]
        for asked in ASKED:
            with self._opened(checked_share=0.02) as (subject, search):
                right = subject.right(away)
                self._cell(subject, "noise, before", away, right, asked)
                for query in live:
                    search(query, asked)
                subject.drain()
                self._cell(subject, f"noise, after {len(live)} live", away, right, asked)

    def _cell(self, subject: Subject, name: str, queries: F32Array, right: F32Array, asked: float) -> None:
        recalls, work = subject.found(queries, right, asked)
        same = subject.cheapest_ef(queries, right, float(recalls.mean()))
        wanted = subject.cheapest_ef(queries, right, asked)
        state = subject.state
        planned = plan_search(state, state.view, SearchRequest(queries[:1], self._arguments.k, recall=asked)).planned
        estimate = sum(each.count * each.plan.recall_estimate for each in planned) / sum(each.count for each in planned)
        error = float(recalls.std() / np.sqrt(len(recalls)))
        measured = float(recalls.mean())
        cell = Cell(self._vectors.name, name, asked, measured, error, estimate, work, *same, *wanted)
        tell(cell.text)
        self.cells.append(cell)

    @contextmanager
    def _opened(self, checked_share: float) -> Iterator[tuple[Subject, Callable[[F32Array, float], object]]]:
        """The database, opened anew, so that nothing was learnt."""
        options = EngineOptions(recall_checked_share=checked_share, recall_check_busy_share_max=1.0)
        with EmbeddedDatabase.open(self._directory, options=options) as database:
            docs = database.collection("docs")
            with database._lease(docs.name, docs.collection_id) as opened:  # noqa: SLF001
                yield (
                    Subject(opened, self._arguments.k),
                    lambda query, recall: docs.search(query, k=self._arguments.k, recall=recall),
                )


def main(arguments_given: Sequence[str] | None = None) -> int:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--dataset", action="append", required=True, help="as of vecdb bench; several times for several"
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--live", type=int, default=500)
    parser.add_argument("--noise", type=float, default=0.6, help="length of the noise over that of the query")
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(arguments_given)
    cells: list[Cell] = []
    tell(f"{'data':28} {'queries':24} asked measured          estimate    work ratio (ef), of asked")
    for dataset in arguments.dataset:
        with tempfile.TemporaryDirectory() as directory:
            run = Run(arguments, dataset, Path(directory) / "db")
            run.load()
            run.measure()
            cells += run.cells
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(cell) for cell in cells], indent=1))
    short = [
        cell for cell in cells if cell.measured < cell.asked - SHORTFALL_MAX and not cell.queries.endswith("before")
    ]
    for cell in short:
        tell(f"too low: {cell.text}")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
