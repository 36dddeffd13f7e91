"""What the crash tests have in common: plans, points spread over the calls of a plan, and the verdict of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.crash.forks import Forks
from tests.crash.points import Verdict, failures, summary
from tests.crash.workload import Plan
from tests.trust import Trust

ONE_WRITER = Plan("", seed=1, writers=1, batches=30)
TWO_WRITERS = Plan("", seed=2, writers=2, batches=18, pause_every=3)
REOPENED = Plan("", seed=3, writers=2, batches=14, first=16, pause_every=3)
"""Goes on in a database with a history: that of ``before(REOPENED)``."""
CALLS_OF_REOPENED = 400


def before(plan: Plan) -> Plan:
    """The plan that makes the history which ``plan`` goes on from."""
    return replace(plan, batches=plan.first, first=0)


def long_plan(seed: int, number: int) -> Plan:
    """One of many plans, each with another history."""
    drawn = 10 + 1_000 * seed + number
    return Plan("", seed=drawn, writers=1 + drawn % 3, batches=30, pause_every=2 + drawn % 4)


def place_of(plan: Plan, directory: Path) -> Plan:
    return replace(plan, path=str(directory / "db"))


def base_of(forks: Forks, directory: Path, plan: Plan) -> Path | None:
    """A closed database with the history that the plan goes on from; None where it begins with nothing."""
    if plan.first == 0:
        return None
    place = directory / "base"
    place.mkdir()
    built = forks.map(lambda server, each: server.call("build", each), [place_of(before(plan), place)])
    assert built[0].status == 0, built[0].written.decode()
    return place / "db"


def calls_of(forks: Forks, directory: Path, plan: Plan) -> dict[str, int]:
    """How many write-class calls a plan makes that begins with nothing, by name."""
    place = directory / f"counted-{plan.seed}"
    place.mkdir()
    counted = forks.map(lambda server, each: server.call("count_calls", each), [place_of(plan, place)])
    return counted[0].result  # type: ignore[no-any-return]


def spread(total: int, points: int, seed: int) -> list[int]:
    """Numbers of calls, spread evenly, in random order: a run that is cut short has them from everywhere."""
    chance = np.random.default_rng(seed)
    numbers = np.linspace(1, total, points) + chance.integers(-1, 2, points)
    return [int(each) for each in chance.permutation(np.unique(numbers.astype(int).clip(1)))]


def points_of(forks: Forks, directory: Path, plan: Plan, points: int, base: Path | None) -> list[int]:
    """Numbers of calls of a plan at which something is to happen."""
    total = CALLS_OF_REOPENED if base else sum(calls_of(forks, directory, plan).values())
    return spread(total, points, plan.seed)


def check(trust: Trust, promises: str, verdicts: Sequence[Verdict], aim: int, told: str = "") -> None:
    """Note the points, and fail with all that a replay needs where one went wrong.

    A slow machine runs out of time before it has run the points that were aimed at; the table says how many it ran.
    """
    failed = sum(bool(each.problems) for each in verdicts)
    trust.points(promises, len(verdicts), failed, told)
    print(summary(verdicts))
    assert not failed, failures(verdicts)
    assert len(verdicts) > aim // 10
