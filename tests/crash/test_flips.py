"""Whatever byte is flipped in a whole database: it is reported with the file's name, or it is provably harmless."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tests.crash.flips import CHECKED, HARMLESS, REPORTED, WRONG, Finding, Flip, sampled
from tests.crash.forks import Forks, ForkServer
from tests.crash.history import State, state_after
from tests.crash.workload import Plan
from vecdb.segment.layout import Role

KINDS = {"VECDB", "LOCK", "mirror", "data.mdb", "log"} | {role.value for role in Role}
PLAN = Plan("", seed=13, writers=1, batches=23)


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


def findings(forks: Forks, base: Path, state: State, flips: list[Flip], directory: Path) -> list[Finding]:
    """Each flip judged; a flip that kills its process is WRONG."""
    groups = [flips[at : at + 8] for at in range(0, len(flips), 8)]

    def judge(server: ForkServer, numbered: tuple[int, list[Flip]]) -> list[Finding]:
        number, group = numbered
        (directory / str(number)).mkdir()
        ended = server.call("flip_bytes", str(base), str(directory / str(number)), group, PLAN, state)
        if ended.status == 0:
            return ended.result  # type: ignore[no-any-return]
        if len(group) == 1:
            told = ended.written.decode(errors="replace")
            return [Finding(group[0], WRONG, f"the process ended with {ended.status}: {told}")]
        shutil.rmtree(directory / str(number))
        return [
            finding
            for alone, flip in enumerate(group)
            for finding in judge(server, ((number + 1) * 100_000 + alone, [flip]))
        ]

    return [each for judged in forks.map(judge, enumerate(groups)) for each in judged]


def check(found: list[Finding], count: int) -> None:
    words: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for each in found:
        words[each.flip.kind][each.word] += 1
    for kind, counts in sorted(words.items()):
        print(f"{kind:10}", *(f"{counts[word]:5} {word}" for word in (REPORTED, CHECKED, HARMLESS, WRONG)))
    wrong = [f"{each.flip}: {each.told}" for each in found if each.word == WRONG]
    assert not wrong, "\n".join(wrong[:20])
    assert len(found) >= count
    assert words.keys() == KINDS


def test_every_flipped_byte_is_reported_or_harmless(servers: Forks, quick_directory: Path) -> None:
    base, state = base_of(servers, quick_directory)
    check(findings(servers, base, state, sampled(base, 1_000, seed=1), quick_directory), 1_000)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 8))
def test_many_more_flipped_bytes(servers: Forks, quick_directory: Path, seed: int) -> None:
    base, state = base_of(servers, quick_directory)
    check(findings(servers, base, state, sampled(base, 4_000, seed), quick_directory), 4_000)
