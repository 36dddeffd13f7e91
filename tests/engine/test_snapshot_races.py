"""A snapshot that is dropped while it is opened or read is read whole, or is not found; it is never damaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.engine.test_refresh_races import Interrupting
from tests.engine.written import DIM, OPTIONS, Writer, contents, reading
from vecdb.api import Collection
from vecdb.engine.collection import EmbeddedCollection
from vecdb.errors import Corruption, NotFound


def keep(writer: Writer) -> dict[int, int]:
    """Take a snapshot of which files are in no segment of today; what it holds."""
    writer.fill()
    writer.collection.create_snapshot("kept")
    kept = dict(writer.model)
    writer.delete()
    writer.collection.compact()
    return kept


def contents_at(collection: Collection) -> dict[Any, int]:
    """The points of the snapshot, asked for in several ways that must agree."""
    points = {each.id: each.payload["n"] for each in collection.scroll(at="kept") if each.payload is not None}
    assert collection.count(at="kept") == collection.count("n >= 0", at="kept") == len(points)
    assert sorted(collection.search([0.5] * DIM, k=100, recall="exact", at="kept").ids) == sorted(points)
    assert {each.id for each in collection.get(range(60), at="kept")} == set(points)
    return points


def test_a_reader_that_opened_a_snapshot_reads_all_of_it_until_it_refreshes(writer: Writer) -> None:
    kept = keep(writer)
    with reading(writer.path) as database:
        collection = database.collection("c")
        assert collection.count(at="kept") == len(kept)  # Which reads the live rows and nothing else.
        writer.collection.drop_snapshot("kept")
        assert contents_at(collection) == kept
        collection.refresh()
        with pytest.raises(NotFound, match="kept"):
            collection.count(at="kept")
        assert contents(collection) == writer.model
        assert "file_damaged" not in collection.stats().events


@pytest.mark.parametrize("again", [False, True])
def test_the_owner_may_drop_a_snapshot_between_any_two_calls_of_a_reader(writer: Writer, again: bool) -> None:
    """And may take another one of the same name."""
    writer.database.close()
    writer.open(replace(OPTIONS, compaction=False))
    states = {writer.seq: keep(writer)}

    def take() -> None:
        writer.upsert()
        writer.collection.create_snapshot("kept")
        states[writer.seq] = dict(writer.model)
        writer.delete()
        writer.collection.compact()

    def drop() -> None:
        writer.collection.drop_snapshot("kept")
        if again:
            take()

    point = made = 0
    dropped = whole = 0
    while made >= point:
        point += 1 + point // 3
        spy = Interrupting()
        with reading(writer.path, spy) as database:
            collection = database.collection("c")
            spy.action = drop
            spy.calls, spy.at = 0, point
            try:
                assert contents_at(collection) in states.values()
                whole += 1
            except NotFound:
                dropped += 1
            made, spy.at = max(spy.calls, point if not writer.collection.snapshots() else 0), -1
            assert "file_damaged" not in collection.stats().events
        if not writer.collection.snapshots():
            take()
    assert whole
    assert again or dropped


def drop_elsewhere(writer: Writer) -> Callable[[], None]:
    """What a drop does on another thread until it waits for whoever opens the snapshot."""
    assert isinstance(writer.collection, EmbeddedCollection)
    with writer.collection._lease() as opened:
        state = opened._state

    def drop() -> None:
        state.commit(lambda manifest: manifest.without_snapshot("kept"))
        state.sweep_files()

    return drop


def test_a_snapshot_that_is_dropped_while_its_owner_opens_it_is_read_whole(writer: Writer) -> None:
    point = made = 0
    while made >= point:
        point += 1 + point // 3
        spy = Interrupting()
        writer.database.close()
        writer.open(replace(OPTIONS, compaction=False), spy)
        kept = keep(writer)
        spy.action = drop_elsewhere(writer)
        spy.calls, spy.at = 0, point
        with writer.collection._lease() as opened:  # type: ignore[attr-defined]
            view = opened._view_at("kept")
            made, spy.at = spy.calls, -1
            found = [int(segment.id_at(row)) for segment in view.segments for row in segment.live.bitmap().rows()]
        assert sorted(found) == sorted(kept)
        del view, opened
        assert "file_damaged" not in writer.collection.stats().events
        if writer.collection.snapshots():
            writer.collection.drop_snapshot("kept")
    assert point > 2


@pytest.mark.parametrize("lost", [True, False])
def test_a_damaged_file_of_a_snapshot_leaves_its_others_readable(writer: Writer, lost: bool) -> None:
    writer.database.close()
    writer.open(replace(OPTIONS, compaction=False))
    kept = keep(writer)
    with writer.collection._lease() as opened:  # type: ignore[attr-defined]
        state = opened._state
        (snapshot,) = state.manifest.snapshots
        file = next(each for each in snapshot.segments[0].files if each.role.value == "payload")
        path = state.directory.path_of(file.ref.name)
    path.unlink() if lost else path.write_bytes(bytes(path.stat().st_size))
    with reading(writer.path) as database:
        collection = database.collection("c")
        for _ in range(2):
            hits = collection.search(np.zeros(DIM), k=100, with_payloads=False, recall="exact", at="kept")
            assert sorted(hits.ids) == sorted(kept)
            with pytest.raises(Corruption, match="payload"):
                list(collection.scroll(at="kept"))
