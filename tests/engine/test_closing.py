"""Closing and dropping while calls wait: each is told at once what it can be told, and nobody waits for a stranger."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from tests.engine.conftest import DIM, SMALL, Open
from tests.engine.test_compaction import Interleaved, wait_until
from vecdb.api import Collection
from vecdb.engine import compaction
from vecdb.engine.collection import EmbeddedCollection
from vecdb.engine.compaction import Compactor
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.state import CollectionState
from vecdb.errors import Cancelled

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
    waits = threading.Event()
    monkeypatch.setattr(compaction, "gc", SimpleNamespace(collect=waits.set))  # The last step before it waits.
    purging = pool.submit(collection.purge, LONG_S)
    assert waits.wait(LONG_S)
    closing = pool.submit(database.close)
    with pytest.raises(Cancelled):
        purging.result(LONG_S)
    closing.result(LONG_S)
    assert view.live_rows == 40
