"""Readers beside a writer, all of them killed again and again: no wrong answer, no stale one, nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.crowd import Outcome, Place
from tests.crash.forks import Forks


def check(outcome: Outcome, rounds_min: int, kills: int) -> None:
    print(outcome)
    assert outcome.problems == [], "\n".join(outcome.problems[:20])
    assert outcome.kills.total() == kills
    assert outcome.rounds >= rounds_min
    # A crowd that saw next to nothing happen would prove nothing.
    assert len(outcome.seqs) > 5
    assert len(outcome.segments) > 1


def run(servers: Forks, directory: Path, seed: int, readers: int, seconds: float, kills: int) -> Outcome:
    outcomes = servers.map(
        lambda server, place: server.call("crowd", place, readers, seconds, kills), [Place(directory, seed)]
    )
    found = outcomes[0].result
    assert isinstance(found, Outcome)
    return found


def test_readers_beside_a_writer_are_never_wrong_nor_stale(servers: Forks, quick_directory: Path) -> None:
    check(run(servers, quick_directory, seed=5, readers=2, seconds=8, kills=16), 20, 16)


@pytest.mark.slow
def test_four_readers_beside_a_writer_for_two_minutes(servers: Forks, quick_directory: Path) -> None:
    check(run(servers, quick_directory, seed=6, readers=4, seconds=120, kills=200), 200, 200)
