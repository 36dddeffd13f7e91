"""200 rows acknowledged, the power lost right after the last acknowledgement: 200 rows back, embedded and served.

Once on a real file system that is shut down, where one can be mounted, and always on one that forgets.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.crash.acknowledging import DIM, LEFT, NAME, OPTIONS, ROWS, rows_in, write
from tests.crash.forks import ROOT, Forks, ForkServer
from tests.crash.points import Verdict, volume_point
from tests.crash.runs import ONE_WRITER, TWO_WRITERS, check, long_plan, spread
from tests.crash.volume import WITH_JOURNAL, WITHOUT_JOURNAL, Volume, unavailable
from tests.crash.workload import Plan
from tests.trust import Trust
from vecdb.client import connect
from vecdb.engine.check import check_database
from vecdb.engine.database import EmbeddedDatabase

mountable = pytest.mark.skipif(bool(unavailable()), reason=f"no volume can lose its power here: {unavailable()}")
KINDS = ("embedded", "served")
PROMISES = "P1 P2 P10"
CALLS = 700
"""About as many as the plans make."""


@contextmanager
def acknowledging(kind: str, path: Path, *survivors: str) -> Iterator[subprocess.Popen[str]]:
    """The process, once it has acknowledged every row; killed at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.crash.acknowledging", kind, str(path), *survivors],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
    )
    assert process.stdout is not None
    try:
        if kind == "served":
            with connect(process.stdout.readline().strip()) as database:
                collection = database.create_collection(NAME, dim=DIM)
                seqs = [write(collection, number) for number in range(ROWS)]
        else:
            seqs = [int(process.stdout.readline().removeprefix("ACK ")) for _ in range(ROWS)]
        assert seqs == list(range(1, ROWS + 1))
        yield process
    finally:
        process.kill()
        process.wait(60)
        process.stdout.close()


def check_rows(trust: Trust, path: Path, told: str) -> None:
    with EmbeddedDatabase.open(path, options=OPTIONS) as database:
        found = rows_in(database)
    trust.points("P1", ROWS, ROWS - len(found), told)
    assert found == set(range(ROWS))
    report = check_database(path)
    assert report.ok, report.problems


@mountable
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flag", [WITH_JOURNAL, WITHOUT_JOURNAL])
def test_all_rows_survive_the_shutdown_of_a_real_file_system(trust: Trust, kind: str, flag: int) -> None:
    with Volume() as volume:
        with acknowledging(kind, volume.root / "db"):
            volume.lose_power(flag)
        volume.restart()
        check_rows(trust, volume.root / "db", f"ext4, flag {flag}, {kind}: rows acknowledged and back")


@pytest.mark.parametrize("kind", KINDS)
def test_all_rows_survive_a_file_system_that_forgets(quick_directory: Path, trust: Trust, kind: str) -> None:
    path = quick_directory / "run" / "db"
    path.parent.mkdir()
    (quick_directory / "left").mkdir()
    with acknowledging(kind, path, str(quick_directory / "left")) as process:
        process.send_signal(signal.SIGUSR1)
        assert process.wait(60) == -signal.SIGKILL
    for name in LEFT:
        check_rows(
            trust, quick_directory / "left" / name / "db", f"forgetful, {name}, {kind}: rows acknowledged and back"
        )


def lost_at(forks: Forks, plan: Plan, points: int, limit_s: float) -> list[Verdict]:
    """Runs of a plan, each on a volume of its own that is shut down at one of the write-class calls."""

    def lost(server: ForkServer, numbered: tuple[int, int]) -> Verdict:
        number, lose_at = numbered
        with Volume() as volume:
            return volume_point(server, volume, plan, lose_at, (WITH_JOURNAL, WITHOUT_JOURNAL)[number % 2])

    return forks.map(lost, enumerate(spread(CALLS, points, plan.seed)), limit_s)


@mountable
@pytest.mark.parametrize("plan", [ONE_WRITER, TWO_WRITERS], ids=["one", "two"])
def test_nothing_acknowledged_is_lost_on_a_real_file_system(servers: Forks, trust: Trust, plan: Plan) -> None:
    check(trust, PROMISES, lost_at(servers, plan, 14, 120.0), 14)


@mountable
@pytest.mark.slow
@pytest.mark.parametrize("number", range(8))
def test_nothing_acknowledged_is_lost_at_many_calls(servers: Forks, trust: Trust, number: int) -> None:
    aim = trust.sized(300)
    check(trust, PROMISES, lost_at(servers, long_plan(trust.seed, number), aim, 3_600), aim)
