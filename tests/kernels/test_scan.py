"""Exact search against float64 arithmetic in NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.bitmap import Bitmap
from vecdb.kernels.cpu import CpuKernels
from vecdb.kernels.reference import ReferenceKernels
from vecdb.types import Metric, TopK

METRICS = list(Metric)


@pytest.fixture(params=[CpuKernels, ReferenceKernels], ids=["cpu", "reference"], scope="module")
def kernels(request):
    return request.param()


def exact(vectors, queries, metric):
    """Distances in float64."""
    x, q = vectors.astype(np.float64), queries.astype(np.float64)
    if metric is Metric.L2:
        return ((q[:, None, :] - x[None]) ** 2).sum(axis=2)
    return (1.0 if metric is Metric.COSINE else 0.0) - q @ x.T


@given(
    n=st.integers(0, 150),
    dim=st.integers(1, 70),
    nq=st.integers(0, 9),
    k=st.integers(1, 160),
    metric=st.sampled_from(METRICS),
    share=st.sampled_from([None, 0.0, 0.03, 0.5, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_scan_finds_the_nearest_allowed_rows(kernels, n, dim, nq, k, metric, share, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, dim)).astype(np.float32)
    queries = rng.normal(size=(nq, dim)).astype(np.float32)
    allowed = None if share is None else Bitmap.from_bools(rng.random(n) < share)
    found = kernels.scan_topk(vectors, queries, metric, k, None if allowed is None else allowed.words)
    assert found.slots.shape == found.distances.shape == (nq, k)
    assert (found.slots.dtype, found.distances.dtype) == (np.int32, np.float32)
    rows = np.arange(n) if allowed is None else allowed.rows()
    count = min(k, rows.shape[0])
    right = exact(vectors, queries, metric)
    for line in range(nq):
        slots, distances = found.slots[line], found.distances[line]
        assert (slots[count:] == -1).all()
        assert np.isinf(distances[count:]).all()
        assert len(set(slots[:count].tolist())) == count
        assert np.isin(slots[:count], rows).all()
        np.testing.assert_allclose(distances[:count], right[line, slots[:count]], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(distances[:count], np.sort(right[line, rows])[:count], rtol=1e-4, atol=1e-4)
        assert (np.diff(distances[:count]) >= 0).all()


@pytest.mark.parametrize("metric", METRICS)
def test_equal_distances_come_in_the_order_of_rows(kernels, metric):
    vectors = np.ones((100, 19), np.float32)
    vectors[::3] = 0.5
    found = kernels.scan_topk(vectors, np.ones((5, 19), np.float32), metric, 50)
    ones = [row for row in range(100) if row % 3]
    assert (found.slots == ones[:50]).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("nq", [1, 3, 4, 6])
def test_scan_and_rerank_report_the_same_bits(metric, nq, rng):
    kernels = CpuKernels()
    vectors = rng.normal(size=(77, 45)).astype(np.float32)
    queries = rng.normal(size=(nq, 45)).astype(np.float32)
    whole = kernels.scan_topk(vectors, queries, metric, 77)
    candidates = rng.permuted(np.tile(np.arange(-4, 77), (nq, 1)), axis=1).astype(np.int32)
    again = kernels.rerank(vectors, queries, np.where(candidates < 0, -1, candidates), metric, 77)
    alone = [kernels.scan_topk(vectors, query[None], metric, 77).distances[0] for query in queries]
    np.testing.assert_array_equal(whole.slots, again.slots)
    np.testing.assert_array_equal(whole.distances.view(np.int32), again.distances.view(np.int32))
    np.testing.assert_array_equal(whole.distances.view(np.int32), np.array(alone).view(np.int32))


def test_arguments_may_be_read_only_and_are_not_written(kernels, rng):
    vectors = rng.normal(size=(20, 8)).astype(np.float32)
    vectors.flags.writeable = False
    found = kernels.scan_topk(vectors, vectors[:2], Metric.L2, 1, Bitmap.full(20).words)
    assert found.slots[:, 0].tolist() == [0, 1]


def test_huge_values_do_not_break_the_order(kernels):
    vectors = np.array([[3e38, 0], [1, 0], [-3e38, 0]], np.float32)
    with np.errstate(over="ignore"):
        found = kernels.scan_topk(vectors, np.array([[1, 1]], np.float32), Metric.DOT, 3)
    assert found.slots[0].tolist() == [0, 1, 2]


def test_warm_up_names_every_kernel_once():
    seen = []
    warmed = CpuKernels().warm_up(lambda name, seconds: seen.append((name, seconds)))
    assert [kernel.name for kernel in warmed] == [name for name, _ in seen]
    assert len({kernel.name for kernel in warmed}) == len(warmed) >= 10


@given(
    nq=st.integers(0, 4),
    k=st.integers(1, 12),
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=6),
    levels=st.sampled_from([1, 3, 1000]),
    seed=st.integers(0, 2**32),
)
def test_merge_takes_the_nearest_of_all_rankings(kernels, nq, k, lengths, levels, seed):
    rng = np.random.default_rng(seed)
    rankings = []
    for length in lengths:
        slots, distances = np.full((nq, k), -1, np.int32), np.full((nq, k), np.inf, np.float32)
        for line in range(nq):
            # Few levels give ties, within a ranking and between them.
            found = sorted(zip(rng.integers(0, levels, min(k, length)).tolist(), range(length), strict=False))
            slots[line, : len(found)] = [slot for _, slot in found]
            distances[line, : len(found)] = [distance for distance, _ in found]
        rankings.append(TopK(slots, distances))
    merged = kernels.merge(rankings)
    assert merged.sources.shape == merged.slots.shape == merged.distances.shape == (nq, k)
    for line in range(nq):
        right = sorted(
            (float(each.distances[line, place]), source, int(each.slots[line, place]))
            for source, each in enumerate(rankings)
            for place in range(k)
            if each.slots[line, place] >= 0
        )[:k]
        right += [(np.inf, -1, -1)] * (k - len(right))
        found = zip(merged.distances[line].tolist(), merged.sources[line], merged.slots[line], strict=True)
        assert list(found) == right
