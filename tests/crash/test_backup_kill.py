"""Wherever a backup or a restore is killed: the source is untouched, and what bears the target's name is whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.crash.forks import Forks, ForkServer
from tests.trust import Trust

KILLED = -9


def killed_at(
    forks: Forks, directory: Path, act: str, look: str, points: int, seed: int, make: str = "make_source"
) -> list[list[str]]:
    """Points spread over all the calls that the act makes; what is wrong after each."""
    source = directory / "source"
    source.mkdir()
    made = forks.map(lambda server, place: server.call(make, str(place)), [source])
    assert made[0].status == 0, made[0].written.decode()

    def copied(number: int) -> Path:
        place = directory / f"{act}-{number}"
        shutil.copytree(source, place)
        return place

    counts = forks.map(lambda server, never: server.call(act, str(copied(never)), never).result, [10**9, 10**9 + 1])
    total = min(counts)
    chance = np.random.default_rng(seed)
    calls = np.unique((np.linspace(1, total, points) + chance.integers(-1, 2, points)).astype(int).clip(1, total))

    killed: list[bool] = []

    def point(server: ForkServer, call: int) -> list[str]:
        place = copied(call)
        ended = server.call(act, str(place), call)
        # What was flushed before the backup began makes the calls fewer: then it was done before it could be killed.
        assert ended.status in (KILLED, 0), ended.written.decode(errors="replace")
        killed.append(ended.status == KILLED)
        looked = server.call(look, str(place))
        if looked.status != 0:
            return [f"killed at call {call}: {looked.written.decode(errors='replace')}"]
        shutil.rmtree(place)
        return [f"killed at call {call}: {each}" for each in looked.result]

    problems = forks.map(point, [int(each) for each in calls])
    print(f"{act}: {sum(killed)} points of {total} calls")
    assert sum(killed) >= 0.7 * len(killed)
    return problems


ACTS = [("back_up_until_killed", "look_at_backup"), ("restore_until_killed", "look_at_restored")]


@pytest.mark.parametrize(("act", "look"), ACTS)
def test_killed_at_any_call(servers: Forks, quick_directory: Path, act: str, look: str) -> None:
    problems = killed_at(servers, quick_directory, act, look, 20, 1)
    assert len(problems) >= 16
    assert not any(problems), problems


@pytest.mark.slow
@pytest.mark.parametrize(("act", "look"), ACTS)
def test_killed_at_many_more_calls(servers: Forks, quick_directory: Path, act: str, look: str) -> None:
    problems = killed_at(servers, quick_directory, act, look, 200, 2)
    assert not any(problems), problems


def killed_in_a_replay(servers: Forks, directory: Path, trust: Trust, points: int, seed: int) -> None:
    problems = killed_at(
        servers, directory, "replay_until_killed", "look_at_replayed", points, seed, make="make_archived"
    )
    failed = [each for each in problems if each]
    trust.points("P11", len(problems), len(failed), told="restores to a later write")
    assert len(problems) > points // 2
    assert not failed, failed


def test_killed_at_any_call_of_a_replay(servers: Forks, quick_directory: Path, trust: Trust) -> None:
    killed_in_a_replay(servers, quick_directory, trust, 8, 3)


@pytest.mark.slow
def test_killed_at_many_more_calls_of_a_replay(servers: Forks, quick_directory: Path, trust: Trust) -> None:
    killed_in_a_replay(servers, quick_directory, trust, trust.sized(200), 4 + trust.seed)
