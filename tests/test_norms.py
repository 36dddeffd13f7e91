"""Lengths of vectors: the same for one as among many, whatever float32 can hold."""

import numpy as np
import pytest

from vecdb.errors import InvalidArgument
from vecdb.norms import ordinary_length, ordinary_lengths, row_norms
from vecdb.requests import check_vectors
from vecdb.schema import VectorField
from vecdb.segment.vectors import normalised
from vecdb.types import Metric

SIZES = [1e-45, 1e-38, 1e-30, 1e-23, 1e-22, 1e-10, 1.0, 1e10, 1e15, 1e17, 1e19, 3e38]


@pytest.mark.parametrize("size", SIZES)
def test_one_row_is_measured_as_among_others(size):
    row = np.array([[size, -size, size / 2]], np.float32)
    right = np.linalg.norm(row.astype(np.float64), axis=1)
    np.testing.assert_allclose(row_norms(row), right, rtol=1e-6)
    among = np.concatenate([row, np.ones((2, 3), np.float32), row])
    np.testing.assert_allclose(row_norms(among)[[0, 3]], [right[0]] * 2, rtol=1e-6)
    assert row_norms(row).dtype == row_norms(among).dtype == np.float64


@pytest.mark.parametrize("size", SIZES[:-1])
def test_one_row_is_normalised_as_among_others(size):
    row = np.array([[size, -size, 0]], np.float32)
    among = np.concatenate([row, np.ones((2, 3), np.float32)])
    for values in (row, among):
        unit, _ = normalised(values)
        np.testing.assert_allclose(unit[0], [0.5**0.5, -(0.5**0.5), 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("value", "metric", "limit"),
    [
        (np.nan, Metric.L2, "finite"),
        (np.inf, Metric.DOT, "finite"),
        (-np.inf, Metric.COSINE, "finite"),
        (3e38, Metric.L2, "length"),
        (0.0, Metric.COSINE, "non-zero"),
    ],
)
def test_one_row_is_refused_as_among_others(value, metric, limit):
    row = np.full((1, 3), value, np.float32)
    for values in (row, np.concatenate([row, np.ones((2, 3), np.float32)])):
        with pytest.raises(InvalidArgument) as raised:
            check_vectors(values, VectorField(3, metric), "queries")
        assert limit in str(raised.value.limit)


@pytest.mark.parametrize(
    ("value", "ordinary"),
    [(1.0, True), (1e-9, True), (1e14, True), (0.0, False), (1e-25, False), (1e25, False), (np.nan, False),
     (np.inf, False)],
)  # fmt: skip
def test_ordinary_vectors(value, ordinary):
    assert ordinary_length(np.array([[0, value]], np.float32)) == pytest.approx(value if ordinary else 0.0)


@pytest.mark.parametrize("dim", [1, 3, 16, 63, 384, 1500])
def test_one_row_has_the_length_that_it_has_among_others_to_the_last_bit(dim):
    values = np.random.default_rng(dim).standard_normal((40, dim)).astype(np.float32)
    among = ordinary_lengths(values)
    assert [ordinary_length(row) for row in values] == among.tolist()
    np.testing.assert_allclose(among, row_norms(values), rtol=1e-6)
    unit, _ = normalised(values, among)
    assert all((row / ordinary_length(row)).tobytes() == of.tobytes() for row, of in zip(values, unit, strict=True))


def test_lengths_of_many_queries_are_only_told_where_all_are_ordinary():
    values = np.ones((3, 4), np.float32)
    for wrong in (0.0, 1e-25, 1e25, np.nan, np.inf):
        values[1, 2] = 1.0
        assert ordinary_lengths(values) is not None
        values[1] = wrong
        assert ordinary_lengths(values) is None
        values[1] = 1.0
