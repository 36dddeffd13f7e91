"""Whatever the call at which the power is lost: what was synced suffices, and random unsynced pieces do no harm.

The mutants show that the test can fail: each leaves a sync out, and must lose acknowledged rows.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.crash.forks import Forks
from tests.crash.points import Verdict, failures, power_loss_point, summary
from tests.crash.test_kill import ONE_WRITER, REOPENED, TWO_WRITERS, base_of, place_of
from tests.crash.workload import Plan

SEEDS = (None, 1)


def calls_of(forks: Forks, directory: Path, plan: Plan) -> int:
    place = directory / f"counted-{plan.seed}"
    place.mkdir()
    counted = forks.map(lambda server, each: server.call("count_calls", each), [place_of(plan, place)])
    return sum(counted[0].result.values())


def lost_at(
    forks: Forks, directory: Path, plan: Plan, calls: list[int], base: Path | None = None, **how: object
) -> list[Verdict]:
    found = forks.map(
        lambda server, lose_at: power_loss_point(server, directory, plan, base, lose_at, **how),  # type: ignore[arg-type]
        calls,
    )
    return [verdict for verdicts in found for verdict in verdicts]


def spread(total: int, points: int, seed: int) -> list[int]:
    chance = np.random.default_rng(seed)
    return sorted({int(each) for each in np.linspace(1, total, points) + chance.integers(-1, 2, points) if each >= 1})


def check(verdicts: list[Verdict], points_min: int) -> None:
    print(summary(verdicts))
    assert not any(each.problems for each in verdicts), failures(verdicts)
    assert len(verdicts) >= points_min


@pytest.mark.parametrize(("plan", "points"), [(ONE_WRITER, 24), (TWO_WRITERS, 16)])
def test_nothing_acknowledged_is_lost(servers: Forks, quick_directory: Path, plan: Plan, points: int) -> None:
    calls = spread(calls_of(servers, quick_directory, plan), points, plan.seed)
    check(lost_at(servers, quick_directory, plan, calls, seeds=SEEDS), 2 * points * 9 // 10)


def test_nothing_of_before_a_reopening_is_lost(servers: Forks, quick_directory: Path) -> None:
    base = base_of(servers, quick_directory)
    check(lost_at(servers, quick_directory, REOPENED, spread(300, 16, 5), base, seeds=SEEDS), 28)


@pytest.mark.parametrize(
    ("left_out", "early"),
    [
        (("fdatasync",), False),
        (("fsync of segments",), False),
        (("fsync of mirrors",), False),
        (("fsync_directory of the log",), False),
        (("fsync_directory of the rest",), False),
        ((), True),
    ],
    ids=[
        "the log's fdatasync left out",
        "segment files not synced",
        "mirrors not synced",
        "the log's directory not synced",
        "other directories not synced",
        "acknowledged before the sync",
    ],
)
def test_a_missing_sync_is_noticed(
    servers: Forks, quick_directory: Path, left_out: tuple[str, ...], early: bool
) -> None:
    # Every flush syncs the log in passing: an early acknowledgement shows between flushes.
    plan = replace(ONE_WRITER, pause_every=100) if early else ONE_WRITER
    calls = spread(calls_of(servers, quick_directory, plan), 14, 7)[2:]
    verdicts = lost_at(servers, quick_directory, plan, calls, left_out=left_out, early=early)
    told = summary(verdicts)
    print(told)
    assert any(each.problems for each in verdicts), f"the mutant was not noticed: {told}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20, 30))
def test_nothing_is_lost_at_many_more_points(servers: Forks, quick_directory: Path, seed: int) -> None:
    plan = Plan("", seed=seed, writers=1 + seed % 3, batches=30, pause_every=2 + seed % 4)
    calls = spread(calls_of(servers, quick_directory, plan), 150, seed)
    check(lost_at(servers, quick_directory, plan, calls, seeds=(None, 1, 2, 3)), 500)
