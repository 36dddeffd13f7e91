"""Indexes without structure, against the exact scan."""

import numpy as np
import pytest

from vecdb.bitmap import Bitmap
from vecdb.errors import Corruption
from vecdb.index.codes import ScalarCodes
from vecdb.index.flat import CodedFlatIndex, FlatIndex
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
