"""Codes and sketches against float64 arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.index.codes import ScalarCodes
from vecdb.kernels.arrays import DIMENSIONS_MAX, Codes, Originals, stride_bytes, unlinked
from vecdb.kernels.cpu import CpuKernels
from vecdb.kernels.reference import ReferenceKernels
from vecdb.types import Metric


@pytest.fixture(params=[CpuKernels, ReferenceKernels], ids=["cpu", "reference"], scope="module")
def kernels(request):
    return request.param()


@given(
    n=st.integers(1, 40),
    dim=st.integers(1, 200),
    scale=st.sampled_from([1e-20, 1e-3, 1.0, 1e12]),
    seed=st.integers(0, 99),
)
def test_codes_are_within_half_a_step(kernels, n, dim, scale, seed):
    vectors = (np.random.default_rng(seed).normal(size=(n, dim)) * scale).astype(np.float32)
    centre = vectors.mean(axis=0)
    step = np.float32(np.abs(vectors - centre).max() / 127) or np.float32(1)
    codes = kernels.encode(vectors, centre, float(step))
    levels = codes.table[:, :dim].astype(np.float64) - 128
    np.testing.assert_allclose(centre + step * levels, vectors, atol=0.51 * step)
    assert (codes.table[:, dim:] == 128).all()
    assert codes.table.shape == (n, stride_bytes(dim))
    np.testing.assert_array_equal(codes.norms, (levels * levels).sum(axis=1))


@pytest.mark.parametrize("metric", list(Metric))
def test_what_lies_between_two_codes_is_rounded_alike_by_all_kernels(metric, rng):
    step = np.float32(rng.uniform(1e-3, 1.0))
    # The product with 1 / step lies at a tie, or so close that only its rounding to float32 says on which side.
    ties = (rng.integers(-127, 127, (200, 50)) + 0.5).astype(np.float32) * step
    compiled, reference = CpuKernels(), ReferenceKernels()
    for centre in (np.zeros(50, np.float32), rng.normal(size=50).astype(np.float32)):
        one, other = (each.encode(ties + centre, centre, float(step)) for each in (compiled, reference))
        np.testing.assert_array_equal(one.table, other.table)
        np.testing.assert_array_equal(one.norms, other.norms)
        asked, asked_too = (each.quantise(ties, centre, float(step), metric) for each in (compiled, reference))
        np.testing.assert_array_equal(asked.values, asked_too.values)
        np.testing.assert_array_equal(asked.ratios, asked_too.ratios)


def test_nothing_overflows_at_the_largest_dimension(kernels):
    table = np.full((4, DIMENSIONS_MAX), 255, np.uint8)
    table[1] = 1
    table[2] = 128
    norms = ((table.astype(np.int64) - 128) ** 2).sum(axis=1).astype(np.int32)
    query = np.full((1, DIMENSIONS_MAX), 127, np.float32)
    zeros = np.zeros((4, DIMENSIONS_MAX), np.float32)
    originals = Originals(zeros, zeros[0], 1.0, Metric.DOT, 0.0)
    found = kernels.bind_graph(Codes(table, norms), unlinked(DIMENSIONS_MAX), originals).scan(query, 4, 4)
    assert found.slots[0].tolist() == [0, 3, 2, 1]


@pytest.mark.parametrize("metric", list(Metric))
def test_the_order_by_code_is_close_to_the_order_by_vector(kernels, metric, rng):
    vectors = (rng.normal(size=(400, 60)) * rng.uniform(0.5, 2, 60) + 3).astype(np.float32)
    queries = (rng.normal(size=(10, 60)) + 3).astype(np.float32)
    codes = ScalarCodes.encode(kernels, vectors, metric)
    bound = kernels.bind_graph(codes.codes, unlinked(64), codes.originals(vectors))
    found = bound.scan(queries, 10, 10)
    right = kernels.scan_topk(vectors, queries, metric, 5)
    kept = [len(set(a) & set(b)) for a, b in zip(found.slots.tolist(), right.slots.tolist(), strict=True)]
    assert sum(kept) >= 49


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("value", [0.0, 1e-44, 3.4e38])
def test_extreme_values_give_codes(kernels, metric, value):
    vectors = np.full((3, 5), value, np.float32)
    vectors[1] = -vectors[1]
    with np.errstate(over="ignore"):
        codes = ScalarCodes.encode(kernels, vectors, metric)
        asked = codes.quantise(kernels, vectors)
    assert np.isfinite(codes.step)
    assert codes.step > 0
    assert np.abs(asked.values.astype(int)).max() <= 127


def test_a_sketch_estimates_without_bias(kernels, rng):
    vectors = rng.normal(size=(300, 256)).astype(np.float32)
    codes = ScalarCodes.encode(kernels, vectors, Metric.L2)
    asked = codes.quantise(kernels, rng.normal(size=(20, 256)).astype(np.float32)).values.astype(np.int64)
    sketches = kernels.sketch(codes.codes, 256)
    bits = np.unpackbits(sketches[:, :32], axis=1, bitorder="little").astype(np.int64)
    fields = sketches.view(np.int32)[:, -2:].astype(np.float64)
    estimate = (2 * bits @ asked.T - asked.sum(axis=1)) * fields[:, :1] / 256
    right = (codes.codes.table.astype(np.int64) - 128) @ asked.T
    sigma = fields[:, 1:] / 16 * np.sqrt((asked * asked).sum(axis=1))
    errors = (estimate - right) / sigma
    assert abs(errors.mean()) < 0.05
    assert 0.8 < errors.std() < 1.2
