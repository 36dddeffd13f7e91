"""Every adapter whose library is installed finds the right neighbours, one by one and all at once."""

import os
import threading

import numpy as np
import pytest

from tests.bench.small import QUERIES, ROWS, K, bench_vectors, small_dataset
from vecdb.bench.dataset import RawVectors, with_truth
from vecdb.bench.engines import BY_NAME, entries_of, make_engine, missing
from vecdb.bench.truth import distances_of, recall_at
from vecdb.engine.uninterrupted import in_order
from vecdb.errors import InvalidArgument
from vecdb.types import Metric

EFFORT = 200

# 8-bit codes without a rerank decide between near neighbours by chance; everything else is near exact at this effort.
RECALL_MIN = {"faiss-hnsw-sq8": 0.9}

# Exact, or an index that another adapter already shows with its effort.
EFFORTLESS = {"faiss-flat", "faiss-hnsw-sq8", "vecdb", "vecdb-one-segment"}

IN_PROCESS = [name for name in BY_NAME if name != "vecdb-served"]


def built(name, directory, dataset):
    entry = BY_NAME[name]
    reason = missing(entry)
    if reason is not None:
        pytest.skip(reason)
    directory.mkdir()
    engine = make_engine(name, directory, 0)
    engine.prepare(bench_vectors(dataset.raw))
    engine.build()
    return engine


def recall(dataset, rows):
    raw = dataset.raw
    distances = distances_of(raw.train, raw.queries, rows, raw.metric)
    return recall_at(K, rows, distances, dataset.distances, dataset.margins)


def check(engine, dataset, recall_min):
    bound = engine.bind(K, EFFORT)
    single = np.array([bound.rows_of_one(bound.one(at)) for at in range(QUERIES)], np.int64)
    bound.few()
    batch = bound.rows_of_all(bound.all())
    assert batch.shape == (QUERIES, K)
    assert single.shape == (QUERIES, K)
    assert recall(dataset, single) >= recall_min
    assert recall(dataset, batch) >= recall_min
    assert engine.disk_bytes() > ROWS * dataset.raw.train.shape[1]


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("name", IN_PROCESS)
def test_an_adapter_finds_the_neighbours(tmp_path, name, metric):
    dataset = small_dataset(metric, tmp_path)
    # The thread that works for this one stays, for the next database.
    in_order(threading.current_thread)()
    threads = threading.active_count()
    engine = built(name, tmp_path / "engine", dataset)
    try:
        check(engine, dataset, RECALL_MIN.get(name, 0.98))
        assert engine.processes() == ()
        assert engine.parameters()
    finally:
        engine.close()
    assert threading.active_count() == threads


def test_the_served_adapter_finds_the_neighbours_and_ends_its_server(tmp_path):
    dataset = small_dataset(Metric.COSINE, tmp_path)
    engine = built("vecdb-served", tmp_path / "engine", dataset)
    (pid,) = engine.processes()
    try:
        assert pid != os.getpid()
        check(engine, dataset, 0.98)
    finally:
        engine.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("name", [name for name in IN_PROCESS if name not in EFFORTLESS])
def test_less_effort_finds_less(tmp_path, name):
    # Independent components in many dimensions: on data with structure a good graph finds everything at once.
    vectors = np.random.default_rng(5).standard_normal((1_520, 48)).astype(np.float32)
    raw = RawVectors("hard", "test", Metric.L2, vectors[:1_500], vectors[1_500:].copy())
    dataset = with_truth(raw, K, tmp_path)
    engine = built(name, tmp_path / "engine", dataset)
    try:
        found = []
        for effort in (K, EFFORT):  # one after the other: many libraries keep the effort in the index
            bound = engine.bind(K, effort)
            found.append(recall(dataset, bound.rows_of_all(bound.all())))
    finally:
        engine.close()
    assert found[0] < found[1]
    assert found[1] >= 0.95


def test_what_a_search_points_at_stays_alive(tmp_path):
    # The FAISS adapter hands raw pointers to the library: the arrays must outlive the call that made them.
    dataset = small_dataset(Metric.L2, tmp_path)
    engine = built("faiss-flat", tmp_path / "engine", dataset)
    bound = engine.bind(K, K)
    scribbled = [np.full(dataset.raw.queries.size, 1e9, np.float32) for _ in range(200)]
    rows = np.array([bound.rows_of_one(bound.one(at)) for at in range(QUERIES)])
    assert len(scribbled) == 200
    assert recall(dataset, rows) == 1.0


def test_unknown_and_repeated_engines_are_refused():
    with pytest.raises(InvalidArgument, match="nosuch"):
        entries_of(["hnswlib", "nosuch"])
    with pytest.raises(InvalidArgument, match="twice"):
        entries_of(["hnswlib", "hnswlib"])
