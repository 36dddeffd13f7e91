"""Merges that find no room on the disk, damage or no memory: they wait, and keep nothing else from being merged."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.engine.conftest import DIM, SMALL, Open
from tests.engine.test_compaction import (
    Model,
    ids_of,
    put,
    remove,
    require_equal,
    require_told_by_segments,
    wait_until,
)
from vecdb.api import Collection
from vecdb.engine import compaction, merge_room, postponed
from vecdb.engine.collection import EmbeddedCollection
from vecdb.engine.compaction import Compactor
from vecdb.engine.merge_room import MergePart
from vecdb.engine.merger import Merger
from vecdb.errors import Corruption
from vecdb.storage.io import DiskFull, FileSystem

RESERVE_BYTES = 1 << 20
OPTIONS = replace(SMALL, reserve_size_bytes=RESERVE_BYTES)
EAGER = replace(OPTIONS, compaction=True, compaction_fanout=4)
PLENTY = 1 << 40


class LittleFree(FileSystem):
    """Tells that only ``free`` bytes are free, and counts what the thread that merges asks and writes."""

    def __init__(self, free: int = PLENTY) -> None:
        self.free = free
        self.asked = 0
        self.made = 0

    def free_bytes(self, path: Path) -> int:
        self.asked += merging()
        return min(self.free, super().free_bytes(path))

    def create(self, path: Path) -> int:
        self.made += merging()
        return super().create(path)


def merging() -> bool:
    return threading.current_thread().name.startswith("vecdb-compact")


@pytest.fixture(autouse=True)
def short_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an error's traceback holds is not waited for."""
    monkeypatch.setattr(compaction, "_SWEEP_S", 0.05)


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postponed, "PAUSE_S_FIRST", 0.02)
    monkeypatch.setattr(postponed, "PAUSE_S_MAX", 0.1)


def write_segments(collection: Collection, model: Model, count: int, rng: np.random.Generator, rows: int = 30) -> None:
    for _ in range(count):
        put(collection, model, ids_of(*range(len(model), len(model) + rows)), rng)
        collection.flush()


def lines_about(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.getMessage().startswith(event)]


def parts_of(collection: Collection) -> list[MergePart]:
    assert isinstance(collection, EmbeddedCollection)
    with collection._lease() as opened:
        state = opened._state
        return [MergePart(each, state.stored_live[each.segment_id].count()) for each in state.manifest.segments]


def test_a_merge_waits_for_disk_and_begins_by_itself_once_there_is_some(
    open_database: Open, rng: np.random.Generator, caplog: pytest.LogCaptureFixture, short_pauses: None
) -> None:
    file_system = LittleFree(free=RESERVE_BYTES)
    collection = open_database(EAGER, file_system=file_system).create_collection("docs", dim=DIM)
    model: Model = {}
    write_segments(collection, model, 6, rng)
    wait_until(lambda: "compaction_waits_for_disk" in collection.stats().events)
    # It looks again, after longer and longer pauses: each time it asks for six segments, five and four.
    wait_until(lambda: file_system.asked >= 12)
    assert file_system.asked <= 300
    assert file_system.made == 0
    write_segments(collection, model, 1, rng)
    events = collection.stats().events
    assert collection.stats().segments == 7
    assert events["compaction_waits_for_disk"] == 1
    assert "compaction_failed" not in events
    (line,) = lines_about(caplog, "compaction_waits_for_disk")
    assert f"{RESERVE_BYTES} are free" in line
    file_system.free = PLENTY
    # Nothing is written from here on: the pause ends by itself.
    wait_until(lambda: collection.stats().segments == 1)
    require_equal(collection, model)


def test_compact_names_the_bytes_that_it_lacks(open_database: Open, rng: np.random.Generator) -> None:
    file_system = LittleFree()
    collection = open_database(OPTIONS, file_system=file_system).create_collection("docs", dim=DIM)
    model: Model = {}
    write_segments(collection, model, 3, rng)
    needed = merge_room.merged_bytes(parts_of(collection), collection.schema, OPTIONS)
    file_system.free = RESERVE_BYTES + needed - 1
    with pytest.raises(DiskFull, match=f"takes about {needed} bytes") as caught:
        collection.compact()
    assert caught.value.limit == f"{RESERVE_BYTES + needed - 1} bytes free"
    assert caught.value.value == f"{RESERVE_BYTES + needed} bytes needed"
    assert file_system.made == 0
    assert collection.stats().segments == 3
    file_system.free += 1
    assert collection.compact().segments_after == 1
    require_equal(collection, model)


def test_the_needed_bytes_are_about_those_of_the_new_segment(open_database: Open, rng: np.random.Generator) -> None:
    collection = open_database(OPTIONS).create_collection("docs", dim=DIM)
    model: Model = {}
    write_segments(collection, model, 8, rng)
    remove(collection, model, list(model)[::3])
    collection.flush()
    needed = merge_room.merged_bytes(parts_of(collection), collection.schema, OPTIONS)
    made = collection.compact().size_bytes_after
    assert any(file.role.value == "graph" for each in parts_of(collection) for file in each.entry.files)
    assert 0.9 * made <= needed <= 2 * made


def test_where_it_is_tight_only_a_merge_that_gives_back_more_may_have_the_reserve(
    open_database: Open, rng: np.random.Generator
) -> None:
    file_system = LittleFree(free=0)
    collection = open_database(OPTIONS, file_system=file_system).create_collection("docs", dim=DIM)
    model: Model = {}
    write_segments(collection, model, 3, rng)
    remove(collection, model, list(model)[:5])
    with pytest.raises(DiskFull):
        collection.compact()
    collection.create_snapshot("kept")
    remove(collection, model, list(model)[:60])
    with pytest.raises(DiskFull):
        collection.compact()
    collection.drop_snapshot("kept")
    assert collection.compact().segments_after == 1
    require_equal(collection, model)


def test_where_not_all_fit_the_smallest_are_merged(open_database: Open, rng: np.random.Generator) -> None:
    file_system = LittleFree(free=0)
    database = open_database(OPTIONS, file_system=file_system)
    collection = database.create_collection("docs", dim=DIM)
    model: Model = {}
    write_segments(collection, model, 3, rng)
    write_segments(collection, model, 4, rng, rows=5)
    smallest = parts_of(collection)[3:]
    file_system.free = RESERVE_BYTES + merge_room.merged_bytes(smallest, collection.schema, OPTIONS)
    database.close()
    collection = open_database(EAGER, file_system=file_system).collection("docs")
    wait_until(lambda: collection.stats().segments == 4)
    numbers = [each.entry.segment_id for each in parts_of(collection)]
    assert numbers[:3] == [1, 2, 3]
    require_equal(collection, model)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def with_a_damaged_file(open_database: Open, tmp_path: Path, rng: np.random.Generator, name: str) -> Model:
    """Five segments, of one of which a file is damaged; some point of each was deleted, told by the fifth."""
    database = open_database(OPTIONS)
    collection = database.create_collection("docs", dim=DIM)
    model: Model = {}
    write_segments(collection, model, 4, rng)
    put(collection, model, ids_of(1000), rng)
    remove(collection, model, list(model)[::30])
    collection.flush()
    database.close()
    (path,) = tmp_path.rglob(name)
    damage(path)
    return model


@pytest.mark.parametrize("name", ["0000000002.payload.0", "0000000002.ids.0"])
def test_a_damaged_segment_does_not_keep_the_others_from_being_merged(
    open_database: Open,
    tmp_path: Path,
    rng: np.random.Generator,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    model = with_a_damaged_file(open_database, tmp_path, rng, name)
    attempts: list[tuple[int, ...]] = []
    merge = Compactor._merge

    def merging(self: Compactor, group: tuple[int, ...]) -> int:
        attempts.append(group)
        return merge(self, group)

    monkeypatch.setattr(Compactor, "_merge", merging)
    collection = open_database(EAGER).collection("docs")
    collection.stats()
    wait_until(lambda: collection.stats().segments == 2)
    if "ids" not in name:  # Without its ids nobody knows whether a segment holds what is written.
        put(collection, model, ids_of(1001), rng)
        collection.flush()
    assert collection.stats().events["compaction_failed"] == 1
    assert collection.stats().events["file_damaged"] == 1
    (line,) = lines_about(caplog, "compaction_failed")
    assert "segments=(2,)" in line
    assert name in line
    assert [sorted(each) for each in attempts] == [[1, 2, 3, 4, 5], [1, 3, 4, 5]]
    assert collection.count() == len(model)
    if "ids" not in name:
        require_told_by_segments(collection)


def test_compact_merges_the_whole_segments_before_it_tells_of_the_damaged_one(
    open_database: Open, tmp_path: Path, rng: np.random.Generator
) -> None:
    model = with_a_damaged_file(open_database, tmp_path, rng, "0000000002.payload.0")
    collection = open_database(OPTIONS).collection("docs")
    for segments in (2, 2):
        with pytest.raises(Corruption, match=r"0000000002\.payload"):
            collection.compact()
        assert collection.stats().segments == segments
    assert collection.count() == len(model)
    with pytest.raises(Corruption, match=r"0000000002\.payload"):
        collection.purge()


def test_a_merge_without_memory_is_tried_again(
    open_database: Open,
    rng: np.random.Generator,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    short_pauses: None,
) -> None:
    caplog.set_level(logging.ERROR)
    written = Merger._written
    failures = 3

    def failing(self: Compactor, merge: object) -> object:
        nonlocal failures
        if failures:
            failures -= 1
            raise MemoryError
        return written(self, merge)  # type: ignore[arg-type]

    monkeypatch.setattr(Merger, "_written", failing)
    collection = open_database(EAGER).create_collection("docs", dim=DIM)
    model: Model = {}
    write_segments(collection, model, 4, rng)
    wait_until(lambda: collection.stats().segments == 1)
    assert collection.stats().events["compaction_failed"] == 3
    assert len(lines_about(caplog, "compaction_failed")) == 1
    require_equal(collection, model)
