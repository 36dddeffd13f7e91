"""The memory budget beside what else happens in a process: others' memory, and a database that closes."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.conftest import DIM, SMALL
from vecdb.engine import memory_budget
from vecdb.engine.database import EmbeddedDatabase
from vecdb.storage.io import FileSystem

MIB = 2**20
BUDGETED = replace(SMALL, memtable_size_bytes=MIB, memory_budget_bytes=24 * MIB, recall_checked_share=0.0)
WAIT_S = 20.0


def filled(database: EmbeddedDatabase, vectors: np.ndarray) -> Any:
    collection = database.create_collection("c", DIM)
    for start in (0, 300):
        collection.upsert(range(start, start + 300), vectors[start : start + 300], [{"n": n} for n in range(300)])
        collection.flush()
    collection.wait_indexed()
    collection.search_batch(vectors[:20], k=50, with_vectors=True)
    return collection


def looked_at(hits: Any) -> list[Any]:
    return [(each.id, each.payload, each.vectors[""].tolist()) for each in hits]


@pytest.mark.parametrize("kind", ["anonymous", "file", "shared"])
def test_memory_of_others_makes_the_budget_give_back_nothing(
    open_database: Any, vectors: np.ndarray, tmp_path: Path, kind: str
) -> None:
    database = open_database(BUDGETED)
    collection = filled(database, vectors)
    before = collection.stats().memory
    assert before.mapped_bytes > 0
    size = 6 * BUDGETED.memory_budget_bytes
    others: Any
    if kind == "anonymous":
        others = np.ones(size // 8)
    elif kind == "file":
        (tmp_path / "others").write_bytes(bytes(size))
        others = np.memmap(tmp_path / "others", np.uint8, "r")
        assert int(others[::4096].sum()) == 0
    else:
        others = mmap.mmap(-1, size)
        np.frombuffer(others, np.uint8)[::4096] = 1
    budget = database._resources.budget
    for measured_s in (-10.0, budget._measured_s):
        budget._measured_s = measured_s
        collection.search_batch(vectors[:20], k=50)
        budget.settle()
    after = collection.stats()
    assert after.memory.releases == 0
    assert after.memory.mapped_bytes >= before.mapped_bytes
    assert after.memory.derived_bytes == before.derived_bytes
    assert not any(each.startswith("memory_") for each in after.events)
    assert len(others) > 0


class MappingMeanwhile(FileSystem):
    """Others read more of a mapped file each time that the process's mappings are looked at."""

    def __init__(self) -> None:
        self.pieces: list[np.ndarray] = []

    def mapped_bytes_by_address(self) -> Mapping[int, int]:
        found = super().mapped_bytes_by_address()
        if self.pieces:
            self.pieces.pop()[::4096].sum()
        return found


def test_files_that_others_are_just_reading_make_the_budget_give_back_nothing(
    open_database: Any, vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_budget, "_TICK_S", 3600.0)
    fs = MappingMeanwhile()
    database = open_database(BUDGETED, fs)
    collection = filled(database, vectors)
    before = collection.stats().memory
    (tmp_path / "others").write_bytes(bytes(5 * 32 * MIB))
    others = np.memmap(tmp_path / "others", np.uint8, "r").reshape(5, -1)
    others[0, ::4096].sum()
    fs.pieces = list(others[1:])
    for _ in range(4):
        collection.search_batch(vectors[:20], k=50)
    assert len(fs.pieces) < 4
    fs.pieces = []
    after = collection.stats().memory
    assert after.releases == 0
    assert after.mapped_bytes >= before.mapped_bytes
    assert after.derived_bytes == before.derived_bytes


def test_hits_that_are_read_while_the_database_closes_are_what_they_were(
    open_database: Any, vectors: np.ndarray
) -> None:
    for _ in range(3):
        database = open_database(replace(BUDGETED, memory_budget_bytes=MIB))
        collection = database.collection("c") if "c" in database.collections() else filled(database, vectors)
        found = collection.search_batch(vectors[:20], k=50, with_vectors=True)
        expected = [looked_at(hits) for hits in found]
        failures: list[BaseException] = []
        begun = threading.Barrier(4)
        closed = threading.Event()

        def read(found: Any = found, expected: Any = expected, begun: Any = begun, closed: Any = closed) -> None:
            begun.wait(WAIT_S)
            last = False
            while not last:
                last = closed.is_set()
                for hits, right in zip(found, expected, strict=True):
                    if looked_at(hits) != right:
                        raise AssertionError(right)

        def told(failures: list[BaseException] = failures, read: Any = read) -> None:
            try:
                read()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=told) for _ in range(3)]
        for each in threads:
            each.start()
        begun.wait(WAIT_S)
        database.close()
        closed.set()
        for each in threads:
            each.join(WAIT_S)
        assert failures == []


class ClosingMeanwhile(FileSystem):
    """While the memory of the process is looked at, the database is closed, and others open files in its place."""

    def __init__(self) -> None:
        self.ends: Any = None
        self.begun: list[threading.Thread] = []
        self.opened: list[int] = []

    def mapped_bytes(self, fd: int) -> int:
        if self.ends is not None:
            closing = threading.Thread(target=self.ends)
            self.ends = None
            self.begun.append(closing)
            closing.start()
            # It ends without this thread, or not at all before it goes on.
            closing.join(0.3)
            self.opened += [os.open("/dev/null", os.O_RDONLY) for _ in range(64)]
        return super().mapped_bytes(fd)


def test_a_file_that_is_opened_in_the_place_of_a_closed_one_is_not_read_for_it(
    open_database: Any, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_budget, "_TICK_S", 3600.0)
    fs = ClosingMeanwhile()
    database = open_database(BUDGETED, fs)
    filled(database, vectors)
    budget = database._resources.budget
    fs.ends = budget.close
    try:
        budget.settle()
        budget.settle()
    finally:
        for each in fs.opened:
            os.close(each)
    assert len(fs.begun) == 1
    fs.begun[0].join(WAIT_S)
    assert not fs.begun[0].is_alive()
