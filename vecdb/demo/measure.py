"""Recall and speed of a collection, measured with texts that are not in it.

The truth is computed by NumPy from the vectors that were handed in, so that a search cannot be its own judge.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from vecdb.api import Collection
from vecdb.demo.report import Measures
from vecdb.types import F32Array, I64Array, PointId

K = 10
ROUNDS = 3
WARM_UP_QUERIES = 32
_TRUTH_BATCH = 64


def nearest(vectors: F32Array, queries: F32Array, k: int) -> I64Array:
    """(nq, k) int64: the rows of ``vectors`` ((n, dim), length 1) most similar to each of ``queries``, in any order."""
    found = np.empty((queries.shape[0], k), np.int64)
    for start in range(0, queries.shape[0], _TRUTH_BATCH):
        similarities = queries[start : start + _TRUTH_BATCH] @ vectors.T
        found[start : start + _TRUTH_BATCH] = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
    return found


def recall(truth: list[set[PointId]], found: list[list[PointId]]) -> float:
    """Mean share of each true set that was found."""
    shares = [len(true.intersection(ids)) / len(true) for true, ids in zip(truth, found, strict=True)]
    return float(np.mean(shares))


def measure(
    collection: Collection,
    ids: Sequence[PointId],
    vectors: F32Array,
    queries: F32Array,
    progress: Callable[[int], None],
) -> Measures:
    """Search for ``queries`` ((nq, dim)) in ``collection``, which holds ``vectors`` ((n, dim)) under ``ids``.

    ``progress`` is called with the number of searches done since its last call.
    """
    k = min(K, len(ids))
    truth: list[set[PointId]] = [{ids[row] for row in rows} for rows in nearest(vectors, queries, k)]
    for query in queries[:WARM_UP_QUERIES]:
        collection.search(query, k=k)
    collection.search_batch(queries[:WARM_UP_QUERIES], k=k)

    found: list[list[PointId]] = []
    latencies_s = np.empty((ROUNDS, queries.shape[0]))
    for latencies in latencies_s:
        found = []
        for position, query in enumerate(queries):
            start = time.perf_counter()
            found.append(list(collection.search(query, k=k).ids))
            latencies[position] = time.perf_counter() - start
        progress(queries.shape[0])
    batch_s = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        collection.search_batch(queries, k=k)
        batch_s.append(time.perf_counter() - start)
    return Measures(
        queries=queries.shape[0],
        recall_at_10=recall(truth, found),
        latency_ms_p50=float(np.percentile(latencies_s, 50)) * 1e3,
        latency_ms_p99=float(np.percentile(latencies_s, 99)) * 1e3,
        qps_single=1.0 / float(latencies_s.mean()),
        qps_batch=queries.shape[0] / float(np.median(batch_s)),
    )
