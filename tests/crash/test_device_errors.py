"""A full disk and a failing device: a refused write leaves nothing behind, a failed sync acknowledges nothing.

What is refused for want of space succeeds when it is tried again; after a failed sync the writer stops and reopening
recovers what was acknowledged.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash.forks import Forks, ForkServer
from tests.crash.history import SCHEMA, Reports, State, applied, batch
from tests.crash.observe import differences, observe
from tests.crash.points import Verdict, failures, inspected, summary
from tests.crash.test_kill import ONE_WRITER, TWO_WRITERS
from tests.crash.test_power_loss import spread
from tests.crash.workload import OPTIONS, Plan, hand_over
from vecdb.engine.database import EmbeddedDatabase, choose_kernels
from vecdb.storage.io import FileSystem

SPACE = ("create", "write", "allocate", "extend", "committing")
SYNCS = ("fsync", "fdatasync", "fsync_directory")


def point(server: ForkServer, directory: Path, plan: Plan, number: int, calls: tuple[str, ...], at: int) -> Verdict:
    """Fail one call of a run of the plan, and look."""
    name = f"{errno.errorcode[number]} at the {at}-th of {calls} of {plan}"
    place = directory / f"{errno.errorcode[number]}-{plan.seed}-{at}"
    place.mkdir()
    here = replace(plan, path=str(place / "db"))
    ended = server.call("run_with_error", here, number, calls, at)
    if ended.status != 0:
        return Verdict(name, [f"the child ended with {ended.status}: {ended.written.decode(errors='replace')}"])
    reports = Reports.parse(ended.lines)
    told = [each for each in reports.other if each["event"] == "differs"]
    verdict = inspected(server, name, "", place / "db", here, reports, twice=False)
    failed = next((each["call"] for each in reports.other if each["event"] == "failed"), "none")
    return replace(verdict, place=failed, problems=[*(f"before closing: {each}" for each in told), *verdict.problems])


def points(forks: Forks, directory: Path, plan: Plan, number: int, calls: tuple[str, ...], count: int) -> list[Verdict]:
    place = directory / "counted"
    place.mkdir()
    counted = forks.map(lambda server, each: server.call("count_calls", each), [replace(plan, path=str(place / "db"))])[
        0
    ].result
    total = sum(counted.get(call, 0) for call in calls)
    return forks.map(
        lambda server, at: point(server, directory, plan, number, calls, at), spread(total, count, plan.seed)
    )


def check(verdicts: list[Verdict], points_min: int) -> None:
    print(summary(verdicts))
    assert not any(each.problems for each in verdicts), failures(verdicts)
    assert len(verdicts) >= points_min


@pytest.mark.parametrize("plan", [ONE_WRITER, TWO_WRITERS], ids=["one writer", "two writers"])
def test_a_full_disk_refuses_without_effect(servers: Forks, quick_directory: Path, plan: Plan) -> None:
    check(points(servers, quick_directory, plan, errno.ENOSPC, SPACE, 75), 70)


@pytest.mark.parametrize("plan", [ONE_WRITER, TWO_WRITERS], ids=["one writer", "two writers"])
def test_a_failed_sync_acknowledges_nothing(servers: Forks, quick_directory: Path, plan: Plan) -> None:
    check(points(servers, quick_directory, plan, errno.EIO, SYNCS, 50), 45)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30, 34))
@pytest.mark.parametrize(("number", "calls"), [(errno.ENOSPC, SPACE), (errno.EIO, SYNCS)], ids=["full", "failed"])
def test_at_every_call(servers: Forks, quick_directory: Path, seed: int, number: int, calls: tuple[str, ...]) -> None:
    plan = Plan("", seed=seed, writers=1 + seed % 2, batches=24, pause_every=2 + seed % 3)
    check(points(servers, quick_directory, plan, number, calls, 400), 100)


class NoRoomForMirrors(FileSystem):
    """Has no room for the files that follow each commit, as long as it is ``armed``."""

    armed = False

    def create(self, path: Path) -> int:
        if self.armed and path.name.startswith("mirror"):
            raise OSError(errno.ENOSPC, "no space")
        return super().create(path)


def test_a_commit_whose_mirror_finds_no_room_is_made_once(quick_directory: Path) -> None:
    file_system = NoRoomForMirrors()
    state: State = {}
    path = quick_directory / "db"
    kernels = choose_kernels("reference")
    with EmbeddedDatabase.open(path, options=OPTIONS, kernels=kernels, file_system=file_system) as database:
        collection = database.create_collection("docs", schema=SCHEMA)
        for number in range(12):
            file_system.armed = number % 4 < 2
            hand_over(collection, batch(5, 0, number))
            state = applied(state, batch(5, 0, number))
            collection.flush()
        file_system.armed = True
        assert collection.stats().events["mirror_not_written"]
        assert not differences(observe(collection, [0]), state)
    with EmbeddedDatabase.open(path, options=OPTIONS, kernels=kernels) as database:
        assert not differences(observe(database.collection("docs"), [0]), state)
