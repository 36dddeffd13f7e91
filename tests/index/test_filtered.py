"""Walks among allowed rows: what they may return, how many, and that they find what is near, wherever it lies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.index.test_hnsw import KERNELS, clustered, index_of, recall
from vecdb.bitmap import Bitmap
from vecdb.index.hnsw import HnswParams, beam_for_recall
from vecdb.kernels.arrays import Beam
from vecdb.types import Metric


@given(
    n=st.integers(1, 300),
    dim=st.sampled_from([1, 17, 260]),
    metric=st.sampled_from(list(Metric)),
    kinds=st.sampled_from([1, 3, 1000]),
    allowing=st.sampled_from(["all", "one", "none", "some", "most", "far", "first"]),
    beam=st.sampled_from([Beam(1), Beam(12), Beam(64, 68_000), Beam(400, 80_000)]),
    k=st.sampled_from([1, 10, 60]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40)
def test_only_allowed_rows_and_as_many_as_there_are(n, dim, metric, kinds, allowing, beam, k, seed):
    rng = np.random.default_rng(seed)
    pool = rng.normal(size=(kinds, dim)).astype(np.float32)
    vectors = pool[rng.integers(0, kinds, n)]
    if metric is Metric.COSINE:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[:3]
    members = {
        "all": np.ones(n, np.bool_),
        "one": np.arange(n) == rng.integers(n),
        "none": np.zeros(n, np.bool_),
        "some": rng.random(n) < 0.2,
        "most": rng.random(n) < 0.9,
        "far": ((vectors - queries[0]) ** 2).sum(axis=1) > np.median(((vectors - queries[0]) ** 2).sum(axis=1)),
        "first": np.arange(n) < n // 4,
    }[allowing]
    index = index_of(vectors, metric, HnswParams(m=4, ef_construction=16, seed=seed))
    answer = index.search(queries, k, beam=beam, allowed=Bitmap.from_bools(members))
    wanted = min(k, int(members.sum()))
    assert answer.fewest == wanted
    assert (answer.topk.slots[:, :wanted] >= 0).all()
    assert (answer.topk.slots[:, wanted:] == -1).all()
    for line, distances in zip(answer.topk.slots[:, :wanted], answer.topk.distances, strict=True):
        assert members[line].all()
        assert np.unique(line).shape[0] == wanted
        assert (np.diff(distances[:wanted]) >= 0).all()
    exact = KERNELS.rerank(vectors, queries, answer.topk.slots, metric, k)
    np.testing.assert_array_equal(answer.topk.distances, exact.distances)
    if beam.ef >= members.sum() and members.all():
        right = KERNELS.scan_topk(vectors, queries, metric, k)
        np.testing.assert_array_equal(answer.topk.distances, right.distances)


@pytest.fixture(scope="module")
def islands():
    """Rows in groups far from each other, and queries near those of the first."""
    rng = np.random.default_rng(5)
    centres = 6 * rng.normal(size=(20, 24))
    group = rng.integers(0, 20, 6000)
    vectors = (centres[group] + rng.normal(size=(6000, 24))).astype(np.float32)
    queries = (centres[0] + rng.normal(size=(60, 24))).astype(np.float32)
    return vectors, group, queries, index_of(vectors, Metric.L2, HnswParams())


@pytest.mark.parametrize(
    "allowing", ["the group of the queries", "all other groups", "one far group", "two far groups", "by chance"]
)
def test_correlated_filters_reach_their_recall(islands, allowing):
    vectors, group, queries, index = islands
    farthest = np.argsort(((vectors - queries.mean(axis=0)) ** 2).sum(axis=1))
    members = {
        "the group of the queries": group == 0,
        "all other groups": group != 0,
        "one far group": group == group[farthest[-1]],
        "two far groups": (group == group[farthest[-1]]) | (group == group[farthest[-1000]]),
        "by chance": np.random.default_rng(6).random(6000) < 0.1,
    }[allowing]
    allowed = Bitmap.from_bools(members)
    right = KERNELS.scan_topk(vectors, queries, Metric.L2, 10, allowed.words)
    for wanted in (0.9, 0.95, 0.99):
        beam = beam_for_recall(10, wanted, float(members.mean()))
        answer = index.search(queries, 10, beam=beam, allowed=allowed)
        assert answer.fewest == 10
        assert recall(answer.topk, right) >= wanted - 0.01
        # It walks: it does not look at all rows, nor, where many are allowed, at all of these.
        assert answer.distance_computations < 60 * max(0.6 * members.sum(), 900)


def test_a_walk_costs_about_as_much_with_most_rows_allowed_as_with_all(rng):
    vectors = clustered(rng, 4100, 48, Metric.L2)
    vectors, queries = vectors[:4000], vectors[4000:]
    index = index_of(vectors, Metric.L2, HnswParams())
    beam = Beam(64)
    free = index.search(queries, 10, beam=beam)
    most = index.search(queries, 10, beam=beam, allowed=Bitmap.from_bools(np.arange(4000) % 20 != 0))
    assert most.distance_computations < 1.6 * free.distance_computations
