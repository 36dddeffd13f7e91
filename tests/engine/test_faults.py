"""What a failing device or a lack of memory does to an open collection; that it is told once, without payloads."""

from __future__ import annotations

import errno
import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.engine.conftest import DIM, SMALL
from tests.engine.test_writer import FullAtFiles
from tests.storage.faults import FailingFileSystem
from vecdb.engine.state import CollectionState
from vecdb.errors import Corruption, InvalidArgument, ResourceExhausted, Unavailable, VecdbError
from vecdb.segment.memtable import Memtable
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem
from vecdb.storage.log_file import LogFile

QUIET = replace(SMALL, kernels="reference", memtable_size_bytes=2**20, graph_rows_min=10**6)


class UnreadableFile(FileSystem):
    """Cannot read the files whose name begins with ``name``."""

    name = ""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}

    def open_read(self, path: Path) -> int:
        fd = super().open_read(path)
        self._names[fd] = path.name
        return fd

    def read(self, fd: int, buffer: bytearray | memoryview, offset: int) -> int:
        if self.name and self._names.get(fd, "").startswith(self.name):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(fd, buffer, offset)


def lines_about(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith(event)]


def test_a_file_that_cannot_be_read_fails_only_who_needs_it_and_is_told_once(open_database, vectors, caplog):
    file_system = UnreadableFile()
    database = open_database(replace(QUIET, verify_ahead_bytes_max=0), file_system)
    collection, other = (database.create_collection(name, DIM) for name in ("c", "other"))
    for start in (0, 100):
        for each in (collection, other):
            each.upsert(range(start, start + 100), vectors[start : start + 100], [{"start": start}] * 100)
            each.flush()
    database.close()
    database = open_database(replace(QUIET, verify_ahead_bytes_max=0), file_system)
    collection, other = database.collection("c"), database.collection("other")
    file_system.name = "0000000001.vectors"
    for _ in range(4):
        with pytest.raises(Corruption, match=r"0000000001\.vectors"):
            collection.search(vectors[0], recall="exact")
    assert collection.search(vectors[0], k=3, where="start = 100", recall="exact").ids[0] >= 100
    assert [point.id for point in collection.get([5, 150])] == [5, 150]
    collection.upsert([1000], vectors[:1])
    file_system.name = ""
    assert other.search(vectors[0], k=1, recall="exact").ids[0] == 0
    assert collection.search(vectors[0], k=1, recall="exact").distances[0] == pytest.approx(0, abs=1e-6)
    assert collection.stats().events["file_damaged"] == 1
    assert "file_damaged" not in other.stats().events
    (line,) = lines_about(caplog, "file_damaged")
    assert "collection='c'" in line
    assert "0000000001.vectors" in line


@pytest.mark.parametrize("call", ["fsync", "fsync_directory"])
def test_a_sync_that_fails_in_the_background_stops_the_writer(open_database, vectors, caplog, call):
    file_system = FailingFileSystem(errno.EIO, n=10**9, calls=(call,))
    database = open_database(QUIET, file_system)
    collection = database.create_collection("c", DIM)
    collection.upsert(range(50), vectors[:50])
    file_system._failing = range(file_system._seen + 1, file_system._seen + 2)
    with pytest.raises(Unavailable):
        collection.flush()
    syncs = file_system.calls[call]
    for write in (lambda: collection.upsert([60], vectors[:1]), lambda: collection.delete([1]), collection.flush):
        with pytest.raises(Unavailable, match="reopen"):
            write()
    assert file_system.calls[call] == syncs, "a sync was tried again"
    assert collection.count() == len(collection.search(vectors[0], k=100)) == 50
    assert collection.stats().events["writer_stopped"] == 1
    (line,) = lines_about(caplog, "writer_stopped")
    assert "collection='c'" in line
    assert "seq=1" in line
    assert str(database.path) in line
    database.close()
    collection = open_database(QUIET).collection("c")
    assert collection.count() == 50
    collection.upsert([60], vectors[:1])


@pytest.mark.parametrize("verb", ["compact", "create_snapshot"])
def test_a_sync_that_fails_in_a_merge_or_snapshot_stops_the_writer(open_database, vectors, verb):
    file_system = FailingFileSystem(errno.EIO, n=10**9, calls=("fsync",))
    collection = open_database(QUIET, file_system).create_collection("c", DIM)
    for start in (0, 50):
        collection.upsert(range(start, start + 50), vectors[start : start + 50])
        collection.flush()
    file_system._failing = range(file_system._seen + 1, file_system._seen + 2)
    with pytest.raises(Unavailable):
        collection.compact() if verb == "compact" else collection.create_snapshot("s")
    syncs = file_system.calls["fsync"]
    for write in (lambda: collection.upsert([60], vectors[:1]), lambda: collection.delete([1]), collection.compact):
        with pytest.raises(Unavailable, match="reopen"):
            write()
    assert file_system.calls["fsync"] == syncs, "a sync was tried again"
    assert collection.stats().events["writer_stopped"] == 1
    assert collection.count() == 100


def test_a_directory_whose_sync_failed_is_not_synced_again(tmp_path: Path):
    file_system = FailingFileSystem(errno.EIO, n=1, calls=("fsync_directory",))
    directory = MmapDirectory(tmp_path, file_system)
    directory.write_file("a", b"a")
    for _ in range(3):
        with pytest.raises(Unavailable):
            directory.sync()
        directory.write_file("b", b"b")
    assert file_system.calls["fsync_directory"] == 1


@pytest.mark.parametrize("place", [(Memtable, "reserve"), (LogFile, "encode")])
def test_a_write_for_which_there_is_no_memory_changes_nothing(open_database, vectors, monkeypatch, place):
    database = open_database(QUIET)
    collection = database.create_collection("c", DIM)
    collection.upsert(range(10), vectors[:10])

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(*place, fail)
        for _ in range(2):
            with pytest.raises(ResourceExhausted, match="memory"):
                collection.upsert(range(5, 20), vectors[5:20], [{"new": 1}] * 15)
    assert collection.count() == 10
    events = collection.stats().events
    assert events["write_refused_memory"] == 2
    assert "writer_stopped" not in events
    assert collection.upsert([10], vectors[10:11]).seq == 2
    database.close()
    assert open_database(QUIET).collection("c").count() == 11


def test_a_search_for_which_there_is_no_memory_is_refused(open_database, vectors, monkeypatch):
    collection = open_database(QUIET).create_collection("c", DIM)
    collection.upsert(range(10), vectors[:10])

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("vecdb.engine.search.search_parts", fail)
        with pytest.raises(ResourceExhausted, match="memory"):
            collection.search(vectors[0])
    assert collection.stats().events["call_refused_memory"] == 1
    assert len(collection.search(vectors[0])) == 10


LIMITED = replace(QUIET, memory_size_bytes_max=300_000)


def test_rows_in_memory_of_all_collections_together_are_limited(open_database, vectors, monkeypatch):
    database = open_database(LIMITED)
    greatest = 0
    note = CollectionState.note_memory

    def noting(state: CollectionState) -> None:
        nonlocal greatest
        note(state)
        greatest = max(greatest, state.resources.memory.size_bytes)

    monkeypatch.setattr(CollectionState, "note_memory", noting)
    collections = [database.create_collection(f"c{number}", DIM) for number in range(4)]
    for start in range(0, 800, 100):
        for collection in collections:
            collection.upsert(range(start, start + 100), vectors[start : start + 100])
    assert [collection.count() for collection in collections] == [800] * 4
    assert 200_000 < greatest <= LIMITED.memory_size_bytes_max
    assert sum(collection.stats().events.get("flushes", 0) for collection in collections) >= 2
    with pytest.raises(ResourceExhausted) as caught:
        collections[0].upsert(range(900), vectors[:900], [{"text": "x" * 100}] * 900)
    assert caught.value.field == "memory_size_bytes_max"


def test_where_rows_cannot_be_written_out_upserts_are_refused_and_deletes_are_not(open_database, vectors):
    file_system = FullAtFiles()
    database = open_database(LIMITED, file_system)
    collections = [database.create_collection(f"c{number}", DIM) for number in range(2)]
    file_system.full = True

    def write_on() -> int:
        for start in range(0, 1000, 100):
            for collection in collections:
                try:
                    collection.upsert(range(start, start + 100), vectors[start : start + 100])
                except ResourceExhausted:
                    return start
        raise AssertionError("nothing was refused")

    start = write_on()
    counts = [collection.count() for collection in collections]
    assert sum(counts) >= 600
    for collection in collections:
        with pytest.raises(ResourceExhausted):
            collection.upsert(range(start, start + 100), vectors[start : start + 100])
        assert collection.delete(range(10)).deleted == 10
    file_system.full = False
    for collection, count in zip(collections, counts, strict=True):
        collection.upsert([5000], vectors[:1])
        assert collection.count() == count - 10 + 1


def test_a_replay_writes_segments_on_the_way(open_database, vectors, monkeypatch):
    database = open_database(replace(QUIET, log_kept_bytes=2**30))
    collection = database.create_collection("c", DIM)
    for start in range(0, 1000, 10):
        collection.upsert(range(start, start + 10), vectors[start : start + 10])
    collection.delete(range(0, 1000, 7))
    database.close()
    most = 0
    publish = CollectionState.publish

    def publishing(state: CollectionState, view: object) -> None:
        nonlocal most
        publish(state, view)
        most = max(most, len(state.view.memtables))

    monkeypatch.setattr(CollectionState, "publish", publishing)
    tight = replace(QUIET, memtable_size_bytes=10_000, log_kept_bytes=2**30)
    collection = open_database(tight).collection("c")
    assert 2 <= most <= tight.memtables_waiting_max + 1
    assert sorted(point.id for point in collection.scroll()) == [each for each in range(1000) if each % 7]
    events = collection.stats().events
    assert events["log_replayed"] == 1
    assert events["flushes"] >= 10


CANARY = "CANARY-7f3a"


def test_neither_logs_nor_counters_nor_errors_hold_payloads_or_vectors(open_database, vectors, caplog):
    caplog.set_level(logging.DEBUG)
    file_system = FullAtFiles()
    number = 0.12345678
    marked = np.full((60, DIM), number, np.float32)
    payloads = [{"text": CANARY, CANARY: 1}] * 60
    told: list[str] = []

    def noted(call: object, *arguments: object, **named: object) -> None:
        try:
            call(*arguments, **named)
        except VecdbError as error:
            told.append(f"{error!r} {error.message} {error.field} {error.limit} {error.value}")

    options = replace(QUIET, memtable_size_bytes=20_000)
    database = open_database(options, file_system)
    collection = database.create_collection("c", DIM)
    collection.upsert(range(60), marked, payloads)
    noted(collection.upsert, range(60), marked[:, :3], payloads)
    noted(collection.upsert, range(60), marked, [{"text": {CANARY}}] * 60)
    noted(collection.upsert, range(2), marked[:2], [{"text": CANARY}], request_id="r")
    noted(collection.search, np.full(DIM, np.nan))
    noted(collection.count, "text > 1 AND")
    file_system.full = True
    for start in range(0, 600, 60):
        noted(collection.upsert, range(start, start + 60), marked, payloads)
    noted(collection.flush)
    file_system.full = False
    collection.flush()
    database.close()
    with open_database(options) as database:
        collection = database.collection("c")
        files = sorted((database.path / "collections").glob("*/*.payload*"))
        path = next(each for each in reversed(files) if CANARY.encode() in each.read_bytes())
        told.append(str(collection.stats()))
    data = bytearray(path.read_bytes())
    data[data.index(CANARY.encode())] ^= 1
    path.write_bytes(data)
    collection = open_database(options).collection("c")
    noted(lambda: list(collection.scroll()))
    assert collection.stats().events["file_damaged"] == 1
    told += [str(collection.stats()), caplog.text]
    assert len(told) > 10
    assert CANARY not in "".join(told)
    assert str(number)[:8] not in "".join(told)
    with pytest.raises(InvalidArgument):
        collection.upsert([1], marked[:1, :3])
