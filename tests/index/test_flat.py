"""Indexes without structure, against the exact scan."""

import numpy as np
import pytest

from vecdb.bitmap import Bitmap
from vecdb.errors import Corruption
from vecdb.index.codes import ScalarCodes
from vecdb.index.flat import CodedFlatIndex, FlatIndex
from vecdb.index.hnsw import HnswBuilder, HnswIndex, HnswParams
from vecdb.kernels.cpu import CpuKernels
from vecdb.types import Metric

KERNELS = CpuKernels()


def both(vectors, metric):
    yield FlatIndex(KERNELS, vectors, metric)
    yield CodedFlatIndex(KERNELS, ScalarCodes.encode(KERNELS, vectors, metric), vectors)


@pytest.mark.parametrize("metric", list(Metric))
def test_both_find_the_exact_nearest(rng, metric):
    vectors = rng.normal(size=(1000, 40)).astype(np.float32)
    queries = rng.normal(size=(7, 40)).astype(np.float32)
    right = KERNELS.scan_topk(vectors, queries, metric, 10)
    for index in both(vectors, metric):
        answer = index.search(queries, 10)
        np.testing.assert_array_equal(answer.topk.slots, right.slots)
        np.testing.assert_array_equal(answer.topk.distances, right.distances)
        assert (answer.distance_computations, answer.hops) == (7000, 0)
        assert (index.rows, index.metric, index.check()) == (1000, metric, [])


@pytest.mark.parametrize("count", [0, 1, 4, 300])
def test_only_allowed_rows_are_found_and_all_of_them(rng, count):
    vectors = rng.normal(size=(300, 9)).astype(np.float32)
    rows = rng.permutation(300)[:count]
    allowed = Bitmap.from_bools(np.isin(np.arange(300), rows))
    for index in both(vectors, Metric.L2):
        answer = index.search(vectors[:3], 400, allowed=allowed)
        assert answer.topk.slots.shape == (3, 400)
        for line in answer.topk.slots:
            assert sorted(line[line >= 0].tolist()) == sorted(rows.tolist())
        assert answer.distance_computations == 3 * count


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_rows(n):
    vectors = np.arange(n * 3, dtype=np.float32).reshape(n, 3)
    for index in both(vectors, Metric.L2):
        answer = index.search(np.zeros((2, 3), np.float32), 3)
        assert answer.topk.slots.tolist() == [[*range(n), *[-1] * (3 - n)]] * 2


def test_rows_are_ensured_before_they_are_read(rng):
    vectors = rng.normal(size=(200, 4)).astype(np.float32)
    for index in both(vectors, Metric.L2):
        asked = []
        even = Bitmap.from_bools(np.arange(200) % 2 == 0)
        answer = index.search(vectors[:5], 2, allowed=even, ensure=asked.append)
        (slots,) = asked
        assert slots.dtype == np.int64
        assert (np.diff(slots) > 0).all()
        assert np.isin(answer.topk.slots, slots).all()
        assert (slots % 2 == 0).all()

        def refuse(_slots):
            raise Corruption("a bad block", field="vectors")

        with pytest.raises(Corruption):
            index.search(vectors[:5], 2, ensure=refuse)


@pytest.mark.parametrize("metric", list(Metric))
def test_what_codes_cannot_tell_apart_is_told_by_vectors(rng, metric):
    # All within a hundredth of a code level of each other, but for one row that the levels come from.
    vectors = (1.0 + 1e-5 * rng.normal(size=(300, 20))).astype(np.float32)
    vectors[7] = 100.0
    queries = vectors[:40] + 1e-6
    codes = ScalarCodes.encode(KERNELS, vectors, metric)
    right = KERNELS.scan_topk(vectors, queries, metric, 3)
    for ensure in (None, lambda slots: None):
        found = CodedFlatIndex(KERNELS, codes, vectors).search(queries, 3, ensure=ensure).topk
        np.testing.assert_array_equal(found.slots, right.slots)
        np.testing.assert_array_equal(found.distances, right.distances)


def test_rows_whose_codes_err_alike_are_ranked_too(rng):
    # Components that are clipped err by more than rounding does, in the same way in many rows.
    vectors = (rng.random((5000, 200)) < 0.02).astype(np.float32)
    vectors[:, 0] += 0.1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[:100] + 1e-4
    index = CodedFlatIndex(KERNELS, ScalarCodes.encode(KERNELS, vectors, Metric.COSINE), vectors)
    for k in (1, 10):
        answer = index.search(queries, k)
        right = KERNELS.scan_topk(vectors, queries, Metric.COSINE, k)
        assert answer.reranked >= k + 32
        assert (answer.topk.distances <= right.distances[:, -1:]).mean() >= 0.93


def test_long_rows_are_found_by_dot_though_their_codes_end(rng):
    vectors = rng.normal(size=(8000, 60)) * rng.lognormal(0, 0.4, (8000, 1))
    vectors = vectors.astype(np.float32)
    queries = rng.normal(size=(200, 60)).astype(np.float32)
    codes = ScalarCodes.encode(KERNELS, vectors, Metric.DOT)
    assert np.isin(codes.codes.table, (1, 255)).any()
    index = CodedFlatIndex(KERNELS, codes, vectors)
    for k in (1, 10, 100):
        answer = index.search(queries, k)
        right = KERNELS.scan_topk(vectors, queries, Metric.DOT, k)
        assert (answer.topk.distances <= right.distances[:, -1:]).mean() >= 0.998
        assert answer.reranked >= max(3 * k, k + 32)


def test_more_queries_than_one_call_takes_are_answered_alike(rng):
    vectors = rng.normal(size=(60, 4)).astype(np.float32)
    queries = rng.normal(size=(9000, 4)).astype(np.float32)
    index = CodedFlatIndex(KERNELS, ScalarCodes.encode(KERNELS, vectors, Metric.L2), vectors)
    right = KERNELS.scan_topk(vectors, queries, Metric.L2, 2)
    for ensure in (None, lambda slots: None):
        answer = index.search(queries, 2, ensure=ensure)
        np.testing.assert_array_equal(answer.topk.slots, right.slots)
        assert answer.distance_computations == 9000 * 60
    assert index.search(queries[:0], 2).topk.slots.shape == (0, 2)


def test_a_scan_by_the_nibbles_of_a_graph_finds_what_one_by_codes_does(rng):
    vectors = rng.normal(size=(3000, 300)).astype(np.float32)
    queries = rng.normal(size=(20, 300)).astype(np.float32)
    codes = ScalarCodes.encode(KERNELS, vectors, Metric.L2)
    builder = HnswBuilder(KERNELS, codes, HnswParams(m=4, ef_construction=10))
    builder.run()
    index = HnswIndex.from_arrays(KERNELS, builder.arrays(), codes, vectors)
    assert index.graph.nibbles.table.shape[0] == 3000
    allowed = Bitmap.from_bools(rng.random(3000) < 0.5)
    right = KERNELS.scan_topk(vectors, queries, Metric.L2, 10, allowed.words)
    answer = index.scan.search(queries, 10, allowed=allowed)
    np.testing.assert_array_equal(answer.topk.slots, right.slots)
    assert answer.distance_computations == 20 * allowed.count()
