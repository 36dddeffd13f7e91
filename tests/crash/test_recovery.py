"""Recovery can itself be killed, again and again; and a destroyed file is named, whatever it was, and others go on."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from tests.crash.damages import HOW, damages
from tests.crash.flips import CHECKED, HARMLESS, REPORTED, WRONG, Damage, Finding
from tests.crash.forks import Forks, ForkServer
from tests.crash.history import state_after
from tests.crash.points import Verdict, recovery_point
from tests.crash.runs import ONE_WRITER, REOPENED, base_of, check, long_plan, points_of
from tests.crash.workload import Plan
from tests.trust import Trust

QUOTA_S = 120.0
RECOVERIES = 5
CALLS_OF_RECOVERY = 60
"""About as many as a recovery makes that writes everything out."""
WHOLE = Plan("", seed=13, writers=1, batches=23)


def recovered_at(forks: Forks, directory: Path, plan: Plan, points: int, limit_s: float) -> list[Verdict]:
    base = base_of(forks, directory, plan)
    calls = points_of(forks, directory, plan, points, base)

    def recovered(server: ForkServer, at: int) -> Verdict:
        chance = np.random.default_rng([plan.seed, at])
        kills = chance.integers(1, CALLS_OF_RECOVERY, RECOVERIES)
        return recovery_point(server, directory, plan, base, at, [int(each) for each in kills])

    return forks.map(recovered, calls, limit_s)


@pytest.mark.parametrize("plan", [ONE_WRITER, REOPENED], ids=["new", "reopened"])
def test_five_killed_recoveries_lose_nothing(servers: Forks, quick_directory: Path, trust: Trust, plan: Plan) -> None:
    verdicts = recovered_at(servers, quick_directory, plan, 17, QUOTA_S)
    check(trust, "P13 P1", verdicts, 17)
    assert any(int(each.place[0]) >= 2 for each in verdicts), "hardly a recovery was killed"


@pytest.mark.slow
@pytest.mark.parametrize("number", range(8))
def test_many_more_killed_recoveries_lose_nothing(
    servers: Forks, quick_directory: Path, trust: Trust, number: int
) -> None:
    points = trust.sized(100)
    plan = long_plan(trust.seed, number)
    check(trust, "P13 P1", recovered_at(servers, quick_directory, plan, points, 3_600), points)


def test_every_destroyed_file_is_reported_or_harmless(servers: Forks, quick_directory: Path, trust: Trust) -> None:
    base, older = quick_directory / "base", quick_directory / "older"
    plan = Plan(str(base), WHOLE.seed, WHOLE.writers, WHOLE.batches)
    built = servers.map(lambda server, each: server.call("build_two", each, str(older)), [plan])
    assert built[0].status == 0, built[0].written.decode()
    (collection_id,) = (each.name for each in (older / "collections").iterdir())
    every = np.random.default_rng(4).permutation(np.array(list(damages(base, older, collection_id)), object)).tolist()
    state = state_after(plan.seed, {0: plan.batches})

    def judge(server: ForkServer, numbered: tuple[int, Damage]) -> Finding:
        number, damage = numbered
        place = quick_directory / str(number)
        place.mkdir()
        ended = server.call("damage_files", str(base), str(older), str(place), [damage], plan, state)
        shutil.rmtree(place)
        if ended.status != 0:
            told = ended.written.decode(errors="replace")
            return Finding(damage, WRONG, f"the process ended with {ended.status}: {told}")
        return ended.result[0]  # type: ignore[no-any-return]

    found = servers.map(judge, enumerate(every), QUOTA_S)
    words: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for each in found:
        words[each.flip.how][each.word] += 1  # type: ignore[union-attr]
    for how in HOW:
        print(f"{how:28}", *(f"{words[how][word]:4} {word}" for word in (REPORTED, CHECKED, HARMLESS, WRONG)))
    print(*(f"{each.flip}" for each in found if each.word == HARMLESS), sep="\n")
    wrong = [f"{each.flip}: {each.told}" for each in found if each.word == WRONG]
    trust.points("P3 P13", len(found), len(wrong))
    assert not wrong, "\n".join(wrong)
    assert len(found) > len(every) // 10
    assert words.keys() == set(HOW) or len(found) < len(every) // 2
