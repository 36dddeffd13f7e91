"""Whatever the write-class call at which a process is killed: every acknowledged batch is there, none is halved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.crash.forks import Forks
from tests.crash.points import Verdict, failures, kill_point, summary
from tests.crash.workload import Plan

ONE_WRITER = Plan("", seed=1, writers=1, batches=30)
TWO_WRITERS = Plan("", seed=2, writers=2, batches=18, pause_every=3)
REOPENED = Plan("", seed=3, writers=2, batches=14, first=16, pause_every=3)
BEFORE = replace(REOPENED, batches=REOPENED.first, first=0)


def killed_at(forks: Forks, directory: Path, plan: Plan, points: int, base: Path | None = None) -> list[Verdict]:
    """Points spread evenly over all calls that the plan makes."""
    if base is None:
        place = directory / f"counted-{plan.seed}"
        place.mkdir()
        counted = forks.map(lambda server, each: server.call("count_calls", each), [place_of(plan, place)])
        total = sum(counted[0].result.values())
    else:
        total = 400
    chance = np.random.default_rng(plan.seed)
    calls = np.unique((np.linspace(1, total, points) + chance.integers(-1, 2, points)).astype(int).clip(1))
    return forks.map(
        lambda server, kill_at: kill_point(server, directory, plan, base, kill_at), [int(each) for each in calls]
    )


def place_of(plan: Plan, directory: Path) -> Plan:
    return replace(plan, path=str(directory / "db"))


def base_of(forks: Forks, directory: Path) -> Path:
    """A closed database with the history before ``REOPENED``."""
    (directory / "base").mkdir()
    built = forks.map(lambda server, each: server.call("build", each), [place_of(BEFORE, directory / "base")])
    assert built[0].status == 0, built[0].written.decode()
    return directory / "base" / "db"


def check(verdicts: list[Verdict], points_min: int) -> None:
    print(summary(verdicts))
    assert not any(each.problems for each in verdicts), failures(verdicts)
    assert len(verdicts) >= points_min
    assert any("graph" in each.strategies for each in verdicts), "no graph was ever attached"
    assert len({each.place for each in verdicts}) >= 6, "the points are not spread over different calls"


@pytest.mark.parametrize(("plan", "points"), [(ONE_WRITER, 40), (TWO_WRITERS, 36)])
def test_killed_from_the_first_open_on(servers: Forks, quick_directory: Path, plan: Plan, points: int) -> None:
    check(killed_at(servers, quick_directory, plan, points), points * 9 // 10)


def test_killed_in_a_reopened_database(servers: Forks, quick_directory: Path) -> None:
    check(killed_at(servers, quick_directory, REOPENED, 36, base_of(servers, quick_directory)), 32)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 20))
def test_killed_at_many_more_points(servers: Forks, quick_directory: Path, seed: int) -> None:
    plan = Plan("", seed=seed, writers=1 + seed % 3, batches=30, pause_every=2 + seed % 4)
    check(killed_at(servers, quick_directory, plan, 300), 250)
