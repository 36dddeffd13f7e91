"""Whatever byte is flipped in a whole database: it is reported with the file's name, or it is provably harmless."""

from __future__ import annotations

import math
import shutil
from collections import Counter, defaultdict
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.crash.flips import CHECKED, HARMLESS, REPORTED, WRONG, Finding, Flip, every, sampled
from tests.crash.forks import Forks, ForkServer
from tests.crash.history import State, state_after
from tests.crash.points import replay
from tests.crash.workload import Plan
from tests.trust import Trust
from vecdb.segment.layout import Role

KINDS = {"VECDB", "LOCK", "RESERVE", "mirror", "data.mdb", "log"} | {role.value for role in Role}
PLAN = Plan("", seed=13, writers=1, batches=23)
FLIPS = 304
QUOTA_S = 120.0
PARTS = 16
"""Of the long run, so that a table can be had of a part of it."""


def base_of(forks: Forks, directory: Path) -> tuple[Path, State]:
    """A closed database that holds a bit of everything, and what is in it."""
    plan = Plan(str(directory / "base"), PLAN.seed, PLAN.writers, PLAN.batches)
    built = forks.map(lambda server, each: server.call("build", each), [plan])
    assert built[0].status == 0, built[0].written.decode()
    # What it consists of is read from a copy: every byte stays as the clean close left it.
    shutil.copytree(directory / "base", directory / "copy")
    parts = forks.map(lambda server, each: server.call("completeness", each), [str(directory / "copy")])[0].result
    assert all(parts.values()), parts
    print(parts)
    return directory / "base", state_after(PLAN.seed, {0: PLAN.batches})


def findings(
    forks: Forks,
    base: Path,
    state: State,
    flips: list[Flip],
    directory: Path,
    *,
    limit_s: float = math.inf,
    mutant: str = "",
) -> list[Finding]:
    """Each flip judged; a flip that kills its process is WRONG."""
    groups = [flips[at : at + 8] for at in range(0, len(flips), 8)]

    def judge(server: ForkServer, numbered: tuple[int, list[Flip]]) -> list[Finding]:
        number, group = numbered
        (directory / str(number)).mkdir()
        ended = server.call("flip_bytes", str(base), str(directory / str(number)), group, PLAN, state, mutant)
        if ended.status == 0:
            return ended.result  # type: ignore[no-any-return]
        if len(group) == 1 or mutant:
            told = ended.written.decode(errors="replace")
            return [Finding(group[0], WRONG, f"the process ended with {ended.status}: {told}")]
        shutil.rmtree(directory / str(number))
        return [
            finding
            for alone, flip in enumerate(group)
            for finding in judge(server, ((number + 1) * 100_000 + alone, [flip]))
        ]

    return [each for judged in forks.map(judge, enumerate(groups), limit_s) for each in judged]


def check(trust: Trust, found: list[Finding], aim: int) -> None:
    words: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for each in found:
        words[each.flip.kind][each.word] += 1
    for kind, counts in sorted(words.items()):
        print(f"{kind:10}", *(f"{counts[word]:5} {word}" for word in (REPORTED, CHECKED, HARMLESS, WRONG)))
    wrong = [f"{replay('flip', PLAN, flip=asdict(each.flip))}: {each.told}" for each in found if each.word == WRONG]
    trust.points("P3", len(found), len(wrong))
    assert not wrong, "\n".join(wrong[:20])
    assert len(found) > aim // 10
    assert words.keys() == KINDS or len(found) < FLIPS // 2


def test_every_flipped_byte_is_reported_or_harmless(servers: Forks, quick_directory: Path, trust: Trust) -> None:
    base, state = base_of(servers, quick_directory)
    flips = sampled(base, FLIPS, seed=1)
    check(trust, findings(servers, base, state, flips, quick_directory, limit_s=QUOTA_S), FLIPS)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_every_byte_flipped(servers: Forks, quick_directory: Path, trust: Trust, part: int) -> None:
    base, state = base_of(servers, quick_directory)
    flips = every(base, trust.seed)[part::PARTS]
    aim = trust.sized(len(flips))
    check(trust, findings(servers, base, state, flips[:aim], quick_directory), aim)
