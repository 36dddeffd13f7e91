"""A torn tail is normal, a hole is not: databases whose process was killed, with another end of the log than it wrote.

A collection opens with exactly the rows whose records are whole, and says what it dropped; or it is refused, naming
file and offset, and the others open.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from tests.crash.acknowledging import DIM, NAME, OPTIONS, rows_in, write
from tests.trust import Trust
from vecdb.api import Collection
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.decide import PendingWrite
from vecdb.engine.outcome import Outcome
from vecdb.engine.writer import Writer
from vecdb.errors import Corruption
from vecdb.results.write import WriteResult
from vecdb.storage.io import FileSystem

DURABLE = 6
"""Rows that were acknowledged, each in a group of its own."""
ROWS = DURABLE + 3
"""With those that were in flight, in one group that was not synced."""
OTHER = "other"
OTHER_ROWS = 5
OPTIONS_OF_LOGS = replace(OPTIONS, reserve_size_bytes=0, log_file_bytes_first=4_096)
HEADER_BYTES = 128
TAILS = ("zeros", "ones", "old", "nothing")


@dataclass(frozen=True)
class Torn:
    """What a killed process left.

    Attributes
    ----------
    path
        Of the database.
    log
        Of the one file of the log, in it.
    content
        Of that file.
    ends
        Where each record ends, as it was told when it had been written; first of all the header.
    """

    path: Path
    log: Path
    content: bytes
    ends: tuple[int, ...]

    def with_tail(self, cut: int, tail: str) -> bytes:
        """The file with its first bytes as they were, and then something else."""
        left = len(self.content) - cut
        old = self.content[HEADER_BYTES : self.ends[2]]
        rest = {"zeros": bytes(left), "ones": b"\xff" * left, "old": (old * left)[:left], "nothing": b""}
        return self.content[:cut] + rest[tail]

    def whole_rows(self, content: bytes) -> int:
        """How many records are as they were, all before them included."""
        return sum(content[:end] == self.content[:end] for end in self.ends[1:])


class HoldingFileSystem(FileSystem):
    """Lets nobody past a sync of data while it is ``held``."""

    def __init__(self) -> None:
        self.held = False
        self.reached = threading.Semaphore(0)
        self.passing = threading.Semaphore(0)

    def fdatasync(self, fd: int) -> None:
        if self.held:
            self.reached.release()
            assert self.passing.acquire(timeout=60)
        super().fdatasync(fd)


def write_at_once(collection: Collection, rows: Sequence[int], group: ThreadPoolExecutor) -> None:
    """Queue writes in this order, each in a thread that waits for it."""
    queued = threading.Semaphore(0)
    real = Writer.submit

    def submit(writer: Writer, pending: PendingWrite) -> Outcome[WriteResult]:
        outcome = real(writer, pending)
        queued.release()
        return outcome

    with mock.patch.object(Writer, "submit", submit):
        for number in rows:
            group.submit(write, collection, number)
            assert queued.acquire(timeout=60)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Torn:
    """What is left of a process that was killed before the sync of a group of three writes."""
    directory = tmp_path_factory.mktemp("killed")
    ends = [HEADER_BYTES]
    system = HoldingFileSystem()
    with (
        EmbeddedDatabase.open(directory / "running", options=OPTIONS_OF_LOGS, file_system=system) as database,
        ThreadPoolExecutor(ROWS) as group,
    ):
        other = database.create_collection(OTHER, dim=DIM)
        for number in range(OTHER_ROWS):
            write(other, number)
        others = set((directory / "running").glob("collections/*/log/*.log"))
        collection = database.create_collection(NAME, dim=DIM)
        for number in range(DURABLE - 1):
            write(collection, number)
            ends.append(collection.stats().log_bytes)
        system.held = True
        write_at_once(collection, [DURABLE - 1], group)
        assert system.reached.acquire(timeout=60)
        write_at_once(collection, range(DURABLE, ROWS), group)
        system.passing.release()
        assert system.reached.acquire(timeout=60)
        shutil.copytree(directory / "running", directory / "db")
        system.held = False
        system.passing.release()
        group.shutdown()
        (record_bytes,) = set(np.diff(ends))
        ends = [HEADER_BYTES + int(record_bytes) * number for number in range(ROWS + 1)]
        assert ends[-1] == collection.stats().log_bytes
        (log,) = set((directory / "running").glob("collections/*/log/*.log")) - others
    log = log.relative_to(directory / "running")
    return Torn(directory / "db", log, (directory / "db" / log).read_bytes(), tuple(ends))


def opened_with(killed: Torn, directory: Path, content: bytes) -> EmbeddedDatabase:
    """The database, with something else in its log."""
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(killed.path, directory)
    (directory / killed.log).write_bytes(content)
    return EmbeddedDatabase.open(directory, options=OPTIONS_OF_LOGS)


def refused(killed: Torn, directory: Path, content: bytes, offset: int) -> list[str]:
    """What is wrong with how a damaged log is refused."""
    with opened_with(killed, directory, content) as database:
        others = {each.id for each in database.collection(OTHER).scroll()}
        wrong = [] if others == set(range(OTHER_ROWS)) else [f"the other collection has {others}"]
        write(database.collection(OTHER), OTHER_ROWS)
        try:
            found = database.collection(NAME).count()
        except Corruption as error:
            place = f"{directory / killed.log} at offset {offset} "
            header = f"{directory / killed.log} has a damaged header at offset 0"
            named = error.message.startswith(place if offset else header) and error.field == str(directory / killed.log)
            return wrong if named else [*wrong, f"not named: {error.message}"]
    return [*wrong, f"opened, with {found} rows"]


def dropped(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.getMessage().startswith("torn_tail_dropped")]


def torn(killed: Torn, directory: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is wrong with how a torn tail is dropped."""
    rows = killed.whole_rows(content)
    end = killed.ends[rows]
    bytes_dropped = max(0, len(content.rstrip(b"\0")) - end)
    caplog.clear()
    wrong = []
    with opened_with(killed, directory, content) as database:
        collection = database.collection(NAME)
        if (found := rows_in(database)) != set(range(rows)):
            wrong.append(f"has {sorted(found)} instead of {rows} rows")
        if collection.stats().events.get("torn_tail_dropped", 0) != (bytes_dropped > 0):
            wrong.append(f"counted {collection.stats().events}")
        told = f"bytes={bytes_dropped} file={directory / killed.log} offset={end} seq={rows}"
        if [told in line for line in dropped(caplog)] != [True] * (bytes_dropped > 0):
            wrong.append(f"told {dropped(caplog)} instead of {told}")
        if write(collection, rows) != rows + 1:
            wrong.append("the next write has another seq")
    # What was dropped does not come back behind the row that took its place.
    with EmbeddedDatabase.open(directory, options=OPTIONS_OF_LOGS) as database:
        if (found := rows_in(database)) != set(range(rows + 1)):
            wrong.append(f"has {sorted(found)} when it is opened again")
    return wrong


def points_of(killed: Torn, cuts: Sequence[int]) -> Iterator[tuple[str, int, bytes]]:
    for number, cut in enumerate(cuts):
        for tail in TAILS if len(cuts) > 100 else (TAILS[number % len(TAILS)],):
            yield tail, cut, killed.with_tail(cut, tail)


def cut_at(killed: Torn, directory: Path, cuts: Sequence[int], trust: Trust, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    wrong = {}
    points = 0
    for tail, cut, content in points_of(killed, cuts):
        if tail == "nothing":
            # Shorter than it was made, though nobody closed it: no crash does that.
            rows = killed.whole_rows(content)
            found = refused(killed, directory / "db", content, killed.ends[rows])
        else:
            found = torn(killed, directory / "db", content, caplog)
        points += 1
        if found:
            wrong[tail, cut] = found
    trust.points("P4", points, len(wrong), told="the last 3 records cut")
    assert not wrong, wrong


def damaged_at(
    killed: Torn, directory: Path, offsets: Sequence[int], trust: Trust, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    wrong = {}
    for offset in offsets:
        damaged = bytearray(killed.content)
        damaged[offset] ^= 1 << offset % 8
        content = bytes(damaged)
        if offset < killed.ends[DURABLE]:
            begin = max((end for end in killed.ends if end <= offset), default=0)
            found = refused(killed, directory / "db", content, begin)
        else:
            # Nothing says that it ever was durable: so can a crash leave it, whatever of the group is behind it.
            found = torn(killed, directory / "db", content, caplog)
        if found:
            wrong[offset] = found
    trust.points("P4", len(offsets), len(wrong), told="damage in the middle")
    assert not wrong, wrong


def sampled(first: int, last: int, count: int) -> list[int]:
    """Numbers from ``first`` to before ``last``, the ends among them."""
    return sorted({int(each) for each in np.linspace(first, last - 1, count)})


def test_a_log_cut_in_its_last_records_has_the_rows_that_are_whole(
    killed: Torn, quick_directory: Path, trust: Trust, caplog: pytest.LogCaptureFixture
) -> None:
    edges = [end + near for end in killed.ends[DURABLE:-1] for near in (0, 1, 41)]
    within = sampled(killed.ends[DURABLE], killed.ends[-1] + 1, 11)
    cut_at(killed, quick_directory, [*edges, *within], trust, caplog)


def test_damage_to_durable_records_is_refused_and_the_others_open(
    killed: Torn, quick_directory: Path, trust: Trust, caplog: pytest.LogCaptureFixture
) -> None:
    damaged_at(killed, quick_directory, sampled(0, killed.ends[-1], 18), trust, caplog)


@pytest.mark.slow
def test_a_log_cut_at_every_byte_of_its_last_records_has_the_rows_that_are_whole(
    killed: Torn, quick_directory: Path, trust: Trust, caplog: pytest.LogCaptureFixture
) -> None:
    cut_at(killed, quick_directory, range(killed.ends[DURABLE], killed.ends[-1] + 1), trust, caplog)


@pytest.mark.slow
def test_damage_at_every_byte_of_durable_records_is_refused(
    killed: Torn, quick_directory: Path, trust: Trust, caplog: pytest.LogCaptureFixture
) -> None:
    damaged_at(killed, quick_directory, range(killed.ends[-1]), trust, caplog)
