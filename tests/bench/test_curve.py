"""Curves: which points count, what lies between them, and that nothing is read beyond their ends."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.bench.curve import CurvePoint, QpsAtRecall, median, pareto, qps_at_recall

points = st.lists(st.builds(CurvePoint, st.floats(0.0, 1.0), st.floats(1.0, 1e6)), max_size=12)


def test_pareto_drops_what_another_point_beats():
    best, fast, good = CurvePoint(0.99, 100.0), CurvePoint(0.90, 1_000.0), CurvePoint(0.95, 500.0)
    slower, worse = CurvePoint(0.95, 400.0), CurvePoint(0.93, 450.0)
    assert pareto([worse, best, slower, fast, good]) == [fast, good, best]


def test_between_two_points_the_logarithm_is_linear():
    curve = [CurvePoint(0.90, 1_000.0), CurvePoint(0.98, 10.0)]
    found = qps_at_recall(curve, 0.94)
    assert found is not None
    assert found.qps == pytest.approx(100.0)
    assert not found.lower_bound


def test_a_measured_point_is_returned_as_it_is():
    curve = [CurvePoint(0.90, 1_000.0), CurvePoint(0.95, 300.0), CurvePoint(0.99, 10.0)]
    assert qps_at_recall(curve, 0.95).qps == pytest.approx(300.0)
    assert qps_at_recall(curve, 0.99).qps == pytest.approx(10.0)
    assert qps_at_recall(curve, 0.90) == QpsAtRecall(1_000.0)


def test_nothing_is_extrapolated():
    curve = [CurvePoint(0.92, 1_000.0), CurvePoint(0.98, 10.0)]
    assert qps_at_recall(curve, 0.99) is None
    assert qps_at_recall(curve, 0.90) == QpsAtRecall(1_000.0, lower_bound=True)
    assert qps_at_recall([], 0.9) is None


def test_an_exact_engine_bounds_every_recall_from_below():
    assert qps_at_recall([CurvePoint(1.0, 50.0)], 0.95) == QpsAtRecall(50.0, lower_bound=True)
    assert qps_at_recall([CurvePoint(1.0, 50.0)], 1.0) == QpsAtRecall(50.0)


@given(points)
def test_pareto_rises_in_recall_and_falls_in_qps(drawn):
    curve = pareto(drawn)
    for left, right in pairwise(curve):
        assert left.recall < right.recall
        assert left.qps > right.qps
    for point in drawn:
        assert any(kept.recall >= point.recall and kept.qps >= point.qps for kept in curve)


@given(points, st.floats(0.0, 1.0))
def test_a_figure_lies_between_its_neighbours(drawn, recall):
    found = qps_at_recall(drawn, recall)
    able = [point.qps for point in drawn if point.recall >= recall]
    if not able:
        assert found is None
        return
    assert found is not None
    assert found.qps >= max(able) * (1 - 1e-9)
    assert found.qps <= max(point.qps for point in drawn) * (1 + 1e-9)


def test_median():
    assert median([3.0]) == 3.0
    assert median([9.0, 1.0, 2.0]) == 2.0
    assert math.isclose(median([4.0, 1.0, 2.0, 100.0]), 3.0)
