"""Closing and dropping while calls wait: each is told at once what it can be told, and nobody waits for a stranger."""

from __future__ import annotations

import io
import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.engine.conftest import DIM, SMALL, Open
from tests.engine.test_compaction import Interleaved, wait_until
from vecdb.api import Collection
from vecdb.engine import backup, compaction, indexing, merger
from vecdb.engine.check import check_database
from vecdb.engine.collection import EmbeddedCollection
from vecdb.engine.compaction import Compactor
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.reading import ReadOnlyDatabase
from vecdb.engine.state import CollectionState
from vecdb.errors import Cancelled, FailedPrecondition, NotFound
from vecdb.index import codes
from vecdb.index.hnsw import calibration
from vecdb.kernels.cpu import CpuKernels
from vecdb.storage.directory import MmapDirectory

LONG_S = 20.0


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as made:
        yield made


def with_segments(database: EmbeddedDatabase, name: str, vectors: np.ndarray) -> Collection:
    """A collection of two segments."""
    collection = database.create_collection(name, dim=DIM)
    for first in (0, 20):
        collection.upsert(list(range(first, first + 20)), vectors[first : first + 20])
        collection.flush()
    return collection


def parts_of(collection: Collection) -> tuple[CollectionState, Compactor]:
    assert isinstance(collection, EmbeddedCollection)
    with collection._lease() as opened:
        return opened._state, opened._compactor


@contextmanager
def merge_under_way(
    file_system: Interleaved, collection: Collection, pool: ThreadPoolExecutor
) -> Iterator[Future[object]]:
    """What asked for a merge that stands still for the length of the block."""
    reached, going_on = threading.Event(), threading.Event()

    def stand_still() -> None:
        reached.set()
        assert going_on.wait(LONG_S)

    file_system.actions.append(stand_still)
    try:
        asked: Future[object] = pool.submit(collection.compact, LONG_S)
        assert reached.wait(LONG_S)
        yield asked
    finally:
        going_on.set()


@pytest.mark.parametrize("verb", ["compact", "purge"])
def test_who_waits_for_a_merge_that_has_not_begun_is_told_before_the_running_one_ends(
    open_database: Open, vectors: np.ndarray, pool: ThreadPoolExecutor, verb: str
) -> None:
    file_system = Interleaved()
    database = open_database(SMALL, file_system=file_system)
    collection = with_segments(database, "c", vectors)
    _, compactor = parts_of(collection)
    with merge_under_way(file_system, collection, pool) as running:
        queued = pool.submit(getattr(collection, verb), LONG_S)
        wait_until(lambda: len(compactor._requests) == 1)
        closing = pool.submit(database.close)
        with pytest.raises(Cancelled):
            queued.result(LONG_S)
        assert not running.done()
    with pytest.raises(Cancelled):
        running.result(LONG_S)
    closing.result(LONG_S)


@pytest.mark.parametrize("stage", ["write_merged", "HnswBuilder", "Calibration"])
def test_a_merge_that_is_cut_off_says_that_the_collection_closes_and_loses_nothing(
    open_database: Open,
    vectors: np.ndarray,
    pool: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    stage: str,
) -> None:
    # A graph of so few rows is calibrated too.
    monkeypatch.setattr(calibration, "SAMPLE_MIN", 4)
    monkeypatch.setattr(calibration, "_SAMPLE_SHARE", 2)
    database = open_database(replace(SMALL, graph_rows_min=30))
    collection = with_segments(database, "c", vectors)
    collection.delete([3])
    collection.flush()
    state, _ = parts_of(collection)
    before = files_under(tmp_path)
    reached = threading.Event()

    def first_wait(going_on: Any) -> Any:
        def waiting(*arguments: Any, **named: Any) -> Any:
            reached.set()
            assert state.closing.wait(LONG_S)
            return going_on(*arguments, **named)

        return waiting

    if stage == "write_merged":
        monkeypatch.setattr(merger, stage, first_wait(merger.write_merged))
    else:
        made = getattr(indexing, stage)
        monkeypatch.setattr(made, "run", first_wait(made.run))
    compacting = pool.submit(collection.compact, LONG_S)
    assert reached.wait(LONG_S)
    pool.submit(database.close).result(LONG_S)
    with pytest.raises(Cancelled, match="closing") as caught:
        compacting.result(LONG_S)
    assert caught.value.field == "collection"
    assert {name for name in files_under(tmp_path) if ".log" not in name} <= before
    with open_database() as again:
        assert sorted(each.id for each in again.collection("c").scroll()) == [n for n in range(40) if n != 3]
    assert check_database(tmp_path / "db").ok


def files_under(path: Path) -> set[str]:
    return {each.name for each in path.rglob("*") if each.is_file()}


def test_a_graph_that_is_being_opened_keeps_nobody_from_closing(
    open_database: Open, rng: np.random.Generator, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rng.standard_normal((300, 256)).astype(np.float32)
    options = replace(SMALL, memtable_size_bytes=2**24, recall_checked_share=0.0)
    with open_database(options) as database:
        collection = database.create_collection("c", 256)
        collection.upsert(range(300), rows)
        collection.wait_indexed()
    monkeypatch.setattr(codes, "_STEP_BYTES", 256 * 10)
    database = open_database(options)
    collection = database.collection("c")
    state, _ = parts_of(collection)
    [field] = [each.reader.field("") for each in state.view.segments]
    reached = threading.Event()
    pieces: list[int] = []
    sketch = CpuKernels.sketch

    def slowly(*arguments: Any) -> Any:
        pieces.append(1)
        if len(pieces) == 3:
            reached.set()
            assert state.closing.wait(LONG_S)
        return sketch(*arguments)

    monkeypatch.setattr(CpuKernels, "sketch", slowly)
    searching = pool.submit(collection.search, rows[0])
    assert reached.wait(LONG_S)
    pool.submit(database.close).result(LONG_S)
    with pytest.raises(Cancelled, match="closing"):
        searching.result(LONG_S)
    assert len(pieces) == 3
    assert not field.has_open_graph
    assert field.derived_bytes == 0
    with open_database(options) as database:
        assert database.collection("c").search(rows[0])[0].id == 0
    assert len(pieces) > 30
    with ReadOnlyDatabase.open(database.path, options=options) as reader:
        read = reader.collection("c")
        with read._lease() as opened:
            opened._state.closing.set()
        with pytest.raises(Cancelled, match="closing"):
            read.search(rows[0])


def test_a_drop_does_not_wait_for_the_merge_of_another_collection(
    open_database: Open, vectors: np.ndarray, pool: ThreadPoolExecutor
) -> None:
    file_system = Interleaved()
    database = open_database(SMALL, file_system=file_system)
    busy, dropped = with_segments(database, "busy", vectors), with_segments(database, "dropped", vectors)
    _, compactor = parts_of(dropped)
    with merge_under_way(file_system, busy, pool) as running:
        queued = pool.submit(dropped.compact, LONG_S)
        wait_until(lambda: len(compactor._requests) == 1)
        pool.submit(database.drop_collection, "dropped").result(LONG_S)
        with pytest.raises(Cancelled):
            queued.result(LONG_S)
        assert not running.done()
    running.result(LONG_S)
    assert busy.count() == 40


def test_a_merge_that_is_asked_for_while_the_collection_closes_is_refused(
    open_database: Open, vectors: np.ndarray
) -> None:
    collection = with_segments(open_database(), "c", vectors)
    state, compactor = parts_of(collection)
    state.closing.set()
    with pytest.raises(Cancelled):
        compactor.compact(LONG_S)


def test_a_purge_that_waits_for_readers_ends_when_the_database_is_closed(
    open_database: Open, vectors: np.ndarray, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_database()
    collection = with_segments(database, "c", vectors)
    state, _ = parts_of(collection)
    view = state.view
    collection.delete([1, 2, 30])
    monkeypatch.setattr(compaction, "_SWEEP_S", 0.0)
    waits = threading.Event()
    monkeypatch.setattr(compaction, "gc", SimpleNamespace(collect=waits.set))  # The last step before it waits.
    purging = pool.submit(collection.purge, LONG_S)
    assert waits.wait(LONG_S)
    closing = pool.submit(database.close)
    with pytest.raises(Cancelled):
        purging.result(LONG_S)
    closing.result(LONG_S)
    assert view.live_rows == 40


class Stuck(io.RawIOBase):
    """A pipe that nobody empties, until somebody does."""

    def __init__(self) -> None:
        self.reached, self.emptied = threading.Event(), threading.Event()

    def write(self, piece: object) -> int:
        self.reached.set()
        assert self.emptied.wait(LONG_S)
        return len(piece)  # type: ignore[arg-type]


@contextmanager
def stuck_backup(database: EmbeddedDatabase, pool: ThreadPoolExecutor) -> Iterator[Future[object]]:
    """A backup that stands still for the length of the block, in the middle of the first collection."""
    pipe = Stuck()
    try:
        taken: Future[object] = pool.submit(database.backup, pipe)  # type: ignore[arg-type]
        assert pipe.reached.wait(LONG_S)
        yield taken
    finally:
        pipe.emptied.set()


def directories(database: EmbeddedDatabase) -> int:
    return sum(1 for _ in (database.path / "collections").iterdir())


@pytest.mark.parametrize("ends_by", ["taking", "closing"])
def test_a_drop_that_waits_for_a_backup_keeps_nobody_from_anything(
    open_database: Open,
    vectors: np.ndarray,
    pool: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    ends_by: str,
) -> None:
    monkeypatch.setattr(backup, "JOINED_BYTES", 1)
    database = open_database()
    old = with_segments(database, "a", vectors)
    with_segments(database, "b", vectors)
    with stuck_backup(database, pool) as taken:
        dropping = pool.submit(database.drop_collection, "a")
        wait_until(lambda: list(database.collections()) == ["b"])
        with pytest.raises(NotFound):
            old.count()
        new = pool.submit(database.create_collection, "a", DIM).result(LONG_S)
        new.upsert([7], vectors[:1])
        database.create_collection("c", DIM)
        pool.submit(database.drop_collection, "b").result(LONG_S)
        assert list(database.collections()) == ["a", "c"]
        assert not dropping.done()
        assert directories(database) == 3
        if ends_by == "closing":
            closing = pool.submit(database.close)
            wait_until(lambda: database._closed)
            with pytest.raises(FailedPrecondition, match="closed"):
                pool.submit(database.create_collection, "d", DIM).result(LONG_S)
            assert not closing.done()
    dropping.result(LONG_S)
    with pytest.raises(Cancelled):
        taken.result(LONG_S)
    if ends_by == "closing":
        closing.result(LONG_S)
    database.close()
    assert directories(database) == 2
    with open_database() as again:
        assert list(again.collections()) == ["a", "c"]
        assert [each.id for each in again.collection("a").scroll()] == [7]


def test_a_directory_is_another_processs_only_when_every_drop_has_ended(
    open_database: Open, vectors: np.ndarray, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_database()
    with_segments(database, "a", vectors)
    reached, going_on = threading.Event(), threading.Event()
    remove_child = MmapDirectory.remove_child

    def slowly(directory: MmapDirectory, name: str) -> None:
        reached.set()
        assert going_on.wait(LONG_S)
        remove_child(directory, name)

    monkeypatch.setattr(MmapDirectory, "remove_child", slowly)
    try:
        dropping = pool.submit(database.drop_collection, "a")
        assert reached.wait(LONG_S)
        closing = pool.submit(database.close)
        wait_until(lambda: database._open._closed)
        with pytest.raises(FailedPrecondition, match="is open in process"):
            open_database()
        assert not closing.done()
    finally:
        going_on.set()
    dropping.result(LONG_S)
    closing.result(LONG_S)
    assert directories(database) == 0


def _close(database: EmbeddedDatabase) -> None:
    try:
        database.close()
    except FailedPrecondition:
        return
    raise AssertionError("the child closed what is its parent's")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_child_is_refused_whatever_its_parent_was_doing(open_database: Open) -> None:
    database = open_database()
    with database._changing:  # As a thread of the parent has it in the middle of a drop.
        child = multiprocessing.get_context("fork").Process(target=_close, args=(database,))
        child.start()
    child.join(LONG_S)
    child.kill()
    child.join()
    assert child.exitcode == 0
