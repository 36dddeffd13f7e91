"""Whatever the call at which the power is lost: what was synced suffices, and unsynced pieces do no harm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.crash.forks import Forks
from tests.crash.points import Verdict, power_loss_point
from tests.crash.runs import ONE_WRITER, REOPENED, TWO_WRITERS, base_of, check, long_plan, points_of
from tests.crash.workload import Plan
from tests.storage.forgetful import NAMES
from tests.trust import Trust

PROMISES = "P1 P2 P10"
POINTS = 14
SEEDS = (None, NAMES, 1)
QUOTA_S = 120.0


def lost_at(
    forks: Forks, directory: Path, plan: Plan, points: int, seeds: Sequence[int | None], limit_s: float
) -> list[Verdict]:
    base = base_of(forks, directory, plan)
    calls = points_of(forks, directory, plan, points, base)
    found = forks.map(
        lambda server, at: power_loss_point(server, directory, plan, base, at, seeds=seeds), calls, limit_s
    )
    return [verdict for verdicts in found for verdict in verdicts]


@pytest.mark.parametrize("plan", [ONE_WRITER, TWO_WRITERS, REOPENED], ids=["one", "two", "reopened"])
def test_nothing_acknowledged_is_lost_with_the_power(
    servers: Forks, quick_directory: Path, trust: Trust, plan: Plan
) -> None:
    verdicts = lost_at(servers, quick_directory, plan, POINTS, SEEDS, QUOTA_S)
    aim = POINTS * len(SEEDS)
    check(trust, PROMISES, verdicts, aim)
    if len(verdicts) > aim // 2:
        assert len({each.place for each in verdicts}) >= 6, "the points are not spread over different calls"


@pytest.mark.slow
@pytest.mark.parametrize("number", range(17))
def test_nothing_acknowledged_is_lost_with_the_power_at_many_calls(
    servers: Forks, quick_directory: Path, trust: Trust, number: int
) -> None:
    points = trust.sized(60)
    plan = long_plan(trust.seed, number)
    verdicts = lost_at(servers, quick_directory, plan, points, (None, NAMES, 1, 2, 3), 3_600)
    check(trust, PROMISES, verdicts, 5 * points)
