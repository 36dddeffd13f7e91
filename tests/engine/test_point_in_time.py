"""A backup and archived log files give the collection as of any write, or nothing."""

from __future__ import annotations

import errno
import shutil
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.crash.history import SCHEMA, batch, state_after
from tests.crash.observe import differences, observe
from tests.crash.workload import QUIET as WITH_GRAPHS
from tests.crash.workload import hand_over
from tests.storage.faults import FailingFileSystem
from vecdb import restore
from vecdb.engine import point_in_time
from vecdb.engine.check import check_database
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.log_archive import LogArchive
from vecdb.errors import Corruption, FailedPrecondition, InvalidArgument, NotFound
from vecdb.results.restore import RestoreReport
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem

SEED = 9
BATCHES = 24
PLAIN = replace(WITH_GRAPHS, graph_rows_min=10_000)


@dataclass
class History:
    """What was done to "docs", and when.

    Attributes
    ----------
    seqs
        Of each batch.
    moments
        Between each batch and the next.
    """

    directory: Path
    seqs: list[int] = field(default_factory=list)
    moments: list[datetime] = field(default_factory=list)

    @property
    def archive(self) -> Path:
        return self.directory / "archive"

    @property
    def backup(self) -> Path:
        return self.directory / "a.vbak"

    def write(self, database: EmbeddedDatabase, count: int) -> None:
        docs = database.create_collection("docs", schema=SCHEMA, exist_ok=True)
        for number in range(len(self.seqs), len(self.seqs) + count):
            self.seqs.append(hand_over(docs, batch(SEED, 0, number)).seq)
            time.sleep(0.002)
            self.moments.append(datetime.now(UTC))
            time.sleep(0.002)

    def restore(self, target: Path, **until: object) -> RestoreReport:
        return restore(self.backup, target, log_archive=self.archive, options=PLAIN, **until)  # type: ignore[arg-type]

    def assert_restored(self, target: Path, batches: int) -> None:
        assert check_database(target).problems == ()
        with EmbeddedDatabase.open(target, options=PLAIN) as database:
            found = observe(database.collection("docs"), [0])
            assert differences(found, state_after(SEED, {0: batches})) == []
            assert found.last_seq == self.seqs[batches - 1]


def opened(history: History, file_system: FileSystem | None = None) -> EmbeddedDatabase:
    options = replace(PLAIN, log_archive=history.archive)
    return EmbeddedDatabase.open(history.directory / "db", options=options, file_system=file_system)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    """A backup after 6 batches, and 18 batches after it: some flushed, reopened in between, one log file torn."""
    history = History(tmp_path_factory.mktemp("history"))
    with opened(history) as database:
        history.write(database, 6)
        database.backup(history.backup)
        history.write(database, 6)
        database.collection("docs").flush()
        history.write(database, 4)
    with opened(history) as database:
        history.write(database, 4)
        # As after a kill: the last file has no end record.
        shutil.copytree(history.directory / "db", history.directory / "killed")
    shutil.rmtree(history.directory / "db")
    (history.directory / "killed").rename(history.directory / "db")
    with opened(history) as database:
        history.write(database, BATCHES - len(history.seqs))
        database.collection("docs").flush()
        assert "log_not_archived" not in database.collection("docs").stats().events
    assert len(set(history.seqs)) > BATCHES - 4
    return history


@pytest.mark.parametrize("batches", [6, 7, 12, 13, 16, 17, 20, 21, BATCHES])
def test_as_of_a_write(history: History, tmp_path: Path, batches: int) -> None:
    seq = history.seqs[batches - 1]
    report = history.restore(tmp_path / "r", until_seq=seq, collection="docs")
    assert (report.collections[0].seq, report.collections[0].replayed) == (seq, seq - history.seqs[5])
    history.assert_restored(tmp_path / "r", batches)


@pytest.mark.parametrize("batches", [7, 9, 14, 19])
def test_as_of_a_moment(history: History, tmp_path: Path, batches: int) -> None:
    history.restore(tmp_path / "r", until_time=history.moments[batches - 1])
    history.assert_restored(tmp_path / "r", batches)


def test_as_far_as_the_archive_goes_in_small_parts(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(point_in_time, "PART_BYTES", 2_000)
    history.restore(tmp_path / "r")
    history.assert_restored(tmp_path / "r", BATCHES)


def test_a_restored_database_archives_apart_from_the_old_one(history: History, tmp_path: Path) -> None:
    shutil.copytree(history.archive, tmp_path / "archive")
    history.restore(tmp_path / "r", until_seq=history.seqs[8])
    with EmbeddedDatabase.open(tmp_path / "r", options=replace(PLAIN, log_archive=tmp_path / "archive")) as database:
        docs = database.collection("docs")
        database.backup(tmp_path / "b.vbak")
        for number in range(40, 44):
            hand_over(docs, batch(SEED, 0, number))
        docs.flush()
        assert "log_not_archived" not in docs.stats().events
        wanted = {each.id: each.payload for each in docs.scroll()}
    assert len(list((tmp_path / "archive").iterdir())) == 2
    restore(tmp_path / "b.vbak", tmp_path / "again", log_archive=tmp_path / "archive", options=PLAIN)
    with EmbeddedDatabase.open(tmp_path / "again", options=PLAIN) as database:
        assert {each.id: each.payload for each in database.collection("docs").scroll()} == wanted


def test_what_cannot_be_asked_for(history: History, tmp_path: Path) -> None:
    last = history.seqs[-1]
    for until, error, field_name in (
        ({"until_seq": last + 1}, FailedPrecondition, "until_seq"),
        ({"until_seq": history.seqs[5] - 1}, InvalidArgument, "until_seq"),
        ({"until_time": history.moments[0]}, InvalidArgument, "until_time"),
        ({"until_time": datetime(2020, 1, 1)}, InvalidArgument, "until_time"),
        ({"until_seq": last, "until_time": history.moments[-1]}, InvalidArgument, "until_time"),
        ({"until_seq": last, "collection": "nothing"}, NotFound, "collection"),
        ({"collection": "docs"}, InvalidArgument, "collection"),
    ):
        with pytest.raises(error) as caught:
            history.restore(tmp_path / "r", **until)
        assert caught.value.field == field_name
    with pytest.raises(InvalidArgument, match="log archive"):
        restore(history.backup, tmp_path / "r", until_seq=last)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["missing", "flipped", "cut", "swapped"])
def test_a_gap_or_damage_in_the_archive_is_named(history: History, tmp_path: Path, damage: str) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(history.archive, archive)
    files = sorted(archive.rglob("*.log"))
    assert len(files) >= 4
    # Any after the first that the backup does not need: one in the middle of what is replayed.
    chosen = next(path for path in files if int(path.name[:16], 16) > history.seqs[5] + 1)
    first, last = int(chosen.name[:16], 16), int(chosen.name[17:33], 16)
    if damage == "missing":
        chosen.unlink()
    elif damage == "flipped":
        content = bytearray(chosen.read_bytes())
        content[128 + 60] ^= 1
        chosen.write_bytes(content)
    elif damage == "cut":
        chosen.write_bytes(chosen.read_bytes()[:300])
    else:
        chosen.write_bytes(files[-1].read_bytes())
    told = f"{first} to {last}" if damage == "missing" else chosen.name
    with pytest.raises(Corruption, match=told):
        restore(history.backup, tmp_path / "r", log_archive=archive, options=PLAIN)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive"]


def test_an_archive_that_fails_keeps_the_log(tmp_path: Path) -> None:
    history = History(tmp_path)

    class Failing(FailingFileSystem):
        """Fails only what is written into the archive."""

        armed = True

        def before(self, call: str, *arguments: object) -> None:
            if self.armed and call in ("create", "rename") and str(arguments[0]).startswith(str(history.archive)):
                raise OSError(errno.ENOSPC, "no space")

    failing = Failing(errno.ENOSPC)
    with opened(history, failing) as database:
        history.write(database, 3)
        database.backup(history.backup)
        docs = database.collection("docs")
        history.write(database, 4)
        docs.flush()
        assert docs.stats().events["log_not_archived"] >= 2
        assert docs.stats().log_bytes > 0
        assert not list(history.archive.rglob("*.log"))
        failing.armed = False
        history.write(database, 4)
        docs.flush()
        assert docs.stats().log_bytes == 0
    history.restore(tmp_path / "r")
    history.assert_restored(tmp_path / "r", 11)


def test_two_copies_of_a_database_cannot_mix_their_logs(tmp_path: Path) -> None:
    history = History(tmp_path)
    with opened(history) as database:
        history.write(database, 3)
        database.collection("docs").flush()
    shutil.copytree(tmp_path / "db", tmp_path / "copy")
    with opened(history) as database:
        history.write(database, 1)
        database.collection("docs").flush()
    (tmp_path / "db").rename(tmp_path / "first")
    (tmp_path / "copy").rename(tmp_path / "db")
    with opened(history) as database:
        docs = database.collection("docs")
        hand_over(docs, batch(SEED, 0, 77))
        docs.flush()
        assert docs.stats().events["log_not_archived"] == 1
        assert docs.stats().log_bytes > 0


def test_keeping_a_file_twice_is_keeping_it_once(tmp_path: Path) -> None:
    history = History(tmp_path)
    with EmbeddedDatabase.open(tmp_path / "db", options=PLAIN) as database:
        history.write(database, 3)
    log = next((tmp_path / "db").rglob("log"))
    directory = MmapDirectory.open(log, FileSystem(), create=False)
    archive = LogArchive.open(tmp_path / "archive", FileSystem())
    for _ in range(2):
        archive.keep("0" * 16, directory, directory.names())
    assert [seq for seq, _ in archive.records("0" * 16, 0)] == list(range(1, history.seqs[-1] + 1))
    assert [seq for seq, _ in archive.records("0" * 16, 2)] == list(range(3, history.seqs[-1] + 1))
    assert list(archive.records("1" * 16, 0)) == []


def test_where_an_archive_cannot_be(tmp_path: Path) -> None:
    for place, error in ((tmp_path / "db" / "archive", InvalidArgument), (tmp_path / "no" / "archive", NotFound)):
        (tmp_path / "db").mkdir(exist_ok=True)
        with pytest.raises(error) as caught:
            EmbeddedDatabase.open(tmp_path / "db", options=replace(PLAIN, log_archive=place))
        assert caught.value.field == "log_archive"
    with pytest.raises(NotFound):
        restore(tmp_path / "a.vbak", tmp_path / "r", log_archive=tmp_path / "nowhere")
