"""A log archive holds one history: what another one wrote is refused, when it is archived and when it is restored."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.engine.test_point_in_time import PLAIN
from tests.storage.faults import WatchedFileSystem
from vecdb import restore
from vecdb.engine.database import EmbeddedDatabase
from vecdb.errors import FailedPrecondition
from vecdb.storage.io import FileSystem


class Place:
    """A database that can be put back to an earlier state, its archive and its backups."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.archive = directory / "archive"
        with self.opened() as database:
            database.create_collection("docs", dim=2)

    def opened(self, fs: FileSystem | None = None, archive: Path | None = None) -> EmbeddedDatabase:
        options = replace(PLAIN, log_archive=archive or self.archive)
        return EmbeddedDatabase.open(self.directory / "db", options=options, file_system=fs)

    def write(self, *ids: int, archive: Path | None = None) -> dict[str, int]:
        """A write for each id, and a flush; the events that were counted."""
        with self.opened(archive=archive) as database:
            docs = database.collection("docs")
            for each in ids:
                docs.upsert([each], [[1.0, each]])
            docs.flush()
            return dict(docs.stats().events)

    def backup(self, name: str) -> Path:
        with self.opened() as database:
            database.backup(self.directory / name)
        return self.directory / name

    def keep_state(self) -> None:
        shutil.copytree(self.directory / "db", self.directory / "earlier")

    def put_back(self) -> None:
        shutil.rmtree(self.directory / "db")
        shutil.copytree(self.directory / "earlier", self.directory / "db")

    def files(self, archive: Path | None = None) -> list[Path]:
        return sorted((archive or self.archive).rglob("*.log"))

    def restored(self, backup: Path, archive: Path | None = None) -> set[Any]:
        target = self.directory / "restored"
        restore(backup, target, log_archive=archive or self.archive, options=PLAIN)
        with EmbeddedDatabase.open(target, options=PLAIN) as database:
            found = {each.id for each in database.collection("docs").scroll()}
        shutil.rmtree(target)
        return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Three writes, the backup "base" of them, and the state to which the database will be put back."""
    place = Place(tmp_path)
    place.write(*range(1, 4))
    place.backup("base")
    place.keep_state()
    return place


BASE = set(range(1, 4))


@pytest.mark.parametrize("again", [3, 6])
def test_a_database_that_was_put_back_does_not_add_to_the_archive(place: Place, again: int) -> None:
    place.write(*range(100, 104))
    before = place.files()
    place.put_back()
    events = place.write(*range(200, 200 + again))
    assert events["log_not_archived"] >= 1
    assert place.files() == before
    assert place.restored(place.directory / "base") == BASE | set(range(100, 104))
    # The log kept what was refused: a new archive has all of it.
    other = place.directory / "other"
    assert "log_not_archived" not in place.write(300, archive=other)
    assert place.restored(place.directory / "base", other) == BASE | set(range(200, 200 + again)) | {300}


def test_a_log_that_goes_on_where_the_archive_ends_must_be_of_its_history(place: Place) -> None:
    """No seq is there twice, and none is missing."""
    place.write(*range(100, 104))
    place.put_back()
    place.write(*range(200, 204), archive=place.directory / "other")
    assert place.write(204, 205)["log_not_archived"] >= 1
    assert place.restored(place.directory / "base") == BASE | set(range(100, 104))


def test_a_log_that_ends_where_the_archive_begins_must_be_of_its_history(place: Place) -> None:
    place.write(*range(100, 104))
    place.write(104)
    for path in place.files()[:-1]:
        path.unlink()  # As pruning leaves it.
    place.put_back()
    assert place.write(*range(200, 204))["log_not_archived"] >= 1


def test_the_reason_is_told(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.write(100)
    place.put_back()
    place.write(200)
    assert place.files()[-1].name in caplog.text
    assert "another archive directory" in caplog.text


@pytest.mark.parametrize("again", [2, 4])
def test_a_backup_is_refused_with_the_archive_of_another_history(place: Place, again: int) -> None:
    place.write(*range(100, 104))
    place.put_back()
    place.write(*range(200, 200 + again), archive=place.directory / "other")
    with place.opened(archive=place.directory / "other") as database:
        database.backup(place.directory / "later")
    if again >= 4:
        # One more file, that is newer than the backup.
        first = place.directory / "first"
        place.archive.rename(first)
        shutil.move(place.directory / "db", place.directory / "second")
        shutil.copytree(place.directory / "earlier", place.directory / "db")
        place.archive.mkdir()
        place.write(*range(100, 100 + again))
        place.write(*range(400, 402))
        for path in place.files()[:-1]:
            path.unlink()
    with pytest.raises(FailedPrecondition, match="another history") as caught:
        place.restored(place.directory / "later")
    assert caught.value.field == "log_archive"
    assert not (place.directory / "restored").exists()


@pytest.mark.parametrize("again", [3, 4])
def test_an_archive_of_two_histories_is_refused(place: Place, again: int) -> None:
    """As one may have become by copying files."""
    place.write(*range(100, 104))
    place.put_back()
    other = place.directory / "other"
    place.write(*range(200, 200 + again), archive=other)
    place.write(300, archive=other)
    if again == 4:
        # Without a seq that is there twice: only the last file of the other one.
        for path in place.files(other)[:-1]:
            path.unlink()
    for path in place.files(other):
        shutil.copy(path, place.files()[0].parent)
    with pytest.raises(FailedPrecondition, match="another history"):
        place.restored(place.directory / "base")


class FailsOnce(WatchedFileSystem):
    """The next sync of the archive's directories fails, and is noted with what happens to names of log files."""

    def __init__(self, archive: Path, *, below: bool) -> None:
        self.calls: list[str] = []
        self.armed = False
        self._archive = archive
        self._below = below

    def before(self, call: str, *arguments: Any) -> None:
        path = Path(arguments[-1]) if call in ("rename", "unlink", "fsync_directory") else None
        if path is None:
            return
        archived = path.is_relative_to(self._archive)
        if call == "fsync_directory" and archived:
            if self.armed and (path != self._archive) == self._below:
                self.armed = False
                raise OSError(errno.EIO, "an error of the device")
            self.calls.append("sync")
        elif path.suffix == ".log" and call == "unlink":
            self.calls.append("trim")
        elif path.suffix == ".log" and archived:
            self.calls.append("archive")


@pytest.mark.parametrize("below", [True, False])
def test_no_log_is_trimmed_before_its_copy_has_a_durable_name(tmp_path: Path, below: bool) -> None:
    place = Place(tmp_path)
    fs = FailsOnce(place.archive, below=below)
    with place.opened(fs) as database:
        docs = database.collection("docs")
        for number in range(3):
            fs.armed = number == 0
            docs.upsert([number], [[1.0, number]])
            docs.flush()
        assert docs.stats().events["log_not_archived"] == 3
    assert "trim" not in fs.calls
    fs.calls.clear()
    with place.opened(fs) as database:
        assert database.collection("docs").count() == 3
    # What is there already may be what the failed sync did not write: it is written again.
    archiving = fs.calls[: fs.calls.index("trim")]
    assert archiving.count("archive") == 3
    assert archiving[-2:] == ["archive", "sync"]
