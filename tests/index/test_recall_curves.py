"""Recall curves: monotone, in range, and nothing that was stored is believed unchecked."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.errors import Corruption
from vecdb.index.hnsw import DEFAULT_BREADTH, RecallCurves
from vecdb.index.hnsw.curves import ARRAY_NAMES, SLACK_ONE, RecallCurve, RecallPoint
from vecdb.kernels.arrays import SLACK_MAX, Beam


def curve(k, share, points, *, by_ef=False):
    return RecallCurve(k, share, by_ef, tuple(RecallPoint(*each) for each in points))


def slack(less_one):
    return SLACK_ONE + round(less_one * SLACK_ONE)


MEASURED = RecallCurves(
    [
        curve(10, 1.0, [(slack(0), 0.75, 0.01, 400), (slack(0.1), 0.95, 0.004, 800), (slack(0.2), 0.99, 0.002, 2000)]),
        curve(100, 1.0, [(slack(0), 0.93, 0.004, 1900), (slack(0.1), 0.99, 0.001, 5000)]),
        curve(10, 0.5, [(slack(0), 0.5, 0.02, 400), (slack(0.2), 0.98, 0.004, 2000)]),
        curve(10, 1.0, [(16, 0.85, 0.01, 500), (64, 0.97, 0.003, 1300)], by_ef=True),
    ]
)


OTHERS = st.lists(st.sampled_from([(1, 1.0), (100, 1.0), (10, 0.5), (10, 0.1)]), unique=True)


@st.composite
def curves(draw):
    found = []
    for k, share in [(10, 1.0), *draw(OTHERS)]:
        places = sorted(draw(st.sets(st.integers(0, 300), min_size=1, max_size=8)))
        recalls = sorted(draw(st.lists(st.floats(0, 1), min_size=len(places), max_size=len(places))))
        error = draw(st.floats(0, 0.1))
        points = [(slack(at / 100), recall, error, at) for at, recall in zip(places, recalls, strict=True)]
        found.append(curve(k, share, points))
    return RecallCurves(found)


@given(curves(), st.integers(1, 10_000), st.floats(1e-6, 1.0), st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=6))
def test_a_higher_recall_never_asks_for_less_and_estimates_are_in_range(found, k, share, recalls):
    beams = [found.beam(k, recall, share) for recall in sorted(recalls)]
    assert [each.slack for each in beams] == sorted(each.slack for each in beams)
    assert all(SLACK_ONE <= each.slack <= SLACK_MAX and each.ef >= k for each in beams)
    estimates = [found.recall_of(each, k, share) for each in beams]
    assert [each.recall for each in estimates] == sorted(each.recall for each in estimates)
    assert all(0 <= each.recall <= 1 and 0 <= each.error <= 1 for each in estimates)
    assert 0 <= found.recall_of(Beam(k), k, share).recall <= 1


@given(curves())
def test_what_is_stored_is_what_is_read(found):
    again = RecallCurves.from_arrays(found.arrays())
    assert again is not None
    assert again.curves == found.curves
    assert set(found.arrays()) == set(ARRAY_NAMES)


def test_measured_points_are_told_as_they_are():
    assert MEASURED.recall_of(Beam(500, slack(0.1)), 10).recall == pytest.approx(0.95, abs=1e-3)
    assert MEASURED.recall_of(Beam(500, slack(0.2)), 10, 0.5).recall == pytest.approx(0.98, abs=1e-3)
    assert MEASURED.recall_of(Beam(64), 10).recall == pytest.approx(0.97)
    assert 0.85 < MEASURED.recall_of(Beam(32), 10).recall < 0.97
    assert 0.95 < MEASURED.recall_of(Beam(500, slack(0.1)), 30).recall < 0.99


def test_a_walk_among_nearly_all_rows_is_like_that_among_the_largest_share_measured():
    for share in (0.6, 0.9, 0.999):
        assert MEASURED.beam(10, 0.95, share) == MEASURED.beam(10, 0.95, 0.5)
        assert MEASURED.recall_of(Beam(500, slack(0.2)), 10, share).recall == pytest.approx(0.98, abs=1e-3)
    # Beside walks that end by slack among all rows, of which another curve tells.
    assert MEASURED.recall_of(Beam(500, slack(0.2)), 10).recall != pytest.approx(0.98, abs=1e-3)


def test_a_beam_leaves_room_for_the_error_of_the_sample():
    # The recall that is known by one standard error is what was asked for.
    estimate = MEASURED.recall_of(MEASURED.beam(10, 0.95), 10)
    assert estimate.recall - estimate.error == pytest.approx(0.95, abs=1e-3)
    assert MEASURED.beam(10, 0.95).slack > slack(0.1)
    assert 800 < MEASURED.cost(10, 0.95) < 1000


def test_beyond_what_was_measured_a_beam_widens_no_further_than_twice():
    assert slack(0.2) < MEASURED.beam(10, 0.9999).slack <= slack(0.4) + SLACK_ONE // 20
    assert MEASURED.beam(10, 1.0).slack == MEASURED.beam(10, 0.999999).slack


def test_an_ef_beyond_what_was_measured_is_told_by_how_recall_grew_and_known_the_worse():
    # From ef 16 to 64 four fifths of what was missed are found.
    broader = MEASURED.recall_of(Beam(256), 10)
    assert broader.recall == pytest.approx(1 - 0.03 / 5)
    assert broader.recall - 1.96 * broader.error < 0.97
    assert broader.error > MEASURED.recall_of(Beam(64), 10).error
    assert MEASURED.recall_of(Beam(128), 10).recall == pytest.approx(1 - 0.03 / math.sqrt(5))
    # Farther than that nothing is known.
    farthest = MEASURED.recall_of(Beam(8 * 64), 10)
    assert MEASURED.recall_of(Beam(100_000), 10) == farthest
    assert broader.recall < farthest.recall < 1
    assert farthest.error > broader.error


def test_an_ef_below_what_was_measured_is_told_less():
    least = MEASURED.recall_of(Beam(16), 10)
    below = MEASURED.recall_of(Beam(12), 10)
    assert below.recall == pytest.approx(1 - 0.15 * (16 / 12) ** (math.log(5) / math.log(4)))
    assert below.error > least.error
    assert least.recall - 1.96 * least.error < 0.85 < least.recall + 1.96 * least.error


def test_an_ef_below_what_walks_keep_is_that_of_the_walk():
    for ef in (1, 9):
        assert MEASURED.recall_of(Beam(ef), 1) == MEASURED.recall_of(Beam(10), 1)
        assert DEFAULT_BREADTH.recall_of(Beam(ef), 1) == DEFAULT_BREADTH.recall_of(Beam(10), 1)


def test_one_point_tells_a_little_of_other_efs():
    one = RecallCurves([*MEASURED.curves[:1], curve(10, 1.0, [(64, 0.8, 0.01, 1000)], by_ef=True)])
    assert one.recall_of(Beam(64), 10).recall == pytest.approx(0.8)
    assert one.recall_of(Beam(32), 10).recall == pytest.approx(0.6)
    assert one.recall_of(Beam(128), 10).recall == pytest.approx(0.9)
    assert one.recall_of(Beam(128), 10).error > 0.05
    assert one.recall_of(Beam(10), 10).recall == 0.0


def test_the_defaults_tell_no_leap_of_narrow_efs():
    told = [DEFAULT_BREADTH.recall_of(Beam(ef), 10).recall for ef in range(10, 40)]
    assert told == sorted(told)
    assert told[0] > 0.3
    assert max(np.diff(told)) < 0.1


def test_a_graph_without_curves_goes_by_the_defaults():
    assert RecallCurves.from_arrays({"links": np.zeros((1, 1), np.int32)}) is None
    for recall in (0.8, 0.9, 0.95, 0.99):
        assert DEFAULT_BREADTH.recall_of(DEFAULT_BREADTH.beam(10, recall), 10).recall == pytest.approx(recall, abs=1e-3)
        assert DEFAULT_BREADTH.recall_of(DEFAULT_BREADTH.beam(10, recall, 0.5), 10, 0.5).recall == pytest.approx(
            recall, abs=0.01
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("recall_means", [0.75, 0.99, 0.95, 0.9, 0.99, 0.5, 0.98, 0.8, 0.9]),
        ("recall_means", [0.75, 0.95, np.nan, 0.9, 0.99, 0.5, 0.98, 0.8, 0.9]),
        ("recall_means", [0.75, 0.95, 1.1, 0.9, 0.99, 0.5, 0.98, 0.8, 0.9]),
        ("recall_errors", [-0.1] * 9),
        ("recall_costs", [np.inf] * 9),
        ("recall_ks", np.array([10, 100, 0, 10], np.int32)),
        ("recall_shares", [1.0, 1.0, 0.0, 1.0]),
        ("recall_by_ef", np.array([1, 1, 1, 1], np.uint8)),
        ("recall_by_ef", np.array([0, 0, 0, 2], np.uint8)),
        ("recall_starts", np.array([0, 3, 5, 7, 8])),
        ("recall_starts", np.array([0, 3, 3, 7, 9])),
        ("recall_starts", np.array([0, 9])),
        ("recall_breadths", np.zeros(9, np.int64)),
        ("recall_breadths", np.arange(9)),
        ("recall_costs", np.zeros(9, np.float32)),
        ("recall_ks", None),
    ],
)
def test_damaged_curves_are_refused(name, value):
    arrays = MEASURED.arrays()
    del arrays[name]
    if value is not None:
        arrays[name] = np.asarray(value)
    with pytest.raises(Corruption, match=name):
        RecallCurves.from_arrays(arrays)
