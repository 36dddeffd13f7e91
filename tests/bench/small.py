"""A small data set with structure."""

from pathlib import Path

import numpy as np

from vecdb.bench.dataset import Dataset, RawVectors, with_truth
from vecdb.bench.engines.protocol import BenchVectors
from vecdb.bench.sources import clustered_vectors
from vecdb.bench.truth import unit_rows
from vecdb.types import F32Array, Metric

ROWS, QUERIES, DIM, K = 600, 20, 24, 10


def small_vectors(metric: Metric, seed: int = 3) -> RawVectors:
    vectors = clustered_vectors(np.random.default_rng(seed), ROWS + QUERIES, DIM)
    return RawVectors("small", "test", metric, vectors[:ROWS], vectors[ROWS:].copy())


def small_dataset(metric: Metric, cache: Path) -> Dataset:
    return with_truth(small_vectors(metric), K, cache)


def bench_vectors(raw: RawVectors) -> BenchVectors:
    train, queries = read_only(raw.train), read_only(raw.queries)
    if raw.metric is not Metric.COSINE:
        return BenchVectors(raw.metric, train, queries, train, queries)
    return BenchVectors(raw.metric, train, queries, read_only(unit_rows(train)), read_only(unit_rows(queries)))


def read_only(array: F32Array) -> F32Array:
    """As an engine gets it in a run, mapped from a file."""
    view = array.view()
    view.flags.writeable = False
    return view
