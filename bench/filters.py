"""Filtered searches beside unfiltered ones: recall, short answers and speed, by what a filter allows.

``python bench/filters.py --dataset text.hdf5`` loads a data set into one segment and asks for its queries under filters
that allow rows by chance, those on one side of the data (``direction``), and those nearest to and farthest from the
group that a query belongs to (``near``, ``far``: k-means of a sample). Exit status 1 where an answer was short, or
where the mean recall of a cell is more than 0.01 below what was asked for.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import vecdb
from vecdb import Field
from vecdb.api import Collection
from vecdb.bench.sources import source_of
from vecdb.engine.options import EngineOptions
from vecdb.filter import Filter
from vecdb.results.hits import Hits
from vecdb.types import AnyArray, F32Array, Metric

BATCH_ROWS = 1_000
K = 10
GROUPS = 16
KINDS = ("random", "near", "far", "direction")
SELECTIVITIES = (0.001, 0.01, 0.05, 0.10, 0.25, 0.50, 0.90)
RECALLS = (0.90, 0.95, 0.99)
TOLERANCE = 0.01
BASELINE_QUERIES = 250
SAMPLE_ROWS = 20_000
ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Cell:
    """What the queries found under one kind of filter.

    Attributes
    ----------
    recall
        Mean recall@10.
    short
        Answers with fewer than ``min(k, matches)`` hits.
    us
        Microseconds of processor time a search, one query a call.
    of_unfiltered
        Searches a second over those without a filter, taken before and after.
    distances, hops
        Means of a search.
    strategies
        How many of the searches that were explained were done how.
    """

    kind: str
    selectivity: float
    asked: float
    recall: float
    short: int
    us: float
    of_unfiltered: float
    distances: float
    hops: float
    strategies: dict[str, int]

    @property
    def fails(self) -> bool:
        """Whether it is not what was promised."""
        return self.short > 0 or self.recall < self.asked - TOLERANCE


def groups_of(vectors: F32Array, chance: np.random.Generator) -> F32Array:
    """Centres of groups of similar rows, (GROUPS, dim) float32: k-means of a sample."""
    sample = vectors[chance.choice(len(vectors), min(SAMPLE_ROWS, len(vectors)), replace=False)]
    centres = sample[chance.choice(len(sample), GROUPS, replace=False)].copy()
    for _ in range(ROUNDS):
        nearest = np.argmin(apart(sample, centres), axis=1)
        for group in np.unique(nearest):
            centres[group] = sample[nearest == group].mean(axis=0)
    return centres


def apart(rows: F32Array, centres: F32Array) -> AnyArray:
    """Squared distances, (rows, centres), but for a constant of each row."""
    found: AnyArray = (centres * centres).sum(axis=1) - 2 * rows @ centres.T
    return found


def ranks(values: AnyArray) -> AnyArray:
    """The place of each value in their order."""
    places = np.empty(len(values), np.int64)
    places[np.argsort(values, kind="stable")] = np.arange(len(values))
    return places


def load(collection: Collection, vectors: F32Array, centres: F32Array, chance: np.random.Generator) -> None:
    """Write all rows, with the fields that filters ask for, and wait for the graph."""
    towards = np.asarray(chance.standard_normal(vectors.shape[1]), np.float32)
    fields = {"random": ranks(chance.random(len(vectors))), "along": ranks(vectors @ towards)}
    fields |= {f"from{group}": ranks(apart(vectors, centres[[group]])[:, 0]) for group in range(GROUPS)}
    for at in range(0, len(vectors), BATCH_ROWS):
        rows = range(at, min(at + BATCH_ROWS, len(vectors)))
        payloads = [{name: int(values[row]) for name, values in fields.items()} for row in rows]
        collection.upsert(rows, vectors[at : rows.stop], payloads)
    collection.flush()
    collection.wait_indexed()


def filter_of(kind: str, rows: int, allowed: int, group: int) -> Filter:
    """The filter of this kind that allows so many rows, for queries of a group."""
    if kind == "near":
        return Field(f"from{group}") < allowed
    if kind == "far":
        return Field(f"from{group}") >= rows - allowed
    return Field("random" if kind == "random" else "along") < allowed


def timed(
    collection: Collection, queries: F32Array, recall: float, filters: Sequence[Filter | None]
) -> tuple[list[Hits], float]:
    """The answers, one query a call, and microseconds of processor time of one."""
    start = time.process_time()
    answers = [
        collection.search(query, k=K, recall=recall, where=where) for query, where in zip(queries, filters, strict=True)
    ]
    return answers, (time.process_time() - start) / len(queries) * 1e6


def measure(collection: Collection, queries: F32Array, groups: AnyArray, kind: str, selectivity: float) -> list[Cell]:
    """The cells of one kind and selectivity, one for each recall asked for."""
    rows = collection.count()
    allowed = max(K, round(rows * selectivity))
    filters = [filter_of(kind, rows, allowed, int(group)) for group in groups]
    truth: list[set[object]] = [set() for _ in queries]
    for where in dict.fromkeys(filters):
        of = [number for number, each in enumerate(filters) if each == where]
        for number, hits in zip(
            of, collection.search_batch(queries[of], k=K, recall="exact", where=where), strict=True
        ):
            truth[number] = set(hits.ids)
    plain = queries[:BASELINE_QUERIES]
    nothing = [None] * len(plain)
    found = []
    for recall in RECALLS:
        _, before = timed(collection, plain, recall, nothing)
        answers, spent = timed(collection, queries, recall, filters)
        _, after = timed(collection, plain, recall, nothing)
        right = sum(len(ids & set(hits.ids)) for ids, hits in zip(truth, answers, strict=True))
        short = sum(len(hits) < len(ids) for ids, hits in zip(truth, answers, strict=True))
        told = [
            collection.explain(query, k=K, recall=recall, where=where)
            for query, where in zip(queries[:100], filters[:100], strict=True)
        ]
        found.append(
            Cell(
                kind,
                selectivity,
                recall,
                right / (K * len(queries)),
                short,
                spent,
                (before + after) / 2 / spent,
                float(np.mean([sum(part.distance_computations for part in each.parts) for each in told])),
                float(np.mean([sum(part.hops for part in each.parts) for each in told])),
                dict(Counter(each.strategy for each in told)),
            )
        )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python bench/filters.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", default="clustered-384-cosine-100k", help="as for vecdb bench")
    parser.add_argument("--rows", type=int, help="only the first rows of the data set")
    parser.add_argument("--queries", type=int, default=1_000, help="queries of a cell (default 1,000)")
    parser.add_argument("--out", type=Path, help="write the cells to this file as JSON")
    parser.add_argument("--keep", type=Path, help="the database, kept there and used again")
    chosen = parser.parse_args(arguments)

    source = source_of(chosen.dataset, seed=0)
    vectors, queries = source.train[: chosen.rows], source.queries[: chosen.queries]
    if source.metric is Metric.COSINE:
        vectors, queries = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (vectors, queries))
    chance = np.random.default_rng(0)
    centres = groups_of(vectors, chance)
    groups = np.argmin(apart(queries, centres), axis=1)
    # One segment, and as many bytes of memory as that takes.
    options = EngineOptions(memtable_size_bytes=2**36, memory_size_bytes_max=2**37)
    cells: list[Cell] = []
    with tempfile.TemporaryDirectory() as scratch, vecdb.open(chosen.keep or scratch, options=options) as database:
        database.kernels.warm_up()
        collection = database.create_collection(
            "filters", dim=vectors.shape[1], metric=source.metric.value, exist_ok=True
        )
        if collection.count() == 0:
            load(collection, vectors, centres, chance)
        collection.search_batch(queries, k=K)
        for kind in KINDS:
            for selectivity in SELECTIVITIES:
                for cell in measure(collection, queries, groups, kind, selectivity):
                    cells.append(cell)
                    sys.stdout.write(
                        f"{kind:10} {selectivity:6.1%} asked {cell.asked:.2f} recall {cell.recall:.4f} "
                        f"short {cell.short} {cell.us:7.0f} us {cell.of_unfiltered:5.2f} of unfiltered "
                        f"{cell.distances:8.0f} distances {cell.hops:5.0f} hops "
                        f"{cell.strategies}{'  FAILS' if cell.fails else ''}\n"
                    )
                    sys.stdout.flush()
    if chosen.out is not None:
        chosen.out.write_text(json.dumps([asdict(each) for each in cells], indent=1) + "\n")
    return int(any(each.fails for each in cells))


if __name__ == "__main__":
    raise SystemExit(main())
