"""The tests, tested: an engine that is wrong in one place is noticed by a loss of power, a kill or a flipped byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash.flips import WRONG, Flip, in_pages, in_values, sampled
from tests.crash.forks import CHILD_TIMEOUT_S, Forks, ForkServer
from tests.crash.mutants import FLIP, KILL, MUTANTS, PAGES, POWER, VALUES, Mutant
from tests.crash.points import Verdict, kill_point, power_loss_point
from tests.crash.runs import ONE_WRITER, check, spread
from tests.crash.test_flips import base_of, findings
from tests.storage.forgetful import NAMES
from tests.trust import Trust

POINTS_MAX = 24
CALLS = 700
"""About as many as the plan makes."""
OCCURRENCES = 8
"""Of one kind of call."""
SEEDS = (None, NAMES)
FLIPS_MAX = 96


def crashes(forks: Forks, directory: Path, mutant: Mutant, lose_on: str) -> Iterator[list[Verdict]]:
    """The verdicts of more and more points, two at a time."""
    # Every flush syncs the log in passing: some things show only between flushes.
    plan = replace(ONE_WRITER, pause_every=100) if mutant.calm else ONE_WRITER
    calls = spread(OCCURRENCES if lose_on else CALLS, OCCURRENCES if lose_on else POINTS_MAX, 7)

    def verdicts(server: ForkServer, at: int) -> list[Verdict]:
        if mutant.rig == KILL:
            return [kill_point(server, directory, plan, None, at, mutant.name)]
        return power_loss_point(server, directory, plan, None, at, seeds=SEEDS, lose_on=lose_on, mutant=mutant.name)

    for begin in range(0, len(calls), 2):
        found = [each for judged in forks.map(verdicts, calls[begin : begin + 2]) for each in judged]
        broken = [each for each in found if each.broken]
        assert not broken, broken[0]
        yield found


def require_applicable(forks: Forks, mutant: Mutant) -> None:
    """A mutant that does not fit the engine any more would end every process, and so pass for noticed."""
    (ended,) = forks.map(lambda server, name: server.call("put_in_place", name), [mutant.name])
    assert ended.status == 0, ended.written.decode(errors="replace")


@pytest.mark.parametrize("mutant", [each for each in MUTANTS if each.rig != FLIP], ids=lambda each: each.name)
def test_a_wrong_order_of_writing_is_noticed(
    servers: Forks, quick_directory: Path, trust: Trust, mutant: Mutant
) -> None:
    require_applicable(servers, mutant)
    points = 0
    problems: list[str] = []
    for verdicts in crashes(servers, quick_directory, mutant, mutant.lose_on):
        points += len(verdicts)
        problems = [problem for each in verdicts for problem in each.problems]
        if problems:
            break
    told = f"mutant {'killed' if problems else 'ALIVE'}: {mutant.name}"
    trust.points("P1", points, int(not problems), told)
    print(told, problems[:1])
    assert problems, f"{points} points did not notice it"


@pytest.fixture(scope="module")
def whole(servers: Forks, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, object]:
    """A closed database to flip bytes in, and what is in it."""
    return base_of(servers, tmp_path_factory.mktemp("whole"))


def flips_for(mutant: Mutant, base: Path) -> list[Flip]:
    """Flips where the mutant should have looked."""
    if mutant.kind == VALUES:
        return in_values(base, FLIPS_MAX, seed=8)
    if mutant.kind == PAGES:
        return in_pages(base, FLIPS_MAX // 4, seed=8)
    return [each for each in sampled(base, 3_000, seed=8) if each.kind == mutant.kind][:FLIPS_MAX]


@pytest.mark.parametrize("mutant", [each for each in MUTANTS if each.rig == FLIP], ids=lambda each: each.name)
def test_a_checksum_that_is_not_compared_is_noticed(
    servers: Forks,
    quick_directory: Path,
    trust: Trust,
    whole: tuple[Path, object],
    mutant: Mutant,
    request: pytest.FixtureRequest,
) -> None:
    require_applicable(servers, mutant)
    base, state = whole
    flips = flips_for(mutant, base)
    # What believes a damaged environment may go round in circles in it.
    servers.set_timeout(15)
    request.addfinalizer(lambda: servers.set_timeout(CHILD_TIMEOUT_S))
    wrong: list[str] = []
    points = 0
    for begin in range(0, len(flips), 16):
        part = quick_directory / str(begin)
        part.mkdir()
        found = findings(servers, base, state, flips[begin : begin + 16], part, mutant=mutant.name)  # type: ignore[arg-type]
        points += len(found)
        wrong = [each.told for each in found if each.word == WRONG]
        if wrong:
            break
    told = f"mutant {'killed' if wrong else 'ALIVE'}: {mutant.name}"
    trust.points("P3", points, int(not wrong), told)
    print(told, wrong[:1])
    assert wrong, f"{points} flips did not notice it"


@pytest.mark.parametrize("lose_on", sorted({each.lose_on for each in MUTANTS if each.rig == POWER} - {""}))
def test_the_right_engine_is_not_accused(servers: Forks, quick_directory: Path, trust: Trust, lose_on: str) -> None:
    found = [each for verdicts in crashes(servers, quick_directory, Mutant(""), lose_on) for each in verdicts]
    check(trust, "P1", found, len(found))
