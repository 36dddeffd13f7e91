"""Data on which graphs fall apart: copies, clusters far from each other, one dimension, very many, very few rows."""

import numpy as np
import pytest

from vecdb.index.codes import ScalarCodes
from vecdb.index.flat import CodedFlatIndex
from vecdb.index.hnsw import HnswBuilder, HnswIndex, HnswParams
from vecdb.kernels.arrays import unlinked
from vecdb.kernels.cpu import CpuKernels
from vecdb.types import Metric

KERNELS = CpuKernels()


def graph_of(vectors, metric):
    codes = ScalarCodes.encode(KERNELS, vectors, metric)
    builder = HnswBuilder(KERNELS, codes, HnswParams())
    assert builder.run()
    return HnswIndex.from_arrays(KERNELS, builder.arrays(), codes, vectors), codes


def check_found(vectors, queries, metric, share):
    """The graph is sound and finds a share of what its codes tell; a scan finds all.

    Equal rows may stand for each other. Where a byte does not tell rows apart, a walk can do no more than guess.
    """
    graph, codes = graph_of(vectors, metric)
    assert graph.check() == []
    k = min(10, vectors.shape[0])
    found = graph.search(queries, k).topk
    assert (found.slots >= 0).all()
    assert all(len(set(line)) == k for line in found.slots.tolist())
    bound = KERNELS.bind_graph(codes.codes, unlinked(codes.codes.table.shape[1]), codes.originals(vectors))
    wide = min(k + 32, vectors.shape[0])
    nearest = bound.scan(queries, wide, wide).slots
    by_code = KERNELS.rerank(vectors, queries, nearest, metric, k)
    scanned = CodedFlatIndex(KERNELS, codes, vectors).search(queries, k).topk
    farthest = KERNELS.scan_topk(vectors, queries, metric, k).distances[:, -1:]
    allowance = 1e-5 * (np.abs(farthest).max() + 1e-6)
    walk, told, scan = ((each.distances <= farthest + allowance).mean() for each in (found, by_code, scanned))
    assert scan >= 0.999
    assert walk >= share * told, (walk, told)


def copies(rng):
    """A third of all rows is one row, another third a hundred rows many times."""
    others = rng.normal(size=(1000, 24))
    many = rng.normal(size=(100, 24))[rng.integers(0, 100, 1000)]
    return np.concatenate([np.tile(rng.normal(size=(1, 24)), (1000, 1)), many, others])


def tight_clusters(rng):
    """Each a point but for a thousandth of the space between them."""
    return rng.normal(size=(30, 24))[rng.integers(0, 30, 2500)] * 100 + 0.01 * rng.normal(size=(2500, 24))


def two_worlds(rng):
    """Two balls so far from each other that each looks like one point from the other."""
    points = rng.normal(size=(2000, 16))
    points[1000:, 0] += 1000
    return points


def one_dimension(rng):
    return rng.normal(size=(3000, 1))


def a_few_values(rng):
    return rng.integers(0, 3, (3000, 3)).astype(np.float64)


def one_far_out(rng):
    points = rng.normal(size=(2000, 16))
    points[7] *= 1e4
    return points


def very_many_dimensions(rng):
    return rng.normal(size=(250, 4096))


DATA = (copies, tight_clusters, two_worlds, one_dimension, a_few_values, one_far_out, very_many_dimensions)


@pytest.mark.parametrize("make", DATA, ids=lambda make: make.__name__)
def test_hard_data_is_whole_and_found(rng, make):
    vectors = rng.permutation(make(rng)).astype(np.float32)
    check_found(vectors, vectors[:50], Metric.L2, 0.7)


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("dim", [1, 24])
def test_rows_that_are_all_equal(metric, dim):
    vectors = np.full((3000, dim), 1 / np.sqrt(dim), np.float32)
    check_found(vectors, vectors[:5], metric, 1.0)


def test_rows_that_are_all_zero():
    vectors = np.zeros((2000, 8), np.float32)
    check_found(vectors, vectors[:5], Metric.DOT, 1.0)


@pytest.mark.parametrize("rows", [1, 2, 3, 33])
@pytest.mark.parametrize("dim", [1, 300])
def test_few_rows(rng, rows, dim):
    vectors = rng.normal(size=(rows, dim)).astype(np.float32)
    check_found(vectors, vectors, Metric.L2, 1.0)


def test_no_rows():
    index, _ = graph_of(np.zeros((0, 12), np.float32), Metric.L2)
    assert index.check() == []
    assert (index.search(np.zeros((1, 12), np.float32), 3).topk.slots == -1).all()
