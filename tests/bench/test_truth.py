"""Exact neighbours against a plain double loop, and recall against cases worked out by hand."""

import numpy as np
import pytest

from vecdb.bench.truth import (
    distances_of,
    exact_neighbours,
    local_intrinsic_dimension,
    recall_at,
    tie_margins,
    unit_rows,
)
from vecdb.errors import InvalidArgument
from vecdb.types import Metric


def plain_distance(a, b, metric):
    a, b = a.astype(np.float64), b.astype(np.float64)
    if metric is Metric.L2:
        return float(((a - b) ** 2).sum())
    if metric is Metric.DOT:
        return -float(a @ b)
    return 1.0 - float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b))


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("block_rows", [7, 65_536])
def test_exact_neighbours_are_those_of_a_double_loop(rng, monkeypatch, metric, block_rows):
    monkeypatch.setattr("vecdb.bench.truth.BLOCK_ROWS", block_rows)
    monkeypatch.setattr("vecdb.bench.truth.CANDIDATES_SPARE", 3)
    train = rng.standard_normal((90, 6), np.float32) * rng.uniform(0.5, 4, (90, 1)).astype(np.float32)
    queries = rng.standard_normal((5, 6), np.float32)
    found = exact_neighbours(train, queries, 8, metric)
    for at, query in enumerate(queries):
        ranked = sorted(range(90), key=lambda row: (plain_distance(train[row], query, metric), row))
        assert found[at].tolist() == ranked[:8]


def test_equal_distances_are_ordered_by_row():
    train = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [1, 0]], np.float32)
    found = exact_neighbours(train, np.array([[1, 0]], np.float32), 4, Metric.L2)
    assert found.tolist() == [[0, 2, 4, 1]]


def test_no_more_neighbours_than_rows(rng):
    train = rng.standard_normal((3, 4), np.float32)
    assert exact_neighbours(train, train[:2], 10, Metric.L2).shape == (2, 3)


def test_distances_of_missing_neighbours_are_infinite(rng):
    train = rng.standard_normal((4, 3), np.float32)
    distances = distances_of(train, train[:1], np.array([[0, -1]]), Metric.L2)
    assert distances[0, 0] == 0
    assert np.isinf(distances[0, 1])


def recall(k, rows, train, queries, true_rows, metric=Metric.L2):
    rows, true_rows = np.array(rows), np.array(true_rows)
    return recall_at(
        k,
        rows,
        distances_of(train, queries, rows, metric),
        distances_of(train, queries, true_rows, metric),
        tie_margins(train, queries, true_rows, metric),
    )


LINE = np.array([[0.0], [1.0], [2.0], [2.0], [-2.0], [5.0]], np.float32)
ORIGIN = np.zeros((1, 1), np.float32)
TRUE = [[0, 1, 2, 3, 4, 5]]


def test_recall_by_hand():
    assert recall(3, [[0, 1, 2]], LINE, ORIGIN, TRUE) == 1.0
    assert recall(3, [[0, 1, 5]], LINE, ORIGIN, TRUE) == pytest.approx(2 / 3)
    assert recall(3, [[5, -1, -1]], LINE, ORIGIN, TRUE) == 0.0


def test_a_tie_at_the_kth_distance_counts_as_right():
    # Rows 2, 3 and 4 lie equally far: any of them is a right third neighbour, and any two are right as 3rd and 4th.
    assert recall(3, [[0, 1, 3]], LINE, ORIGIN, TRUE) == 1.0
    assert recall(3, [[0, 4, 3]], LINE, ORIGIN, TRUE) == 1.0
    assert recall(2, [[0, 3]], LINE, ORIGIN, TRUE) == 0.5


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_wrong_rows_are_wrong_at_every_scale(scale):
    # At 1e-4 the squared distances are 1e-8 and 4e-8, those of the wrong rows 9e-8 and more.
    train = (scale * np.array([[1.0], [2.0], [3.0], [40.0]])).astype(np.float32)
    assert recall(2, [[0, 1]], train, ORIGIN, [[0, 1, 2, 3]]) == 1.0
    assert recall(2, [[0, 2]], train, ORIGIN, [[0, 1, 2, 3]]) == 0.5
    assert recall(2, [[2, 3]], train, ORIGIN, [[0, 1, 2, 3]]) == 0.0


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_what_float32_cannot_tell_apart_is_a_tie(metric, scale):
    # Rows 0 and 1 differ in the last bit of one coordinate; row 2 in what float32 arithmetic still resolves.
    near = np.array([[0.6, 0.8], [0.6, np.nextafter(np.float32(0.8), np.float32(1))], [0.6, 0.81]], np.float32)
    queries = (scale * np.array([[0.8, 0.6]])).astype(np.float32)
    train = (scale * near).astype(np.float32)
    order = exact_neighbours(train, queries, 3, metric)
    for rows in ([[0]], [[1]]):
        ranked = [[row for row in order[0] if row != 2]]
        assert recall(1, rows, train, queries, ranked, metric) == 1.0
    assert tie_margins(train, queries, order, metric).max() < 1e-5 * (1 if metric is Metric.COSINE else scale**2)
    assert recall(1, [[2]], train, queries, [[0]], metric) == (1.0 if metric is Metric.DOT else 0.0)


def test_a_repeated_row_counts_once():
    assert recall(3, [[0, 0, 0]], LINE, ORIGIN, TRUE) == pytest.approx(1 / 3)


def test_rows_beyond_k_do_not_count():
    assert recall(2, [[5, 5, 0, 1]], LINE, ORIGIN, TRUE) == 0.0


def test_the_order_of_the_answer_does_not_matter():
    assert recall(3, [[2, 0, 1]], LINE, ORIGIN, TRUE) == 1.0


def test_recall_needs_k_true_neighbours():
    with pytest.raises(InvalidArgument) as caught:
        recall(3, [[0, 1, 2]], LINE, ORIGIN, [[0, 1]])
    assert caught.value.field == "k"


def test_unit_rows_refuse_a_zero_vector_by_row():
    with pytest.raises(InvalidArgument, match="row 1 "):
        unit_rows(np.array([[1, 2], [0, 0]], np.float32))
    np.testing.assert_allclose(unit_rows(np.array([[3, 4]], np.float32)), [[0.6, 0.8]], rtol=1e-6)


@pytest.mark.parametrize("dimension", [2, 8])
def test_the_intrinsic_dimension_of_a_cube_is_its_own(rng, dimension):
    # The cube lies in a space of 20 dimensions, which the estimate must not see.
    turn, _ = np.linalg.qr(rng.standard_normal((20, dimension)))
    inner = rng.uniform(-1, 1, (20_000, dimension))
    centre = rng.uniform(-0.2, 0.2, (50, dimension))
    train, queries = (np.ascontiguousarray(each @ turn.T, np.float32) for each in (inner, centre))
    distances = distances_of(train, queries, exact_neighbours(train, queries, 100, Metric.L2), Metric.L2)
    assert local_intrinsic_dimension(distances, Metric.L2) == pytest.approx(dimension, rel=0.15)
    assert local_intrinsic_dimension(distances, Metric.DOT) is None
