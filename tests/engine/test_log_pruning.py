"""A log archive that is pruned holds all that the kept backup needs, and says of an older one what is missing."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.test_point_in_time import PLAIN, History, opened
from vecdb import prune_log_archive, restore, verify_backup
from vecdb.archive.reading import Archive
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.pruning import prune_with
from vecdb.errors import Corruption, FailedPrecondition, NotFound
from vecdb.storage.io import FileSystem

FIRST, SECOND, LAST = 4, 10, 16


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory) -> History:
    """Backups after 4, 10 and 16 batches of 16, with a log file for every two batches."""
    history = History(tmp_path_factory.mktemp("archived"))
    with opened(history) as database:
        for count in range(2, LAST + 1, 2):
            history.write(database, 2)
            database.collection("docs").flush()
            if count in (FIRST, SECOND, LAST):
                database.backup(history.directory / f"{count}.vbak")
    return history


@pytest.fixture
def history(archived: History, tmp_path: Path) -> History:
    """The same in a place of its own."""
    shutil.copytree(archived.directory, tmp_path / "h")
    return History(tmp_path / "h", archived.seqs, archived.moments)


def backup(history: History, batches: int) -> Path:
    return history.directory / f"{batches}.vbak"


def sizes(archive: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in archive.rglob("*.log")}


def last_seq(name: str) -> int:
    return int(name[17:33], 16)


def test_only_what_the_kept_backup_does_not_need_is_removed(history: History, tmp_path: Path) -> None:
    before = sizes(history.archive)
    assert len(before) >= 7
    seq = history.seqs[SECOND - 1]
    gone = {name for name in before if last_seq(name) <= seq}
    assert 4 <= len(gone) < len(before)
    forecast = prune_log_archive(history.archive, keep_since=backup(history, SECOND), dry_run=True)
    assert sizes(history.archive) == before
    report = prune_log_archive(history.archive, keep_since=backup(history, SECOND))
    assert report == forecast
    assert sizes(history.archive) == {name: size for name, size in before.items() if name not in gone}
    assert (report.files, report.size_bytes) == (len(gone), sum(before[name] for name in gone))
    assert [(each.name, each.seq, each.kept_seq) for each in report.collections] == [("docs", seq, seq + 1)]
    assert report.others == 0
    until = history.seqs[LAST - 2]
    restore(backup(history, SECOND), tmp_path / "r", log_archive=history.archive, until_seq=until, options=PLAIN)
    history.assert_restored(tmp_path / "r", LAST - 1)
    with pytest.raises(Corruption, match=f"lacks the records {history.seqs[FIRST - 1] + 1} to {seq}:"):
        restore(backup(history, FIRST), tmp_path / "old", log_archive=history.archive, options=PLAIN)
    assert restore(backup(history, FIRST), tmp_path / "old").collections[0].seq == history.seqs[FIRST - 1]
    assert prune_log_archive(history.archive, keep_since=backup(history, SECOND)).files == 0


def test_the_last_file_stays_so_that_a_gap_before_it_is_noticed(history: History, tmp_path: Path) -> None:
    last = max(sizes(history.archive))
    report = prune_log_archive(history.archive, keep_since=backup(history, LAST))
    assert list(sizes(history.archive)) == [last]
    assert report.collections[0].kept_seq == int(last[:16], 16)
    missing = f"{history.seqs[SECOND - 1] + 1} to {int(last[:16], 16) - 1}"
    with pytest.raises(Corruption, match=missing):
        restore(backup(history, SECOND), tmp_path / "r", log_archive=history.archive, options=PLAIN)
    # The database goes on archiving; the gap before does not matter to the backup that was kept.
    written = History(history.directory, list(history.seqs), list(history.moments))
    with opened(written) as database:
        written.write(database, 3)
        database.collection("docs").flush()
        assert "log_not_archived" not in database.collection("docs").stats().events
    restore(backup(history, LAST), tmp_path / "r", log_archive=history.archive, options=PLAIN)
    written.assert_restored(tmp_path / "r", LAST + 3)


def test_a_file_with_a_single_record_that_is_needed_stays(history: History) -> None:
    before = sizes(history.archive)
    with Archive.open(backup(history, SECOND), FileSystem()) as opened_backup:
        manifest = opened_backup.manifest
    # A backup always ends with a log file; the one here does not.
    seq = history.seqs[SECOND - 1] - 1
    assert seq not in {last_seq(name) for name in before}
    earlier = replace(manifest, collections=(replace(manifest.collections[0], seq=seq),))
    prune_with(FileSystem(), history.archive, earlier, dry_run=False)
    assert sizes(history.archive) == {name: size for name, size in before.items() if last_seq(name) > seq}


def test_collections_that_the_backup_does_not_hold_are_left_alone(history: History) -> None:
    with opened(history) as database:
        other = database.create_collection("other", dim=2)
        for number in range(3):
            other.upsert([number], [[1.0, number]])
            other.flush()
    before = sizes(history.archive)
    report = prune_log_archive(history.archive, keep_since=backup(history, LAST))
    assert report.others == 1
    kept = sizes(history.archive)
    assert len(kept) == 1 + 3
    assert kept.items() <= before.items()


def test_what_is_no_archive_is_refused_and_left_as_it_is(history: History, tmp_path: Path) -> None:
    (collection,) = (history.directory / "db" / "collections").iterdir()
    (tmp_path / "mixed" / collection.name).mkdir(parents=True)
    (tmp_path / "mixed" / collection.name / "notes.txt").touch()
    for path in history.archive.rglob("*.log"):
        shutil.copy(path, tmp_path / "mixed" / collection.name)
    (tmp_path / "photos" / "2026").mkdir(parents=True)
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "0000000000000001-00000001.log").touch()
    for path in (
        history.directory / "db",
        history.directory / "db" / "collections",
        tmp_path / "log",
        tmp_path / "mixed",
        tmp_path / "photos",
        backup(history, LAST),
    ):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(FailedPrecondition):
            prune_log_archive(path, keep_since=backup(history, LAST))
        assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(NotFound):
        prune_log_archive(tmp_path / "nowhere", keep_since=backup(history, LAST))
    with pytest.raises(NotFound):
        prune_log_archive(history.archive, keep_since=tmp_path / "nowhere")
    with pytest.raises(Corruption):
        prune_log_archive(history.archive, keep_since=next(history.archive.rglob("*.log")))
    (tmp_path / "empty").mkdir()
    assert prune_log_archive(tmp_path / "empty", keep_since=backup(history, LAST)).files == 0
    with EmbeddedDatabase.open(history.directory / "db", options=PLAIN) as database:
        assert database.collection("docs").count()
    assert verify_backup(backup(history, LAST)).files
