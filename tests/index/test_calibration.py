"""Calibration: what is measured is what an oracle measures, the same every time, and it holds for other queries."""

import numpy as np
import pytest

from tests.index.test_hnsw import KERNELS, built, clustered, recall
from vecdb.index.hnsw import Calibration, HnswIndex, HnswParams, RecallCurves
from vecdb.index.hnsw.curves import walk_room
from vecdb.kernels.arrays import Beam
from vecdb.types import Metric

N = 5000
PARAMS = HnswParams(m=8, ef_construction=48, seed=5)


@pytest.fixture(scope="module")
def graph():
    vectors = clustered(np.random.default_rng(3), N + 400, 24, Metric.COSINE)
    arrays, codes = built(vectors[:N], Metric.COSINE, PARAMS)
    return vectors[:N], vectors[N:], arrays, codes


@pytest.fixture(scope="module")
def measured(graph):
    vectors, _, arrays, codes = graph
    calibration = Calibration(KERNELS, codes, vectors, arrays, PARAMS)
    assert calibration.run()
    return calibration.arrays()


def test_the_same_every_time_and_in_other_steps(graph, measured, monkeypatch):
    vectors, _, arrays, codes = graph
    monkeypatch.setattr("vecdb.index.hnsw.calibration._CALL_COMPUTED", 1)
    monkeypatch.setattr("vecdb.index.hnsw.calibration._LINES", 700)
    monkeypatch.setattr("vecdb.index.hnsw.calibration.CALL_ROWS", 3 * N)
    again = Calibration(KERNELS, codes, vectors, arrays, PARAMS)
    assert again.run()
    assert {name: each.tobytes() for name, each in again.arrays().items()} == {
        name: each.tobytes() for name, each in measured.items()
    }


def test_what_is_measured_is_what_an_oracle_measures(graph, measured):
    vectors, _, arrays, codes = graph
    sample = Calibration(KERNELS, codes, vectors, arrays, PARAMS)._sample()
    assert sample.shape[0] >= 64
    assert not set(sample.tolist()) & set(arrays["upper_rows"].tolist())
    links = [[to for to in line if to >= 0 and to not in set(sample.tolist())] for line in arrays["links"].tolist()]
    stripped = np.full_like(arrays["links"], -1)
    for row, line in enumerate(links):
        if row not in set(sample.tolist()):
            stripped[row, : len(line)] = line
    index = HnswIndex.from_arrays(KERNELS, {**arrays, "links": stripped}, codes, vectors)
    others = np.setdiff1d(np.arange(N), sample)
    for curve in RecallCurves.from_arrays(measured).curves:
        if curve.by_ef or curve.k != 10 or curve.share != 1.0:
            continue
        right = others[np.argsort(-(vectors[sample] @ vectors[others].T), axis=1, kind="stable")[:, :10]]
        for point in curve.points:
            answer = index.search(vectors[sample], 10, beam=Beam(walk_room(10), point.breadth))
            found = answer.topk.slots
            assert not np.isin(found, sample).any()
            hits = [len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), right.tolist(), strict=True)]
            assert point.recall == pytest.approx(np.mean(hits), abs=0.003)
            assert point.cost == answer.distance_computations / sample.shape[0]


def test_the_work_suffices_for_every_kind_of_walk(monkeypatch):
    # Rows without structure, of which walks look at most.
    monkeypatch.setattr("vecdb.index.hnsw.calibration.ALLOWED_MIN", 100)
    vectors = np.random.default_rng(8).normal(size=(N, 16)).astype(np.float32)
    arrays, codes = built(vectors, Metric.L2, PARAMS)
    calibration = Calibration(KERNELS, codes, vectors, arrays, PARAMS)
    assert calibration.run()
    curves = RecallCurves.from_arrays(calibration.arrays()).curves
    by_slack = {(each.k, each.share) for each in curves if not each.by_ef}
    assert by_slack == {(10, 1.0), (1, 1.0), (100, 1.0), *((10, share) for share in (0.9, 0.5, 0.2, 0.05))}
    assert {each.k for each in curves if each.by_ef} == {1, 10, 100}


@pytest.mark.parametrize("k", [1, 10, 40])
def test_other_queries_find_what_was_asked_for(graph, measured, k):
    vectors, queries, arrays, codes = graph
    index = HnswIndex.from_arrays(KERNELS, {**arrays, **measured}, codes, vectors)
    right = KERNELS.scan_topk(vectors, queries, Metric.COSINE, k)
    for asked in (0.9, 0.95, 0.99):
        answer = index.search(queries, k, beam=index.breadth.beam(k, asked))
        assert recall(answer.topk, right) >= asked - 0.01


@pytest.mark.parametrize("k", [1, 40, 400])
def test_what_is_told_of_an_ef_is_what_other_queries_find(graph, measured, k):
    vectors, queries, arrays, codes = graph[0], graph[1][:150], *graph[2:]
    index = HnswIndex.from_arrays(KERNELS, {**arrays, **measured}, codes, vectors)
    right = KERNELS.scan_topk(vectors, queries, Metric.COSINE, k)
    for ef in (1, 50, 150, 1000)[-2 if k > 100 else 0 :]:
        beam = Beam(max(ef, k))
        told = index.breadth.recall_of(beam, k)
        found = recall(index.search(queries, k, beam=beam).topk, right)
        assert abs(found - told.recall) <= 1.96 * told.error + 0.01
        # What is known is not all that there is between nothing and everything.
        assert told.error < 0.06


def test_walks_by_ef_are_measured_as_they_are_walked():
    # Where codes tell no rows apart, a walk for ten ranks fewer rows by their vectors than one for a hundred.
    rng = np.random.default_rng(4)
    centres = rng.normal(size=(20, 24))[rng.integers(0, 20, 3400)]
    vectors = (centres + 0.002 * rng.normal(size=centres.shape)).astype(np.float32)
    vectors, queries = vectors[:3000], vectors[3000:]
    arrays, codes = built(vectors, Metric.L2, PARAMS)
    calibration = Calibration(KERNELS, codes, vectors, arrays, PARAMS)
    assert calibration.run()
    index = HnswIndex.from_arrays(KERNELS, {**arrays, **calibration.arrays()}, codes, vectors)
    for k in (1, 10):
        right = KERNELS.scan_topk(vectors, queries, Metric.L2, k)
        for ef in (40, 160, 320):
            told = index.breadth.recall_of(Beam(ef), k)
            found = recall(index.search(queries, k, beam=Beam(ef)).topk, right)
            assert abs(found - told.recall) <= 3 * told.error + 0.02


def test_few_rows_are_not_calibrated_and_a_cancelled_one_stores_nothing(graph):
    vectors, _, arrays, codes = graph
    few, few_codes = built(vectors[:900], Metric.COSINE, PARAMS)
    calibration = Calibration(KERNELS, few_codes, vectors[:900], few, PARAMS)
    assert calibration.run()
    assert calibration.arrays() == {}
    assert not Calibration(KERNELS, codes, vectors, arrays, PARAMS).run(lambda: True)


def test_duplicates_are_found_whichever_of_them_it_is():
    vectors = np.repeat(clustered(np.random.default_rng(1), 300, 8, Metric.L2), 10, axis=0)
    arrays, codes = built(vectors, Metric.L2, PARAMS)
    calibration = Calibration(KERNELS, codes, vectors, arrays, PARAMS)
    assert calibration.run()
    curves = RecallCurves.from_arrays(calibration.arrays())
    assert curves is not None
    assert max(point.recall for curve in curves.curves if curve.k == 1 for point in curve.points) >= 0.9
