"""Whatever the write-class call at which a process is killed: every acknowledged batch is there, none is halved."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.forks import Forks
from tests.crash.points import Verdict, kill_point
from tests.crash.runs import ONE_WRITER, REOPENED, TWO_WRITERS, base_of, check, long_plan, points_of
from tests.crash.workload import Plan
from tests.trust import Trust

PROMISES = "P1 P2 P10"
POINTS = 36
QUOTA_S = 120.0
"""For each plan: a machine that is far too slow runs fewer points."""


def killed_at(forks: Forks, directory: Path, plan: Plan, points: int, limit_s: float) -> list[Verdict]:
    base = base_of(forks, directory, plan)
    calls = points_of(forks, directory, plan, points, base)
    return forks.map(lambda server, at: kill_point(server, directory, plan, base, at), calls, limit_s)


@pytest.mark.parametrize("plan", [ONE_WRITER, TWO_WRITERS, REOPENED], ids=["one", "two", "reopened"])
def test_nothing_acknowledged_is_lost_by_a_kill(
    servers: Forks, quick_directory: Path, trust: Trust, plan: Plan
) -> None:
    verdicts = killed_at(servers, quick_directory, plan, POINTS, QUOTA_S)
    check(trust, PROMISES, verdicts, POINTS)
    if len(verdicts) > POINTS // 2:
        assert any("graph" in each.strategies for each in verdicts), "no graph was ever attached"
        assert len({each.place for each in verdicts}) >= 6, "the points are not spread over different calls"


@pytest.mark.slow
@pytest.mark.parametrize("number", range(17))
def test_nothing_acknowledged_is_lost_by_many_kills(
    servers: Forks, quick_directory: Path, trust: Trust, number: int
) -> None:
    points = trust.sized(300)
    plan = long_plan(trust.seed, number)
    check(trust, PROMISES, killed_at(servers, quick_directory, plan, points, 3_600), points)
