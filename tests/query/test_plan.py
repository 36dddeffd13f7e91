"""Plans: a scan or a walk by what they cost, a pure function of facts and costs."""

from dataclasses import replace

import pytest

from vecdb.kernels.reference import ReferenceKernels
from vecdb.query.correction import APPLIED_MAX, Correction
from vecdb.query.costs import DEFAULT_COSTS, SearchCosts, costs_of, lacks_costs, measure_costs, measured
from vecdb.query.plan import SCAN_RECALL, PartFacts, Strategy, plan_part, scan_ns, walk_ns

FACTS = PartFacts(slots=1_000_000, allowed=1_000_000, has_codes=True, has_graph=True)
COSTS = SearchCosts(row_ns=10.0, hop_ns=1_000.0, detour_ns=80.0)


def strategy(allowed, recall=0.95, ef=None, costs=COSTS, facts=FACTS):
    return plan_part(replace(facts, allowed=allowed), 10, recall, ef, 10_000, costs).strategy


def test_few_allowed_rows_are_scanned_and_many_are_walked_among():
    chosen = [strategy(allowed) for allowed in range(10_000, 1_000_001, 10_000)]
    turn = chosen.index(Strategy.GRAPH)
    assert set(chosen[:turn]) == {Strategy.SCAN}
    assert set(chosen[turn:]) == {Strategy.GRAPH}
    # Whatever is chosen is the cheaper: where the choice turns, both cost about the same.
    at = 10_000 * (turn + 1)
    assert scan_ns(at - 10_000, COSTS) < walk_ns(2.0 * 53, (at - 10_000) / 1e6, COSTS)
    assert scan_ns(at, COSTS) > 0.7 * walk_ns(2.0 * 53, at / 1e6, COSTS)


def test_costs_move_the_choice():
    assert strategy(30_000, costs=replace(COSTS, row_ns=100.0)) is Strategy.GRAPH
    assert strategy(30_000, costs=replace(COSTS, detour_ns=1_000.0)) is Strategy.SCAN
    assert strategy(200_000, costs=replace(COSTS, hop_ns=100_000.0)) is Strategy.SCAN


def test_a_broader_walk_is_worth_it_for_more_rows_only():
    for allowed in range(10_000, 200_000, 5_000):
        if strategy(allowed, recall=0.99) is Strategy.GRAPH:
            assert strategy(allowed, recall=0.9) is Strategy.GRAPH
        if strategy(allowed, ef=400) is Strategy.GRAPH:
            assert strategy(allowed, ef=40) is Strategy.GRAPH
    assert strategy(60_000, ef=20) is Strategy.GRAPH
    assert strategy(60_000, ef=2_000) is Strategy.SCAN


@pytest.mark.parametrize(
    ("facts", "recall", "wanted"),
    [
        (replace(FACTS, allowed=0), 0.95, Strategy.NOTHING),
        (replace(FACTS, allowed=10), 0.95, Strategy.EXACT),
        (FACTS, 1.0, Strategy.EXACT),
        (replace(FACTS, has_graph=False), 0.95, Strategy.SCAN),
        (replace(FACTS, has_codes=False, has_graph=False), 0.95, Strategy.EXACT),
        (FACTS, 0.95, Strategy.GRAPH),
    ],
)
def test_what_does_not_depend_on_costs(facts, recall, wanted):
    for costs in (COSTS, SearchCosts(0.0, 0.0, 0.0), SearchCosts(1e9, 1e9, 1e9)):
        assert plan_part(facts, 10, recall, None, 10_000, costs).strategy is wanted


def test_only_allowed_rows_count_in_the_beam():
    few = plan_part(replace(FACTS, allowed=200_000), 10, 0.95, 64, 10_000, COSTS)
    everything = plan_part(FACTS, 10, 0.95, 64, 10_000, COSTS)
    assert (few.beam, few.recall_estimate) == (everything.beam, everything.recall_estimate)


def test_measured_costs_are_positive_and_kept():
    kernels = ReferenceKernels()
    assert not lacks_costs(kernels, 64)
    measure_costs(kernels, 64)
    assert costs_of(kernels, 64) is DEFAULT_COSTS
    found = measured(kernels, 64)
    assert found.row_ns > 0
    assert found.hop_ns >= 0
    assert found.detour_ns >= 0


def test_a_graph_whose_broadest_walks_miss_what_is_asked_for_gives_way_to_a_scan():
    def planned(applied, missed, recall=0.95, ef=None):
        """With live queries that miss so much at the breadth that is chosen."""
        as_expected = plan_part(FACTS, 10, recall, ef, 10_000, COSTS, Correction(applied, 0.0))
        measured = missed / (1.0 - as_expected.recall_calibrated)
        return plan_part(FACTS, 10, recall, ef, 10_000, COSTS, Correction(applied, measured))

    assert planned(APPLIED_MAX, 0.075).strategy is Strategy.GRAPH
    short = planned(APPLIED_MAX, 0.085)
    assert (short.strategy, short.recall_estimate) == (Strategy.SCAN, SCAN_RECALL)
    # Broader walks are still to be tried, less is asked for, or the breadth is the caller's own.
    assert planned(APPLIED_MAX / 2, 0.085).strategy is Strategy.GRAPH
    assert planned(APPLIED_MAX, 0.085, recall=0.9).strategy is Strategy.GRAPH
    assert planned(APPLIED_MAX, 0.085, ef=100).strategy is Strategy.GRAPH


@pytest.mark.parametrize("recall", [0.9, 0.95, 0.99])
def test_a_graph_that_gives_live_queries_more_than_expected_is_walked_less_far(recall):
    usual, less = (plan_part(FACTS, 10, recall, None, 10_000, COSTS, Correction(ratio, ratio)) for ratio in (1.0, 0.5))
    assert usual.strategy is less.strategy is Strategy.GRAPH
    assert less.beam.ef < usual.beam.ef
    assert less.recall_estimate == pytest.approx(recall, abs=0.02)
