"""The writer: one sync for many writes, order, retries, and what happens when the disk fails."""

from __future__ import annotations

import errno
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.engine.conftest import DIM, SMALL
from tests.storage.faults import CountingFileSystem, FailingFileSystem
from vecdb.errors import InvalidArgument, ResourceExhausted, Unavailable
from vecdb.index.hnsw import HnswBuilder
from vecdb.storage.io import FileSystem

ROOMY = replace(SMALL, memtable_size_bytes=2**24)


class SlowSync(CountingFileSystem):
    """Every fdatasync takes 4 ms longer, as on a disk without a cache."""

    def before(self, call: str, *arguments: object) -> None:
        super().before(call, *arguments)
        if call == "fdatasync":
            time.sleep(0.004)


class FullAtFiles(FileSystem):
    """No segment file can be completed while the disk is full; the log has its space."""

    full = False

    def rename(self, source: Path, target: Path) -> None:
        if self.full and ".mdb" not in target.name and target.suffix != ".log":
            raise OSError(errno.ENOSPC, "No space left on device")
        super().rename(source, target)


def test_waiting_writes_share_one_sync(open_database, vectors):
    file_system = SlowSync()
    collection = open_database(ROOMY, file_system).create_collection("c", DIM)
    collection.upsert([10**6], vectors[:1])
    before = file_system.calls["fdatasync"]
    writers, rounds = 64, 8
    start = threading.Barrier(writers)

    def write(number: int) -> None:
        start.wait()
        for turn in range(rounds):
            collection.upsert([number * rounds + turn], vectors[number : number + 1])

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))
    syncs = file_system.calls["fdatasync"] - before
    assert collection.count() == writers * rounds + 1
    assert writers * rounds / syncs >= 16, syncs


def test_every_batch_that_changes_something_gets_the_next_seq(open_database, vectors):
    collection = open_database().create_collection("c", DIM)
    assert collection.upsert([1, 2], vectors[:2]).seq == 1
    assert collection.delete([2]).seq == 2
    assert collection.delete([2, 99]).seq == 2
    assert collection.upsert([], np.zeros((0, DIM))).seq == 2
    assert collection.upsert([1], vectors[:1]).seq == 3


def test_a_retried_request_is_applied_once(open_database, vectors):
    for reopened in (False, True):
        with open_database() as database:
            collection = database.create_collection("c", DIM, exist_ok=True)
            first = collection.upsert([1], vectors[:1], [{"v": 1}], request_id="a")
            if not reopened:
                collection.upsert([1], vectors[1:2], [{"v": 2}])
                gone = collection.delete([7, 1], request_id="b")
                assert gone.deleted == 1
                collection.upsert([1], vectors[1:2], [{"v": 3}])
            assert first.seq == 1
            assert collection.delete([7, 1], request_id="b") == gone
            assert [point.payload for point in collection.get([1])] == [{"v": 3}]
            with pytest.raises(InvalidArgument) as caught:
                collection.upsert([1], vectors[:1], [{"v": 4}], request_id="a")
            assert caught.value.field == "request_id"
            # Half of them are found in the log after reopening, half in the metadata.
            collection.flush()


def test_a_retry_in_the_same_group_is_answered_with_the_first(open_database, vectors):
    collection = open_database(ROOMY, SlowSync()).create_collection("c", DIM)
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: collection.upsert([1], vectors[:1], request_id="same"), range(16)))
    assert {result.seq for result in results} == {1}
    assert collection.stats().last_seq == 1


def test_a_failed_sync_stops_the_writer_and_is_never_acknowledged(open_database, vectors, tmp_path: Path):
    file_system = FailingFileSystem(errno.EIO, n=3, calls=("fdatasync",))
    database = open_database(ROOMY, file_system)
    collection = database.create_collection("c", DIM)
    acknowledged = []

    def write_on() -> None:
        for number in range(10):
            collection.upsert([number], vectors[number : number + 1])
            acknowledged.append(number)

    with pytest.raises(Unavailable):
        write_on()
    with pytest.raises(Unavailable, match="reopen"):
        collection.upsert([50], vectors[:1])
    assert collection.count() == len(acknowledged)
    assert collection.search(vectors[0], k=20).ids[0] == 0
    assert collection.stats().events["writer_stopped"] == 1
    database.close()
    reopened = open_database().collection("c")
    assert {point.id for point in reopened.scroll()} >= set(acknowledged)
    reopened.upsert([50], vectors[:1])


def test_a_full_disk_refuses_the_write_and_nothing_else(open_database, vectors):
    file_system = FailingFileSystem(errno.ENOSPC, n=1, calls=("allocate",), times=3)
    database = open_database(replace(ROOMY, reserve_size_bytes=0), file_system)
    collection = database.create_collection("c", DIM)
    for _ in range(3):
        with pytest.raises(ResourceExhausted):
            collection.upsert([1], vectors[:1])
        assert collection.count() == 0
    assert collection.upsert([1], vectors[:1]).seq == 1
    database.close()
    assert open_database().collection("c").count() == 1


def test_a_flush_that_fails_loses_nothing_and_is_tried_again(open_database, vectors):
    file_system = FullAtFiles()
    collection = open_database(SMALL, file_system).create_collection("c", DIM)
    file_system.full = True
    written = 0

    def write_on() -> None:
        nonlocal written
        for start in range(0, 1000, 20):
            collection.upsert(range(start, start + 20), vectors[start : start + 20])
            written = start + 20

    with pytest.raises(ResourceExhausted, match="memory"):
        write_on()
    assert 60 < written < 1000
    assert collection.count() == written
    assert len(collection.search(vectors[0], k=1000)) == written
    with pytest.raises(ResourceExhausted):
        collection.flush()
    collection.delete([0])
    file_system.full = False
    for _ in range(100):
        try:
            collection.upsert([5000], vectors[:1])
            break
        except ResourceExhausted:
            time.sleep(0.05)
    collection.flush()
    stats = collection.stats()
    assert (stats.memtable_rows, stats.points) == (0, written)
    assert stats.events["flush_failed"] >= 1


class PatientCondition(threading.Condition):
    """Whoever waits in it has to be woken."""

    def wait(self, timeout: float | None = None) -> bool:
        assert super().wait(None if timeout is None else 20.0), "nobody said that there was something new"
        return True


def test_a_write_that_is_refused_waits_for_one_flush_that_fails_and_no_longer(open_database, vectors, monkeypatch):
    monkeypatch.setattr("vecdb.engine.writer.threading", SimpleNamespace(Condition=PatientCondition))
    file_system = FullAtFiles()
    collection = open_database(SMALL, file_system).create_collection("c", DIM)
    file_system.full = True
    refused = 0
    for start in range(0, 1000, 20):
        try:
            collection.upsert(range(start, start + 20), vectors[start : start + 20])
        except ResourceExhausted:
            refused += 1
    assert refused > 10
    # One that was scheduled with the memtable, and one for each write that was refused.
    assert collection.stats().events["flush_failed"] <= refused + 3
    file_system.full = False
    collection.upsert([5000], vectors[:1])


def test_a_mistake_in_one_write_fails_only_that_write(open_database, vectors):
    collection = open_database(ROOMY, SlowSync()).create_collection("c", DIM)

    def write(number: int) -> bool:
        try:
            collection.upsert([number], vectors[number : number + 1, : DIM - number % 2])
        except InvalidArgument:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(write, range(40))) == [number % 2 == 0 for number in range(40)]
    assert sorted(point.id for point in collection.scroll()) == list(range(0, 40, 2))


def test_writes_are_slowed_while_index_building_lags_and_only_then(open_database, vectors, monkeypatch):
    options = replace(SMALL, unindexed_rows_max=50, slow_down_s_max=0.05)
    database = open_database(options)
    lagging = threading.Event()
    build = HnswBuilder.run

    def wait_and_build(self, cancelled=None) -> bool:
        lagging.wait(10)
        return build(self, cancelled)

    monkeypatch.setattr(HnswBuilder, "run", wait_and_build)
    flat = database.create_collection("flat", DIM, index="flat")
    for start in range(0, 200, 20):
        assert flat.upsert(range(start, start + 20), vectors[start : start + 20]).slowed_s == 0
    collection = database.create_collection("c", DIM)
    collection.upsert(range(60), vectors[:60])
    assert collection.upsert([60], vectors[60:61]).slowed_s == 0
    collection.flush()
    assert collection.upsert([61], vectors[61:62]).slowed_s >= 0.05
    assert collection.stats().events["writes_slowed"] == 1
    lagging.set()
    collection.wait_indexed()
    assert collection.upsert([62], vectors[62:63]).slowed_s == 0
    assert collection.count() == 63


def test_a_retry_of_a_request_that_changed_nothing_changes_nothing(open_database, vectors):
    collection = open_database().create_collection("c", DIM)
    assert collection.delete([1], request_id="r").deleted == 0
    collection.upsert([1], vectors[:1])
    assert collection.delete([1], request_id="r").deleted == 0
    assert collection.count() == 1
    with pytest.raises(InvalidArgument, match="request_id"):
        collection.delete([2], request_id="r")
