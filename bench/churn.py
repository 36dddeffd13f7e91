"""What ten times as many writes as rows do to a collection: answers, recall, disk, memory and latency.

``python bench/churn.py --dataset clustered-384-cosine-100k`` loads a data set, overwrites and deletes rows at random
until ``--times`` as many writes were made, with compaction in the background and a search all the while, and compares
what is left with a fresh load of the same rows. Exit status 1 where an answer was short or wrong, or a file is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

import vecdb
from vecdb.api import Collection
from vecdb.bench.memory import memory_use
from vecdb.bench.sources import source_of
from vecdb.engine.check import check_database
from vecdb.types import F32Array, I64Array

BATCH_ROWS = 500
K = 10
GROUPS = 20
IDLE_S = 10.0


@dataclass
class Measured:
    """What was found.

    Attributes
    ----------
    recall, recall_fresh
        recall@10 at default settings against exact search, after the churn and of a fresh load. It depends on the
        number of segments, so both are measured after a full compaction.
    disk_ratio
        Bytes of the collection over those of the fresh load, once the background is done.
    memory_bytes
        Anonymous memory, and resident pages of the database's files, after each tenth of the churn.
    problems
        What ``vecdb check`` finds afterwards, rows that no walk through the graph reaches among them.
    p99_ms
        Of one search a call: when nothing else happens, during the churn, and during a full compaction.
    """

    rows: int
    writes: int
    seconds: float = 0.0
    recall: float = 0.0
    recall_fresh: float = 0.0
    disk_ratio: float = 0.0
    memory_bytes: list[int] = field(default_factory=list)
    searches: int = 0
    short_answers: int = 0
    points_missing: int = 0
    problems: int = 0
    compactions: int = 0
    p99_ms: dict[str, float] = field(default_factory=dict)


class Searcher:
    """One thread that searches without a pause."""

    def __init__(self, collection: Collection, queries: F32Array) -> None:
        self._collection = collection
        self._queries = queries
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.seconds: list[float] = []
        self.short = 0

    def __enter__(self) -> Searcher:
        self._thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            query = self._queries[len(self.seconds) % len(self._queries)]
            begun = time.perf_counter()
            hits = self._collection.search(query, k=K)
            self.seconds.append(time.perf_counter() - begun)
            self.short += len(hits) < K or len(set(hits.ids)) < K or not hits.complete

    def p99_ms(self) -> float:
        """Of all searches so far."""
        return float(np.percentile(self.seconds, 99)) * 1e3


class Churn:
    """A collection and what it should hold.

    ``held`` is the vector of each id as a row of the data set, -1 where the id is deleted.
    """

    def __init__(self, collection: Collection, vectors: F32Array, seed: int) -> None:
        self.collection = collection
        self.vectors = vectors
        self.held: I64Array = np.full(len(vectors), -1, np.int64)
        self._rng = np.random.default_rng(seed)

    def put(self, ids: I64Array, rows: I64Array) -> None:
        """Write ids with vectors of the data set."""
        payloads = [{"row": int(row), "group": int(each) % GROUPS} for each, row in zip(ids, rows, strict=True)]
        self.collection.upsert(ids, self.vectors[rows], payloads)
        self.held[ids] = rows

    def step(self) -> int:
        """A batch of overwrites, or of deletes followed by as many inserts; the number of rows written."""
        ids = self._rng.choice(len(self.held), BATCH_ROWS, replace=False)
        if self._rng.random() < 0.3:
            gone = ids[self.held[ids] >= 0][: BATCH_ROWS // 2]
            self.collection.delete(gone)
            self.held[gone] = -1
            missing = np.flatnonzero(self.held < 0)
            ids = self._rng.choice(missing, min(len(missing), BATCH_ROWS // 2), replace=False)
        self.put(ids, self._rng.integers(0, len(self.vectors), len(ids)))
        return BATCH_ROWS

    def missing(self) -> int:
        """Points that an exact search does not find, or finds with another payload, and those that should be gone."""
        wrong = 0
        for group in range(GROUPS):
            expected = {each: int(self.held[each]) for each in range(group, len(self.held), GROUPS)}
            expected = {each: row for each, row in expected.items() if row >= 0}
            hits = self.collection.search(
                self.vectors[0], k=10_000, where="group = :g", params={"g": group}, recall="exact"
            )
            found = {hit.id: hit.payload["row"] for hit in hits if hit.payload is not None}
            wrong += len(set(expected.items()) ^ set(found.items()))
        return wrong


def recall_of(collection: Collection, queries: F32Array) -> float:
    """Mean recall@10 at default settings."""
    exact = collection.search_batch(queries, k=K, recall="exact")
    found = collection.search_batch(queries, k=K)
    return float(np.mean([len(set(a.ids) & set(b.ids)) / K for a, b in zip(exact, found, strict=True)]))


def settled(collection: Collection) -> None:
    """Return when the background has nothing left to do."""
    collection.wait_indexed(3_600)
    quiet = 0
    while quiet < 20:
        before = collection.stats()
        time.sleep(0.1)
        after = collection.stats()
        done = before.segments == after.segments and before.disk_bytes == after.disk_bytes
        quiet = quiet + 1 if done and not after.unindexed_rows else 0


def churned(path: Path, vectors: F32Array, queries: F32Array, metric: str, times: float, seed: int) -> Measured:
    """Load, churn, look, and load afresh."""
    wanted = int(times * len(vectors))
    found = Measured(len(vectors), wanted)
    with vecdb.open(path / "churned") as database:
        database.kernels.warm_up()
        collection = database.create_collection("churn", dim=vectors.shape[1], metric=metric)
        churn = Churn(collection, vectors, seed)
        everything = np.arange(len(vectors))
        for at in range(0, len(vectors), BATCH_ROWS):
            churn.put(everything[at : at + BATCH_ROWS], everything[at : at + BATCH_ROWS])
        settled(collection)
        with Searcher(collection, queries) as searcher:
            time.sleep(IDLE_S)
        found.p99_ms["idle"] = searcher.p99_ms()
        written, begun = 0, time.perf_counter()
        with Searcher(collection, queries) as searcher:
            while written < wanted:
                written += churn.step()
                if written // BATCH_ROWS % max(1, wanted // BATCH_ROWS // 10) == 0:
                    found.memory_bytes.append(memory_bytes(path))
                    tell(f"{written:,} writes, {collection.stats().segments} segments, {searcher.short} short answers")
        found.seconds = time.perf_counter() - begun
        found.p99_ms["churn"] = searcher.p99_ms()
        found.searches, found.short_answers = len(searcher.seconds), searcher.short
        collection.flush()
        settled(collection)
        found.points_missing = churn.missing()
        disk_bytes = collection.stats().disk_bytes
        found.compactions = collection.stats().events.get("compactions", 0)
        with Searcher(collection, queries) as searcher:
            collection.compact(3_600)
        found.p99_ms["compaction"] = searcher.p99_ms()
        found.short_answers += searcher.short
        found.points_missing += churn.missing()
        found.recall = recall_of(collection, queries)
    problems = check_database(path / "churned").problems
    for each in problems[:10]:
        tell(str(each))
    found.problems = len(problems)
    with vecdb.open(path / "fresh") as database:
        fresh = Churn(database.create_collection("churn", dim=vectors.shape[1], metric=metric), vectors, seed)
        ids = np.flatnonzero(churn.held >= 0)
        for at in range(0, len(ids), BATCH_ROWS):
            fresh.put(ids[at : at + BATCH_ROWS], churn.held[ids[at : at + BATCH_ROWS]])
        settled(fresh.collection)
        found.disk_ratio = disk_bytes / fresh.collection.stats().disk_bytes
        fresh.collection.compact(3_600)
        found.recall_fresh = recall_of(fresh.collection, queries)
    return found


def memory_bytes(directory: Path) -> int:
    """Anonymous memory of this process, and the resident pages of its database."""
    use = memory_use(os.getpid(), directory)
    assert use is not None, "this system does not tell"
    return use.total_bytes


def tell(line: str) -> None:
    """A line on standard error."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--dataset", default="clustered-384-cosine-100k", help="a name or a file, as for vecdb bench")
    parser.add_argument("--times", type=float, default=10.0, help="writes as a multiple of the rows (default 10)")
    parser.add_argument("--rows", type=int, help="only the first rows of the data set")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    raw = source_of(chosen.dataset, seed=chosen.seed)
    vectors = np.ascontiguousarray(raw.train[: chosen.rows])
    with tempfile.TemporaryDirectory() as where:
        found = churned(Path(where), vectors, raw.queries[:1_000], raw.metric.value, chosen.times, chosen.seed)
    sys.stdout.write(json.dumps({**asdict(found), "load": os.getloadavg()}, indent=2) + "\n")
    return 0 if found.short_answers == found.points_missing == found.problems == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
