"""The ledger of live recall: what it teaches reaches what was asked, and follows when queries change."""

import numpy as np
import pytest

from vecdb.engine.recall_ledger import RecallLedger, kind_of
from vecdb.query.correction import NO_CORRECTION

KIND = kind_of("v", 0.95, None, 1.0)


class Searched:
    """Live queries that miss ``harder`` times what the calibration expects, hits being ten a query."""

    def __init__(self, ledger, seed=0):
        self.ledger = ledger
        self.rng = np.random.default_rng(seed)
        self.harder = 1.0
        self.asked = 0.95

    @property
    def expected(self):
        """What the calibration expects a plan to miss that follows the correction."""
        applied = self.ledger.correction_of("v", self.asked, None)(1.0).applied
        return (1 - self.asked) / applied

    @property
    def missed(self):
        return min(1.0, self.expected**0.9 * 0.05**0.1 * self.harder)

    def run(self, queries):
        for number in range(queries):
            every = 4 if self.ledger.is_eager(KIND) else 50
            if number % every == 0:
                # Misses come in clumps: some queries are hard.
                hard = self.rng.gamma(1.0, self.missed)
                self.ledger.record(KIND, self.rng.binomial(10, min(hard, 1.0)) / 10, self.expected)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("harder", [1.0, 2.0, 5.0])
def test_500_harder_queries_are_enough_to_reach_what_was_asked(harder, seed):
    searched = Searched(RecallLedger(corrects=True), seed)
    searched.harder = harder
    searched.run(500)
    assert searched.missed <= 0.05 + 0.015
    assert searched.expected >= 0.05 / harder / 3


@pytest.mark.parametrize("seed", range(2))
def test_a_change_after_long_use_is_met_as_well(seed):
    searched = Searched(RecallLedger(corrects=True), seed)
    searched.run(6_000)
    assert 0.04 <= searched.expected <= 0.06
    searched.harder = 5.0
    assert searched.missed > 0.2
    searched.run(500)
    assert searched.missed <= 0.05 + 0.03
    searched.harder = 1.0
    searched.run(6_000)
    assert searched.expected >= 0.035


def test_the_estimate_and_its_interval_follow_what_is_found():
    searched = Searched(RecallLedger(corrects=True))
    searched.harder = 3.0
    searched.run(2000)
    (live,) = searched.ledger.live()
    assert (live.field, live.recall, live.share) == ("v", 0.95, 1.0)
    assert 0 <= live.low <= live.estimate <= live.high <= 1
    assert live.low - 0.01 <= 1 - searched.missed <= live.high + 0.01
    assert live.correction > 1.5
    assert live.samples >= 128


def test_a_frozen_ledger_tells_but_does_not_correct():
    searched = Searched(RecallLedger(corrects=False))
    searched.harder = 4.0
    searched.run(500)
    correction = searched.ledger.correction_of("v", 0.95, None)(1.0)
    assert correction.applied == 1.0
    assert correction.measured > 2


def test_easier_queries_never_make_a_plan_miss_more_than_was_asked():
    for seed in range(3):
        searched = Searched(RecallLedger(corrects=True), seed)
        searched.harder = 0.6
        searched.run(1000)
        assert searched.missed <= 0.05 + 0.005


def test_kinds_are_kept_apart():
    ledger = RecallLedger(corrects=True)
    for _ in range(64):
        ledger.record(kind_of("v", 0.95, None, 1.0), 0.5, 0.05)
    assert ledger.correction_of("v", 0.95, None)(1.0).applied > 4
    others = [("v", 0.99, None, 1.0), ("v", 0.95, 64, 1.0), ("v", 0.95, None, 0.4), ("w", 0.95, None, 1.0)]
    for field, recall, ef, share in others:
        assert ledger.correction_of(field, recall, ef)(share) == NO_CORRECTION
    assert [kind_of("v", recall, None, 1.0).recall for recall in (0.5, 0.92, 0.94, 0.96, 0.98, 0.999)] == [
        0.9, 0.9, 0.95, 0.95, 0.99, 0.99,
    ]  # fmt: skip
    assert [kind_of("v", 0.9, None, share).share for share in (1.0, 0.7, 0.2, 0.01)] == [1.0, 0.5, 0.2, 0.05]
