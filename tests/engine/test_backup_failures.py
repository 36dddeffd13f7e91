"""Backups that fail, are refused or left alone: nothing bears their name, and the database holds nothing for them."""

from __future__ import annotations

import errno
import io
import os
import tarfile
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.archives import listing
from tests.engine.backed_up import make_base, opened, state_of
from tests.storage.faults import CountingFileSystem, FailingFileSystem, UnreadableFileSystem
from vecdb import verify_backup
from vecdb.archive.target import TEMPORARY_SUFFIX
from vecdb.engine import backup
from vecdb.engine.check import check_database
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.restore import restore_with
from vecdb.errors import (
    AlreadyExists,
    Cancelled,
    Corruption,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_base(tmp_path)


def test_a_file_that_exists_is_not_replaced(base: Path, tmp_path: Path) -> None:
    (tmp_path / "a.vbak").write_bytes(b"precious")
    with opened(base) as database:
        with pytest.raises(AlreadyExists):
            database.backup(tmp_path / "a.vbak")
        with pytest.raises(NotFound):
            database.backup(tmp_path / "nowhere" / "a.vbak")
        with pytest.raises(InvalidArgument, match="inside"):
            database.backup(base / "a.vbak")
        with pytest.raises(InvalidArgument):
            database.backup(17)  # type: ignore[arg-type]
    assert (tmp_path / "a.vbak").read_bytes() == b"precious"
    assert check_database(base).problems == ()


@pytest.mark.parametrize("kind", ["flip", "missing", "older"])
def test_a_damaged_source_gives_no_backup_and_is_named(base: Path, tmp_path: Path, kind: str) -> None:
    with opened(base) as database:
        # Of many blocks: the first one is read, and verified, to find the others.
        for name in ("large", "larger"):
            database.create_collection(name, dim=1_024, index="flat").upsert(range(12), np.eye(12, 1_024))
        for name in database.collections():
            database.collection(name).wait_indexed()
    damaged = max(base.rglob("*.vectors.*"), key=lambda path: path.stat().st_size)
    content = bytearray(damaged.read_bytes())
    if kind == "flip":
        content[len(content) // 2] ^= 1
        damaged.write_bytes(content)
    elif kind == "older":
        size = damaged.stat().st_size
        other = next(path for path in base.rglob("*.vectors.*") if path != damaged and path.stat().st_size == size)
        damaged.write_bytes(other.read_bytes())
    else:
        damaged.unlink()
    before = listing(base)
    with opened(base) as database, pytest.raises(Corruption, match=damaged.name.replace(".", r"\.")):
        database.backup(tmp_path / "a.vbak")
    assert listing(tmp_path) == ["db", *(f"db/{name}" for name in before)]


def test_a_failed_read_gives_no_backup_and_is_named(base: Path, tmp_path: Path) -> None:
    unreadable = UnreadableFileSystem(errno.EIO, 30_000)
    with opened(base, unreadable) as database:
        docs = database.create_collection("large", dim=1_024, index="flat")
        docs.upsert(range(12), np.eye(12, 1_024))
        database.backup(tmp_path / "a.vbak")
        unreadable.armed = True
        with pytest.raises(Corruption, match=r"cannot read .*/[0-9]{10}\."):
            database.backup(tmp_path / "b.vbak")
        unreadable.armed = False
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.vbak", "db"]
        assert docs.count() == 12
        database.backup(tmp_path / "b.vbak")
    with tarfile.open(tmp_path / "b.vbak") as archive:
        largest = max(archive.getmembers(), key=lambda member: member.size)
    # So far behind the beginning that no file which a restore writes, and reads again, is as long.
    unreadable = UnreadableFileSystem(errno.EIO, largest.offset_data + largest.size - 1)
    unreadable.armed = True
    with pytest.raises(Corruption, match=r"b\.vbak"):
        restore_with(unreadable, tmp_path / "b.vbak", tmp_path / "r")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.vbak", "b.vbak", "db"]


CALLS = ("create", "write", "fsync", "rename", "fsync_directory")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failed_call_leaves_no_backup(
    base: Path, tmp_path: Path, call: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "JOINED_BYTES", 16_384)
    with opened(base) as database:
        database.collection("docs").flush()
        database.collection("more").flush()
    counting = CountingFileSystem()
    with opened(base, counting) as database:
        before = dict(counting.calls)
        database.backup(tmp_path / "whole.vbak")
        made = counting.calls[call] - before.get(call, 0)
    assert made > (5 if call == "write" else 0)
    (tmp_path / "whole.vbak").unlink()
    for at in sorted({1, made}):
        failing = FailingFileSystem(number, before.get(call, 0) + at, calls=(call,), partial=True)
        with opened(base, failing) as database:
            with pytest.raises(ResourceExhausted if number == errno.ENOSPC else Unavailable):
                database.backup(tmp_path / "a.vbak")
            assert sorted(os.listdir(tmp_path)) == ["db"]
            database.backup(tmp_path / "a.vbak")
        verify_backup(tmp_path / "a.vbak")
        (tmp_path / "a.vbak").unlink()


def test_what_is_left_of_a_killed_backup_is_removed_and_a_running_one_is_not(base: Path, tmp_path: Path) -> None:
    leftover = tmp_path / ("a.vbak" + TEMPORARY_SUFFIX)
    leftover.write_bytes(b"half")
    with opened(base) as database:
        database.backup(tmp_path / "a.vbak")
        assert not leftover.exists()
        (tmp_path / "a.vbak").unlink()

        def again(_: int) -> None:
            with pytest.raises(FailedPrecondition, match="another backup"):
                database.backup(tmp_path / "a.vbak")

        database.backup(tmp_path / "a.vbak", progress=again)
    verify_backup(tmp_path / "a.vbak")


class Broken(io.RawIOBase):
    """A file object that fails after some bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self.room <= 0:
            raise BrokenPipeError
        taken = min(self.room, len(data))
        self.room -= taken
        return taken


def held_files(database: EmbeddedDatabase, name: str) -> int:
    return len(state_of(database, name).files._pins)


def test_whoever_stops_reading_ends_what_the_backup_holds(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "JOINED_BYTES", 512)
    with opened(base) as database:
        with closing(database.run_backup(b"")) as pieces:
            next(pieces)
            assert held_files(database, "docs") > 0
        assert held_files(database, "docs") == 0
        with pytest.raises(BrokenPipeError):
            database.backup(Broken(2_000))
        assert held_files(database, "docs") == 0


def test_dropping_a_collection_ends_the_backup_that_reads_it(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "JOINED_BYTES", 512)
    with opened(base) as database:
        with closing(database.run_backup(b"")) as pieces:
            next(pieces)
            state = state_of(database, "docs")
            dropping = threading.Thread(target=database.drop_collection, args=("docs",))
            dropping.start()
            assert state.closing.wait(60)
            with pytest.raises(Cancelled):
                list(pieces)
        dropping.join()
        assert list(database.collections()) == ["more"]
