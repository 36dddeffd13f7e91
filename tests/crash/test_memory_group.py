"""A cap on memory by the kernel: whoever goes beyond it is killed, and under the same cap all is there again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.crash.capped import BATCH, BATCH_BYTES, NAME, ids, vectors
from tests.crash.cgroups import NoMemoryGroup, memory_group
from tests.crash.forks import ROOT
from tests.trust import Trust
from vecdb.engine.check import check_database
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.options import EngineOptions

KILLED = -signal.SIGKILL
THRIFTY = {"memtable_size_bytes": 2 * 2**20, "memory_size_bytes_max": 8 * 2**20}
GREEDY = {"memtable_size_bytes": 2**30, "memory_size_bytes_max": 2**30, "compaction": False}
"""Without merges, which would read their files again and again in the little memory that is left."""


@dataclass(frozen=True)
class Ended:
    """What a process under a cap told before it ended."""

    status: int
    rows_found: int
    acknowledged: set[int]
    refused: set[int]
    nearest: int | None


def capped(procs: Path, path: Path, batches: range, options: dict[str, int]) -> Ended:
    """Run it in the group of ``procs``."""
    arguments = [str(procs), str(path), str(batches.start), str(batches.stop), json.dumps(options)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.capped", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=ROOT,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "PYTHONPATH": str(ROOT)},
    )
    # Where there is hardly any memory left a process may only crawl: it is killed all the same.
    status = KILLED if done.returncode == -signal.SIGALRM else done.returncode
    assert status in (0, KILLED), done.stderr
    said = [line.split() for line in done.stdout.splitlines()]
    told = {word: [int(each[1]) for each in said if each[0] == word] for word in ("FOUND", "ACK", "REFUSED", "NEAREST")}
    assert (said[-1:] == [["CLOSED"]]) == (status == 0)
    assert told["FOUND"], "killed before the database was open"
    nearest = told["NEAREST"][0] if told["NEAREST"] else None
    return Ended(status, told["FOUND"][0], set(told["ACK"]), set(told["REFUSED"]), nearest)


def wrong_batches(path: Path, acknowledged: set[int], in_flight: set[int]) -> list[str]:
    """What differs from the batches that were acknowledged; one in flight is there whole or not at all."""
    wrong = []
    with EmbeddedDatabase.open(path, options=EngineOptions(kernels="reference", graph_rows_min=2**31)) as database:
        collection = database.collection(NAME)
        there = {number for number in acknowledged | in_flight if collection.get(ids(number)[:1])}
        if missing := acknowledged - there:
            wrong.append(f"lost: {sorted(missing)}")
        if collection.count() != BATCH * len(there):
            wrong.append(f"{collection.count()} rows of {len(there)} batches")
        for number in there:
            expected = vectors(number)
            for row in (0, BATCH // 2, BATCH - 1):
                (point,) = collection.get([ids(number)[row]], with_vectors=True)
                if point.payload != {"batch": number} or not np.allclose(point.vector, expected[row], rtol=1e-5):
                    wrong.append(f"batch {number}, row {row} is another")
    return wrong


def in_flight_of(ended: Ended, batches: range) -> set[int]:
    """The batch that was not answered, of a process that was killed."""
    answered = {batches.start - 1} | ended.acknowledged | ended.refused
    return {max(answered) + 1} if ended.status == KILLED else set()


def killed_and_opened_again(
    procs: Path, path: Path, trust: Trust, batches: range, before: set[int], in_flight: set[int]
) -> None:
    """Have a process killed that keeps all its rows in memory; another opens what it left, as thrifty as can be."""
    greedy = capped(procs, path, batches, GREEDY)
    assert greedy.status == KILLED or greedy.refused, "the cap was none"
    acknowledged = before | greedy.acknowledged
    assert greedy.acknowledged
    in_flight = in_flight | in_flight_of(greedy, batches)
    more = range(batches.stop, batches.stop + 2)
    again = capped(procs, path, more, THRIFTY)
    assert again.status == 0
    assert again.acknowledged == set(more)
    assert again.nearest == ids(0)[7]
    assert 0 <= again.rows_found - BATCH * len(acknowledged) <= BATCH * len(in_flight)
    wrong = wrong_batches(path, acknowledged | again.acknowledged, in_flight)
    trust.points("P1 P7", len(acknowledged), len(wrong), told="under a cap of the kernel")
    assert not wrong, wrong
    report = check_database(path)
    assert report.ok, report.problems


@pytest.fixture
def group(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A group with as many bytes as the test's parameter says."""
    try:
        with memory_group(request.param) as procs:
            yield procs
    except NoMemoryGroup as error:
        pytest.skip(f"memory cannot be capped here: {error}")


@pytest.mark.parametrize("group", [48 * 2**20], indirect=True, ids=["48 MiB"])
def test_killed_for_its_memory_it_has_all_that_was_acknowledged(group: Path, tmp_path: Path, trust: Trust) -> None:
    killed_and_opened_again(group, tmp_path / "db", trust, range(2_000), set(), set())


@pytest.mark.slow
@pytest.mark.parametrize("group", [80 * 2**20], indirect=True, ids=["80 MiB"])
def test_more_data_than_memory_is_written_and_opened_under_the_cap(group: Path, tmp_path: Path, trust: Trust) -> None:
    path = tmp_path / "db"
    batches = range(2 * 80 * 2**20 // BATCH_BYTES)
    # Even this one the kernel may kill: pages on their way to the disk count too.
    thrifty = capped(group, path, batches, THRIFTY)
    assert not thrifty.refused
    assert len(thrifty.acknowledged) * BATCH_BYTES > 80 * 2**20
    following = range(batches.stop, batches.stop + 2_000)
    in_flight = in_flight_of(thrifty, batches)
    killed_and_opened_again(group, path, trust, following, thrifty.acknowledged, in_flight)
