"""A database that is open for reading sees what was acknowledged before its refresh, and changes nothing."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.engine.written import DIM, OPTIONS, WITH_GRAPHS, Writer, check, reading, write_and_flush
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.reading import ReadOnlyDatabase
from vecdb.errors import Corruption, FailedPrecondition, NotFound, Unavailable
from vecdb.storage.io import FileSystem


def test_what_is_acknowledged_is_visible_after_a_refresh_and_not_before(writer: Writer) -> None:
    with reading(writer.path) as database:
        collection = database.collection("c")
        for step in range(60):
            before = collection.stats().last_seq
            writer.upsert(1 + step % 7)
            if step % 5 == 3:
                writer.delete()
            if step % 11 == 7:
                writer.collection.flush()
            if step % 17 == 9:
                writer.collection.wait_indexed(60)
            check(collection, writer, before)
            assert collection.stats().last_seq == before
            collection.refresh() if step % 2 else database.refresh()
            check(collection, writer, writer.seq)
        assert collection.stats().segments == writer.collection.stats().segments


def test_it_reads_what_a_writer_left_that_was_killed_or_closed(writer: Writer, tmp_path: Path) -> None:
    stop_compaction(writer)
    writer.fill()
    copied = tmp_path / "copy"
    shutil.copytree(writer.path, copied)  # As a killed writer leaves it: the log is not ended.
    with reading(copied) as database:
        check(database.collection("c"), writer, writer.seq)
    writer.database.close()
    with reading(writer.path) as database:
        check(database.collection("c"), writer, writer.seq)


def test_collections_come_and_go_with_a_refresh(writer: Writer) -> None:
    writer.fill()
    with reading(writer.path) as database:
        collection = database.collection("c")
        writer.database.create_collection("new", DIM).upsert([1], [[1, 2, 3]])
        assert database.collections() == ["c"]
        with pytest.raises(NotFound):
            database.collection("new")
        database.refresh()
        assert database.collections() == ["c", "new"]
        assert database.collection("new").count() == 1
        writer.database.drop_collection("c")
        check(collection, writer, writer.seq)
        with pytest.raises(NotFound):
            collection.refresh()
        database.refresh()
        assert database.collections() == ["new"]
        with pytest.raises(NotFound):
            collection.count()


def test_what_was_taken_stays_readable_when_its_files_are_unlinked(writer: Writer) -> None:
    """Nothing of it was read or verified before."""
    writer.database.close()
    writer.open(WITH_GRAPHS)
    writer.upsert(40)
    with reading(writer.path, graph_rows_min=30) as other:
        # A graph that comes to a segment that is open already.
        collection = other.collection("c")
        writer.collection.flush()
        collection.refresh()
        check(collection, writer, writer.seq)
        writer.collection.wait_indexed(60)
        collection.refresh()
        assert "graph" in collection.search([0.1] * DIM, k=3, recall=0.9).strategy
        check(collection, writer, writer.seq)
    with reading(writer.path, graph_rows_min=30) as database:
        collection = database.collection("c")
        for file in (writer.path / "collections").glob("*/*.*.*"):
            file.unlink()
        check(collection, writer, writer.seq)
        assert "graph" in collection.search([0.1] * DIM, k=3, recall=0.9).strategy


def test_damage_is_found_in_the_mapping_when_the_name_is_gone(writer: Writer) -> None:
    writer.collection.upsert(range(60), np.ones((60, DIM)), [{"n": 0, "text": "x" * 300}] * 60)
    writer.collection.flush()
    for file in (writer.path / "collections").glob("*/*.payload.*"):
        content = bytearray(file.read_bytes())
        content[content.rindex(b"xxxx")] ^= 1
        file.write_bytes(content)
    with reading(writer.path) as database:
        collection = database.collection("c")
        for file in (writer.path / "collections").glob("*/*.*.*"):
            file.unlink()
        assert len(collection.search([1, 1, 1], k=100, with_payloads=False)) == 60
        with pytest.raises(Corruption, match="payload"):
            list(collection.scroll())


@pytest.mark.parametrize("lost", [True, False])
def test_a_damaged_segment_leaves_the_others_readable(writer: Writer, lost: bool) -> None:
    stop_compaction(writer)
    writer.fill()
    writer.collection.flush()
    before = set((writer.path / "collections").glob("*/*.payload.*"))
    writer.collection.upsert([100], [[1, 2, 3]], [{"n": 5}])
    writer.collection.flush()
    (file,) = set((writer.path / "collections").glob("*/*.payload.*")) - before
    if lost:
        file.unlink()
    else:
        file.write_bytes(bytes(file.stat().st_size))
    with reading(writer.path) as database:
        collection = database.collection("c")
        assert {each.id for each in collection.get(writer.model)} == set(writer.model)
        assert collection.search([1, 2, 3], k=1, with_payloads=False).ids == [100]
        with pytest.raises(Corruption, match="payload"):
            collection.get([100])
        writer.upsert()
        collection.refresh()
        assert {each.id: each.payload["n"] for each in collection.get(writer.model) if each.payload} == writer.model


def stop_compaction(writer: Writer) -> None:
    """For a test that looks at the files, or counts what a reader does about them."""
    writer.database.close()
    writer.open(replace(OPTIONS, compaction=False))


def test_segments_that_stay_are_not_opened_again(writer: Writer) -> None:
    stop_compaction(writer)
    writer.fill()
    writer.collection.flush()

    class Recording(FileSystem):
        def __init__(self) -> None:
            self.opened: list[str] = []

        def open_read(self, path: Path) -> int:
            self.opened.append(path.name)
            return super().open_read(path)

    spy = Recording()
    with reading(writer.path, spy) as database:
        collection = database.collection("c")
        check(collection, writer, writer.seq)
        known = {each.name for each in (writer.path / "collections").glob("*/*.*.*")}
        assert known & set(spy.opened)
        spy.opened.clear()
        write_and_flush(writer)
        collection.refresh()
        check(collection, writer, writer.seq)
        assert not known & set(spy.opened)
        assert any(".ids." in name for name in spy.opened), "the new segment"


def digests(path: Path) -> dict[str, str]:
    """Every file of a directory: its content, and when it was changed."""
    return {
        str(each): f"{each.stat().st_mtime_ns} {hashlib.sha256(each.read_bytes()).hexdigest()}"
        for each in path.rglob("*")
        if each.is_file()
    }


def test_a_reader_changes_no_byte_and_takes_no_lock(writer: Writer) -> None:
    writer.fill()
    writer.database.close()

    class Frozen(FileSystem):
        """Refuses whatever changes something. ``fdatasync`` only waits."""

    def refuse(*_: object) -> None:
        raise AssertionError("a reader writes")

    for name in (
        "create", "open_lock", "lock", "unlock", "write", "fsync", "fsync_directory", "allocate", "truncate", "rename",
        "unlink", "make_directory", "remove_directory", "committing",
    ):  # fmt: skip
        setattr(Frozen, name, refuse)
    (writer.path / "LOCK").unlink()
    before = digests(writer.path)
    with reading(writer.path, Frozen()) as database:
        check(database.collection("c"), writer, writer.seq)
        database.refresh()
        # And nobody is kept out.
        EmbeddedDatabase.open(writer.path, options=OPTIONS).close()
        (writer.path / "LOCK").unlink()
    assert digests(writer.path) == before


def test_what_would_write_is_refused_naming_the_mode(writer: Writer) -> None:
    writer.fill()
    with reading(writer.path) as database:
        collection = database.collection("c")
        refused: list[Callable[[], object]] = [
            lambda: collection.upsert([1], [[1, 2, 3]]),
            lambda: collection.delete([1]),
            lambda: collection.delete(where="n = 1"),
            collection.flush,
            collection.wait_indexed,
            lambda: database.create_collection("d", DIM),
            lambda: database.create_collection("c", DIM, "l2", exist_ok=True),
            lambda: database.drop_collection("c"),
            lambda: database.backup(writer.path.parent / "a.vbak"),
            lambda: database.run_backup(b""),
        ]
        for call in refused:
            with pytest.raises(FailedPrecondition, match="read_only=True"):
                call()
        check(collection, writer, writer.seq)


def test_a_record_is_shown_only_once_it_is_durable(writer: Writer) -> None:
    """A writer that was stopped between writing a group and syncing it, and a device that fails the reader's sync."""

    class Failing(FileSystem):
        failing = False
        synced = 0

        def fdatasync(self, fd: int) -> None:
            self.synced += 1
            if self.failing:
                raise OSError(5, "Input/output error")
            super().fdatasync(fd)

    spy = Failing()
    stop_compaction(writer)
    writer.fill()
    with reading(writer.path, spy) as database:
        collection = database.collection("c")
        collection.refresh()
        spy.synced = 0
        collection.refresh()
        assert spy.synced == 0, "nothing new needs no sync"
        before = writer.seq
        writer.upsert()
        spy.failing = True
        for _ in range(2):
            with pytest.raises(Unavailable):
                collection.refresh()
            check(collection, writer, before)
            assert collection.stats().last_seq == before
            assert collection.stats().events["refreshes_failed"] >= 1
            # Once it failed, its success would prove nothing.
            spy.failing = False
        writer.upsert()
        with pytest.raises(Unavailable):
            collection.refresh()
        # The file that follows says what is durable of it.
        writer.database.close()
        collection.refresh()
        check(collection, writer, writer.seq)
        writer.open(OPTIONS)
        for flushed in (False, True):
            writer.upsert()
            if flushed:
                writer.collection.flush()
            collection.refresh()
            check(collection, writer, writer.seq)
        assert spy.synced >= 2


def test_a_commit_without_its_mirror_is_read_after_a_check(writer: Writer) -> None:
    """As a writer leaves it that ended in between, or had no space."""

    class Full(FileSystem):
        full = False

        def create(self, path: Path) -> int:
            if self.full and path.name == "mirror.tmp":
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().create(path)

    writer.fill()
    writer.database.close()
    system = Full()
    writer.open(replace(OPTIONS, compaction=False), system)
    writer.upsert()
    with reading(writer.path) as database:
        collection = database.collection("c")
        system.full = True
        write_and_flush(writer)
        assert writer.collection.stats().events["mirror_not_written"] == 1
        collection.refresh()
        check(collection, writer, writer.seq)
        assert collection.stats().flushed_seq == writer.seq
        # So is the catalogue.
        system.full = False
        writer.database.create_collection("other", DIM)
        system.full = True
        writer.database.drop_collection("other")
        database.refresh()
        assert database.collections() == ["c"]
    with reading(writer.path) as database:
        check(database.collection("c"), writer, writer.seq)


def test_a_search_can_wait_for_a_write_of_another_process(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    writer.fill()
    with reading(writer.path) as database:
        collection = database.collection("c")
        result = writer.collection.upsert([1000], [[9, 9, 9]], [{"n": 0}])
        assert collection.search([9, 9, 9], k=1).ids != [1000]
        assert collection.search([9, 9, 9], k=1, read_after_seq=result.seq).ids == [1000]
        monkeypatch.setattr("vecdb.engine.replica.READ_AFTER_TIMEOUT_S", 0.05)
        with pytest.raises(vecdb.errors.DeadlineExceeded, match=str(result.seq + 1)):
            collection.search([9, 9, 9], k=1, read_after_seq=result.seq + 1)


def test_refreshing_by_itself_keeps_up(writer: Writer) -> None:
    writer.fill()
    with reading(writer.path, refresh_interval_s=0.01) as database:
        collection = database.collection("c")
        for _ in range(3):
            write_and_flush(writer)
            deadline = time.monotonic() + 30
            while collection.stats().last_seq < writer.seq:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            check(collection, writer, writer.seq)
    assert not [each for each in threading.enumerate() if each.name == "vecdb-refresh"]


def test_searches_beside_refreshes_see_whole_states(writer: Writer) -> None:
    """A search that runs while another thread refreshes sees one state or the next, and none goes back."""
    writer.fill()
    failures: list[BaseException] = []
    with reading(writer.path) as database:
        collection = database.collection("c")
        ended = threading.Event()

        def search() -> None:
            try:
                while not ended.is_set():
                    hits = collection.search([0.5] * DIM, k=100, recall="exact")
                    found = {hit.id: hit.payload["n"] for hit in hits if hit.payload is not None}
                    assert found in visible
            except BaseException as error:
                failures.append(error)

        visible = [dict(writer.model)]
        threads = [threading.Thread(target=search) for _ in range(2)]
        for thread in threads:
            thread.start()
        for step in range(20):
            for _ in range(3):
                writer.upsert()
            if step % 5 == 0:
                writer.collection.flush()
            visible.append(dict(writer.model))
            collection.refresh()
        ended.set()
        for thread in threads:
            thread.join()
    assert failures == []


def _use(database: EmbeddedDatabase | ReadOnlyDatabase, collection: Any, sent: Any) -> None:
    told = []
    for call in (
        database.collections,
        collection.count,
        collection.stats,
        lambda: collection.search([1, 2, 3]),
        database.close,
        *([database.refresh, collection.refresh] if isinstance(database, ReadOnlyDatabase) else []),
    ):
        try:
            call()
            told.append("usable")
        except FailedPrecondition as error:
            told.append(error.message)
    sent.send(told)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_that_it_cannot_use_an_inherited_handle(writer: Writer) -> None:
    writer.fill()
    with reading(writer.path) as database:
        collection = database.collection("c")
        for handles in ((database, collection), (writer.database, writer.collection)):
            receiving, sending = multiprocessing.Pipe(duplex=False)
            child = multiprocessing.get_context("fork").Process(target=_use, args=(*handles, sending))
            child.start()
            told = receiving.recv()
            child.join()
            assert len(told) >= 5
            assert all("inherited by its forked child" in each for each in told), told
        collection.refresh()
        check(collection, writer, writer.seq)
        writer.upsert()


@pytest.mark.parametrize("made", ["missing", "empty", "foreign"])
def test_a_directory_without_a_database_is_not_found_and_not_made(tmp_path: Path, made: str) -> None:
    path = tmp_path / "nothing"
    if made != "missing":
        path.mkdir()
    if made == "foreign":
        (path / "thesis.txt").write_text("mine")
    with pytest.raises(NotFound):
        vecdb.open(path, read_only=True)
    assert path.exists() == (made != "missing")
    assert len(list(path.glob("*"))) == (made == "foreign")


def test_a_closed_one_refuses_every_call(writer: Writer) -> None:
    writer.fill()
    database = reading(writer.path)
    collection = database.collection("c")
    database.close()
    database.close()
    for call in (database.collections, database.refresh, collection.refresh, collection.count):
        with pytest.raises(FailedPrecondition, match="closed"):
            call()
