"""A full disk and a failing device: a refused write leaves nothing behind, a failed sync acknowledges nothing.

What is refused for want of space succeeds when it is tried again; after a failed sync the writer stops and reopening
recovers what was acknowledged.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.crash.forks import Forks
from tests.crash.history import SCHEMA, State, applied, batch
from tests.crash.observe import differences, observe
from tests.crash.points import Verdict, error_point
from tests.crash.runs import ONE_WRITER, TWO_WRITERS, calls_of, check, long_plan, spread
from tests.crash.workload import OPTIONS, Plan, hand_over
from tests.trust import Trust
from vecdb.engine.database import EmbeddedDatabase, choose_kernels
from vecdb.storage.io import FileSystem

SPACE = ("create", "write", "allocate", "extend", "committing")
SYNCS = ("fsync", "fdatasync", "fsync_directory")
FULL, FAILED = 14, 20
QUOTA_S = 120.0


def points(
    forks: Forks, directory: Path, plan: Plan, number: int, calls: tuple[str, ...], count: int, limit_s: float
) -> list[Verdict]:
    made = calls_of(forks, directory, plan)
    numbers = spread(sum(made.get(call, 0) for call in calls), count, plan.seed)
    return forks.map(lambda server, at: error_point(server, directory, plan, number, calls, at), numbers, limit_s)


@pytest.mark.parametrize("plan", [ONE_WRITER, TWO_WRITERS], ids=["one writer", "two writers"])
def test_a_full_disk_refuses_without_effect(servers: Forks, quick_directory: Path, trust: Trust, plan: Plan) -> None:
    check(trust, "P5", points(servers, quick_directory, plan, errno.ENOSPC, SPACE, FULL, QUOTA_S), FULL)


@pytest.mark.parametrize("plan", [ONE_WRITER, TWO_WRITERS], ids=["one writer", "two writers"])
def test_a_failed_sync_acknowledges_nothing(servers: Forks, quick_directory: Path, trust: Trust, plan: Plan) -> None:
    check(trust, "P6", points(servers, quick_directory, plan, errno.EIO, SYNCS, FAILED, QUOTA_S), FAILED)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize(
    ("promise", "error", "calls"), [("P5", errno.ENOSPC, SPACE), ("P6", errno.EIO, SYNCS)], ids=["full", "failed"]
)
def test_at_every_call(
    servers: Forks, quick_directory: Path, trust: Trust, number: int, promise: str, error: int, calls: tuple[str, ...]
) -> None:
    aim = trust.sized(400)
    check(trust, promise, points(servers, quick_directory, long_plan(trust.seed, number), error, calls, aim, 3_600), 40)


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
