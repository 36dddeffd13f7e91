"""Compaction: merges drop dead rows and nothing else, whatever is written meanwhile, and space comes back."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.conftest import DIM, SMALL, Open
from vecdb.api import Collection
from vecdb.engine import state
from vecdb.engine.collection import EmbeddedCollection
from vecdb.engine.database import EmbeddedDatabase, choose_kernels
from vecdb.engine.liveness import History, live_rows, row_hashes
from vecdb.errors import Corruption, DeadlineExceeded, FailedPrecondition, Unavailable
from vecdb.segment.journal import deletes_of
from vecdb.storage.io import FileSystem
from vecdb.storage.log_file import LogFile
from vecdb.types import F32Array, PointId

EAGER = replace(SMALL, compaction=True, compaction_fanout=2)
KERNELS = choose_kernels("cpu")

Model = dict[PointId, tuple[F32Array, dict[str, Any]]]


def put(collection: Collection, model: Model, ids: list[PointId], rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((len(ids), DIM)).astype(np.float32)
    payloads = [{"n": int(rng.integers(1000)), "text": "x" * int(rng.integers(60))} for _ in ids]
    collection.upsert(ids, vectors, payloads)
    model.update({each: (vectors[at], payloads[at]) for at, each in enumerate(ids)})


def remove(collection: Collection, model: Model, ids: list[PointId]) -> None:
    collection.delete(ids)
    for each in ids:
        model.pop(each, None)


def require_equal(collection: Collection, model: Mapping[PointId, tuple[F32Array, dict[str, Any]]]) -> None:
    found = {each.id: each for each in collection.scroll(with_vectors=True)}
    assert found.keys() == model.keys()
    for each, (vector, payload) in model.items():
        assert found[each].payload == payload
        held = found[each].vector
        assert held is not None
        np.testing.assert_allclose(held, vector, rtol=1e-5, atol=1e-6)
    assert collection.count() == len(model)
    if model:
        wanted = next(iter(model))
        hits = collection.search(model[wanted][0], k=len(model), recall="exact")
        assert sorted(map(repr, hits.ids)) == sorted(map(repr, model))
        assert hits[0].id == wanted
        assert collection.get([wanted])[0].payload == model[wanted][1]


def require_told_by_segments(collection: Collection) -> None:
    """Rows and journals imply the live rows as of the last flush, so that lost metadata can be rebuilt from them."""
    assert isinstance(collection, EmbeddedCollection)
    with collection._lease() as opened:
        opened_state = opened._state
        none = np.zeros(0, np.uint64)
        histories = [
            History(
                each.segment_id,
                each.rows,
                np.arange(each.rows),
                row_hashes(each.keys.hashes, each.keys.hash_rows, each.rows) if each.rows else none,
                each.seqs if each.rows else none,
                each.keys.__getitem__,
                deletes_of(each).keys,
                deletes_of(each).seqs,
            )
            for each in (segment.reader for segment in opened_state.view.segments)
        ]
        implied = live_rows(histories, opened_state.manifest.hash_key, opened_state.manifest.flushed_seq)
        assert implied.keys() == opened_state.stored_live.keys()
        for number, rows in implied.items():
            assert rows.bitmap() == opened_state.stored_live[number].bitmap()


def ids_of(*numbers: int) -> list[PointId]:
    return [number if number % 3 else f"id-{number}" for number in numbers]


def test_a_full_compaction_leaves_one_segment_and_the_same_points(
    open_database: Open, rng: np.random.Generator
) -> None:
    database = open_database(SMALL)
    collection = database.create_collection("docs", dim=DIM)
    model: Model = {}
    for first in range(0, 600, 60):
        put(collection, model, ids_of(*range(first, first + 60)), rng)
        put(collection, model, ids_of(*range(first // 2, first // 2 + 20)), rng)
    remove(collection, model, ids_of(*range(0, 600, 7)))
    forecast = collection.compact(dry_run=True)
    report = collection.compact()
    stats = collection.stats()
    assert report.segments_before > 5
    assert report.segments_after == stats.segments == 1
    assert report.rows_dropped >= forecast.rows_dropped > 0
    assert stats.deleted_rows == 0
    assert stats.unindexed_rows == 0
    assert stats.events["rows_dropped"] == report.rows_dropped
    require_equal(collection, model)
    database.close()
    collection = open_database(SMALL).collection("docs")
    require_equal(collection, model)
    assert collection.compact().rows_dropped == 0


def test_the_background_keeps_segments_few_and_dead_rows_rare(open_database: Open, rng: np.random.Generator) -> None:
    collection = open_database(EAGER).create_collection("docs", dim=DIM)
    model: Model = {}
    for _ in range(60):
        put(collection, model, ids_of(*rng.choice(200, 40, replace=False).tolist()), rng)
    collection.flush()
    wait_until(lambda: collection.stats().deleted_rows <= 0.25 * len(model) and collection.stats().segments <= 4)
    require_equal(collection, model)
    assert collection.stats().events["compactions"] >= 1


def wait_until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    waiting = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if true():
            return
        waiting.wait(0.02)
    raise AssertionError("it did not come true")


def test_space_comes_back(open_database: Open, tmp_path: Path, rng: np.random.Generator) -> None:
    database = open_database(SMALL)
    collection = database.create_collection("docs", dim=DIM)
    model: Model = {}
    put(collection, model, ids_of(*range(3000)), rng)
    collection.flush()
    remove(collection, model, [each for at, each in enumerate(list(model)) if at % 10])
    collection.compact()
    fresh = open_database(SMALL, path=tmp_path / "fresh").create_collection("docs", dim=DIM)
    fresh.upsert(list(model), [each[0] for each in model.values()], [each[1] for each in model.values()])
    fresh.wait_indexed()
    assert collection.stats().disk_bytes <= 1.3 * fresh.stats().disk_bytes
    require_equal(collection, model)


def test_fields_that_some_points_lack_are_merged(open_database: Open, rng: np.random.Generator) -> None:
    from vecdb import CollectionSchema, Metric, VectorField

    schema = CollectionSchema((VectorField(4, Metric.L2, name="a"), VectorField(3, Metric.COSINE, name="b")))
    collection = open_database(SMALL).create_collection("docs", schema=schema)
    vectors = rng.standard_normal((60, 4)).astype(np.float32)
    others = rng.standard_normal((60, 3)).astype(np.float32)
    for first in range(0, 60, 20):
        rows = range(first, first + 20)
        collection.upsert(
            list(rows),
            {
                "a": [vectors[row] if row % 2 or first == 40 else None for row in rows],
                "b": [None if row % 5 == 0 else others[row] for row in rows],
            },
        )
        collection.flush()
    collection.delete(list(range(0, 60, 4)))
    collection.compact()
    assert collection.stats().segments == 1
    for row in range(60):
        found = collection.get([row], with_vectors=True)
        assert len(found) == (row % 4 != 0)
        if found:
            assert ("a" in found[0].vectors) == (row % 2 == 1 or row >= 40)
            assert ("b" in found[0].vectors) == (row % 5 != 0)
            for name, values in (("a", vectors), ("b", others)):
                if name in found[0].vectors:
                    np.testing.assert_allclose(found[0].vectors[name], values[row], rtol=1e-5)
                    hits = collection.search(values[row], k=1, field=name, recall="exact")
                    assert hits.ids == [row]


class Interleaved(FileSystem):
    """Does what it is told to while a merge runs: at each file that the merge makes."""

    def __init__(self) -> None:
        self.actions: deque[Callable[[], object]] = deque()
        self._acting = False

    def create(self, path: Path) -> int:
        merging = threading.current_thread().name.startswith("vecdb-compact") and path.name[0].isdigit()
        if merging and self.actions and not self._acting:
            self._acting = True
            self.actions.popleft()()
            self._acting = False
        return super().create(path)


numbers = st.lists(st.integers(0, 39), min_size=1, max_size=12, unique=True)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), numbers),
        st.tuples(st.just("remove"), numbers),
        st.tuples(st.just("flush"), st.just([])),
        st.tuples(st.just("crash"), st.just([])),
    ),
    max_size=8,
)


@settings(max_examples=settings().max_examples // 2)
@given(before=st.lists(steps, min_size=2, max_size=4), during=steps, seed=st.integers(0, 99))
def test_writes_during_a_merge_are_not_lost(
    before: list[list[tuple[str, list[int]]]], during: list[tuple[str, list[int]]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as where:
        file_system = Interleaved()
        database = EmbeddedDatabase.open(Path(where, "db"), options=SMALL, kernels=KERNELS, file_system=file_system)
        collection = database.create_collection("docs", dim=DIM)
        model: Model = {}
        crashed: list[tuple[Path, Model]] = []

        def crash() -> None:
            copy = Path(where, f"copy{len(crashed)}")
            shutil.copytree(Path(where, "db"), copy)
            crashed.append((copy, dict(model)))

        def do(step: str, at: list[int]) -> None:
            if step == "put":
                put(collection, model, ids_of(*at), rng)
            elif step == "remove":
                remove(collection, model, ids_of(*at))
            elif step == "flush":
                # The merge waits for nothing that a flush holds, except in its last step.
                collection.flush()
            else:
                crash()

        for batch in before:
            for step in batch:
                do(*step)
            collection.flush()
        file_system.actions.extend([lambda step=step: do(*step) for step in during])  # type: ignore[misc]
        collection.compact()
        require_equal(collection, model)
        require_told_by_segments(collection)
        crash()
        collection.compact()
        require_equal(collection, model)
        database.close()
        for copy, expected in [*crashed, (Path(where, "db"), model)]:
            with EmbeddedDatabase.open(copy, options=SMALL, kernels=KERNELS) as again:
                require_equal(again.collection("docs"), expected)
                require_told_by_segments(again.collection("docs"))
                assert again.collection("docs").stats().segments <= 20


def test_a_search_that_began_before_the_swap_reads_the_old_segments(
    open_database: Open, rng: np.random.Generator
) -> None:
    collection = open_database(SMALL).create_collection("docs", dim=DIM)
    model: Model = {}
    for first in range(0, 300, 50):
        put(collection, model, ids_of(*range(first, first + 50)), rng)
    collection.flush()
    wanted = next(iter(model))
    hits = collection.search(model[wanted][0], k=5, with_vectors=True)
    collection.compact()
    np.testing.assert_allclose(hits[0].vectors[""], model[wanted][0], rtol=1e-5)
    assert hits[0].payload == model[wanted][1]


def test_files_of_merged_segments_go_once_nobody_reads_them(open_database: Open, rng: np.random.Generator) -> None:
    collection = open_database(SMALL).create_collection("docs", dim=DIM)
    model: Model = {}
    for first in range(0, 300, 50):
        put(collection, model, ids_of(*range(first, first + 50)), rng)
        collection.flush()
    assert isinstance(collection, EmbeddedCollection)
    with collection._lease() as opened:
        view = opened._state.view
    remove(collection, model, list(model)[:100])
    collection.compact()
    with pytest.raises(DeadlineExceeded, match="are still read"):
        collection.purge(timeout_s=0.5)
    held = collection.stats().disk_bytes
    del view
    collection.purge()
    assert collection.stats().disk_bytes < held
    require_equal(collection, model)


def test_purged_bytes_are_in_no_file(open_database: Open, tmp_path: Path, rng: np.random.Generator) -> None:
    database = open_database(SMALL)
    collection = database.create_collection("docs", dim=DIM)
    secret = "a-secret-that-must-go"
    model: Model = {}
    put(collection, model, ids_of(*range(100)), rng)
    collection.upsert([f"{secret}-id"], rng.standard_normal((1, DIM)), [{"text": secret}])
    collection.upsert([1000], rng.standard_normal((1, DIM)), [{"text": secret}])
    collection.flush()
    put(collection, model, [1000], rng)
    collection.delete([f"{secret}-id"])
    assert holding(tmp_path, secret)
    collection.purge()
    assert holding(tmp_path, secret) == []
    require_equal(collection, model)
    put(collection, model, [1001], rng)
    collection.upsert([1002], rng.standard_normal((1, DIM)), [{"text": secret}])
    collection.create_snapshot("kept")
    collection.delete([1002])
    with pytest.raises(FailedPrecondition, match="'kept'"):
        collection.purge()
    collection.drop_snapshot("kept")
    collection.purge()
    assert holding(tmp_path, secret) == []
    require_equal(collection, model)


def holding(root: Path, text: str) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_a_damaged_segment_is_left_alone(open_database: Open, tmp_path: Path, rng: np.random.Generator) -> None:
    database = open_database(SMALL)
    collection = database.create_collection("docs", dim=DIM)
    model: Model = {}
    for first in range(0, 100, 50):
        put(collection, model, ids_of(*range(first, first + 50)), rng)
        collection.flush()
    collection.wait_indexed()
    database.close()
    damaged = next(tmp_path.rglob("*.payload.0"))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    before = {path: path.read_bytes() for path in damaged.parent.glob("*.*.*")}
    collection = open_database(SMALL).collection("docs")
    with pytest.raises(Corruption, match="payload"):
        collection.compact()
    assert {path: path.read_bytes() for path in damaged.parent.glob("*.*.*")} == before
    assert collection.count() == len(model)


def test_closing_ends_a_merge_and_leaves_nothing(open_database: Open, tmp_path: Path, rng: np.random.Generator) -> None:
    file_system = Interleaved()
    database = open_database(EAGER, file_system=file_system)
    collection = database.create_collection("docs", dim=DIM)
    model: Model = {}
    reached, closing = threading.Event(), threading.Event()

    def wait() -> None:
        reached.set()
        assert closing.wait(20)

    file_system.actions.append(wait)
    for first in range(0, 200, 40):
        put(collection, model, ids_of(*range(first, first + 40)), rng)
    collection.flush()
    assert reached.wait(20)
    closer = threading.Thread(target=database.close)
    closer.start()
    closing.set()
    closer.join(20)
    assert not closer.is_alive()
    collection = open_database(SMALL).collection("docs")
    require_equal(collection, model)


def test_a_snapshot_outlives_compaction_and_reopening(open_database: Open, rng: np.random.Generator) -> None:
    database = open_database(SMALL)
    collection = database.create_collection("docs", dim=DIM)
    model: Model = {}
    put(collection, model, ids_of(*range(200)), rng)
    kept = dict(model)
    collection.create_snapshot("kept")
    remove(collection, model, list(model)[::2])
    put(collection, model, ids_of(*range(300, 350)), rng)
    collection.compact()
    database.close()
    database = open_database(SMALL)
    collection = database.collection("docs")
    require_equal(collection, model)
    assert {each.id for each in collection.scroll(at="kept")} == kept.keys()
    wanted = next(iter(kept))
    hits = collection.search(kept[wanted][0], k=500, recall="exact", at="kept")
    assert len(hits) == 200
    assert hits[0].id == wanted
    large = collection.stats().disk_bytes
    collection.drop_snapshot("kept")
    del hits
    assert collection.stats().disk_bytes < large
    require_equal(collection, model)


def test_a_segment_without_rows_among_the_others(open_database: Open, rng: np.random.Generator) -> None:
    collection = open_database(SMALL).create_collection("docs", dim=DIM)
    model: Model = {}
    put(collection, model, ids_of(*range(60)), rng)
    collection.flush()
    for each in ids_of(1, 2, 3):
        remove(collection, model, [each])
        collection.flush()
    collection.purge()
    require_equal(collection, model)
    require_told_by_segments(collection)
    assert "file_damaged" not in collection.stats().events


@pytest.mark.parametrize("verb", ["flush", "compact"])
def test_what_fails_after_a_commit_does_not_undo_it(
    open_database: Open, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    database = open_database(SMALL)
    collection = database.create_collection("docs", dim=DIM)
    model: Model = {}
    for first in range(0, 60, 20):
        put(collection, model, ids_of(*range(first, first + 20)), rng)
        if verb == "compact":
            collection.flush()
    real = state.write_mirror
    failures = [MemoryError()]

    def failing(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        real(*arguments)

    monkeypatch.setattr(state, "write_mirror", failing)
    getattr(collection, verb)()
    assert not failures
    assert collection.stats().events["mirror_not_written"] == 1
    require_equal(collection, model)
    put(collection, model, ids_of(100), rng)
    database.close()
    require_equal(open_database(SMALL).collection("docs"), model)


def test_an_interrupt_amid_a_commit_stops_the_writer_and_loses_nothing(
    open_database: Open, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_database(SMALL)
    collection = database.create_collection("docs", dim=DIM)
    model: Model = {}
    for first in range(0, 60, 20):
        put(collection, model, ids_of(*range(first, first + 20)), rng)
        collection.flush()

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(state, "write_mirror", interrupted)
        with pytest.raises(Unavailable, match="interrupted by KeyboardInterrupt"):
            collection.compact()
    with pytest.raises(Unavailable):
        collection.upsert([1], rng.standard_normal((1, DIM)))
    require_equal(collection, model)
    database.close()
    collection = open_database(SMALL).collection("docs")
    require_equal(collection, model)
    put(collection, model, ids_of(1, 100), rng)
    require_equal(collection, model)


def test_a_log_that_was_interrupted_takes_no_more(
    open_database: Open, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_database(SMALL)
    collection = database.create_collection("docs", dim=DIM)
    model: Model = {}
    put(collection, model, ids_of(*range(20)), rng)

    def interrupted(_: LogFile) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LogFile, "release_tail", interrupted)
        with pytest.raises(KeyboardInterrupt):
            collection.flush()
    with pytest.raises(Unavailable):
        collection.upsert([1], rng.standard_normal((1, DIM)))
    require_equal(collection, model)
    database.close()
    require_equal(open_database(SMALL).collection("docs"), model)


def test_a_snapshot_taken_after_reopening_does_not_take_the_place_of_another(
    open_database: Open, rng: np.random.Generator
) -> None:
    database = open_database(SMALL)
    collection = database.create_collection("docs", dim=DIM)
    model: Model = {}
    put(collection, model, ids_of(*range(20)), rng)
    collection.create_snapshot("one")
    database.close()
    collection = open_database(SMALL).collection("docs")
    collection.create_snapshot("two")
    assert collection.count(at="one") == collection.count(at="two") == 20


def test_a_flush_returns_though_writes_go_on(open_database: Open, rng: np.random.Generator) -> None:
    collection = open_database(SMALL).create_collection("docs", dim=DIM)
    stop = threading.Event()

    def write(first: int) -> None:
        vectors = np.random.default_rng(first).standard_normal((40, DIM))
        while not stop.is_set():
            collection.upsert(range(first, first + 40), vectors)

    threads = [threading.Thread(target=write, args=(1_000 * number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            before = collection.stats().last_seq
            collection.flush()
            assert collection.stats().flushed_seq >= before
        collection.compact()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
