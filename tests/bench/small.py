"""A small data set with structure."""

from pathlib import Path

import numpy as np

from vecdb.bench.dataset import Dataset, RawVectors, with_truth
from vecdb.bench.engines.protocol import BenchVectors
from vecdb.bench.sources import clustered_vectors
from vecdb.bench.truth import unit_rows
from vecdb.types import Metric

ROWS, QUERIES, DIM, K = 600, 20, 24, 10


def small_vectors(metric: Metric, seed: int = 3) -> RawVectors:
    vectors = clustered_vectors(np.random.default_rng(seed), ROWS + QUERIES, DIM)
    return RawVectors("small", "test", metric, vectors[:ROWS], vectors[ROWS:].copy())


def small_dataset(metric: Metric, cache: Path) -> Dataset:
    return with_truth(small_vectors(metric), K, cache)


def bench_vectors(raw: RawVectors) -> BenchVectors:
    if raw.metric is not Metric.COSINE:
        return BenchVectors(raw.metric, raw.train, raw.queries, raw.train, raw.queries)
    return BenchVectors(raw.metric, raw.train, raw.queries, unit_rows(raw.train), unit_rows(raw.queries))
