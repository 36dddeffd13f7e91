"""Threads against each other: what a reader sees is always one whole state, whatever writes, flushes or is dropped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tests.crash.observe import ranking_differences
from tests.property.freezing import FreezableFileSystem
from tests.walking import WALKS
from vecdb.api import Collection
from vecdb.engine.database import EmbeddedDatabase, choose_kernels
from vecdb.engine.options import EngineOptions
from vecdb.errors import InvalidArgument, NotFound
from vecdb.results.hits import Hits
from vecdb.results.write import WriteResult
from vecdb.schema import IndexSpec
from vecdb.types import F32Array, Metric, PointId

DIM = 6
IDS: list[PointId] = [*range(20), *(f"text {number}" for number in range(20))]
SECONDS = 4.0
STUCK_S = 90.0
KERNELS = choose_kernels("reference")
SMALL = EngineOptions(
    memtable_size_bytes=110 * (250 + 4 * DIM),
    graph_rows_min=20,
    search_costs=WALKS,
    log_file_bytes_first=16_384,
    kernels="reference",
)


def opened(path: Path, options: EngineOptions = SMALL) -> EmbeddedDatabase:
    return EmbeddedDatabase.open(path, options=options, kernels=KERNELS, file_system=FreezableFileSystem())


def vectors_of(writer: int, turn: int, count: int = len(IDS)) -> F32Array:
    return np.random.default_rng([writer, turn]).standard_normal((count, DIM)).astype(np.float32)


def together(runs: Sequence[Callable[[], None]]) -> None:
    """Run each in a thread of its own; raise what the first one raised, or that one is stuck."""
    failures: list[BaseException] = []

    def one(run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=(run,), daemon=True) for run in runs]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + STUCK_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if failures:
        raise failures[0]
    assert not any(thread.is_alive() for thread in threads), "a thread is stuck"


def check_whole(hits: Hits, query: F32Array, k: int, *, exact: bool) -> None:
    """The ranking is over one batch of one writer, and right for it."""
    found = list(hits)
    assert len(found) == min(k, len(IDS)), (len(found), hits.strategy)
    assert len({hit.payload["writer"] for hit in found if hit.payload}) == 1, "rows of two writers in one view"
    assert len({hit.payload["turn"] for hit in found if hit.payload}) == 1, "rows of two batches in one view"
    payload = found[0].payload
    assert payload is not None
    vectors = vectors_of(payload["writer"], payload["turn"])
    allowed = dict(zip(IDS, vectors, strict=True))
    wrong = ranking_differences(hits.ids, hits.distances.tolist(), allowed, query, Metric.COSINE, k, exact=exact)
    assert not wrong, wrong


def test_two_upserters_of_the_same_ids_and_readers_between(tmp_path: Path) -> None:
    end = time.monotonic() + SECONDS
    turns = [0, 0]
    with opened(tmp_path / "db") as database:
        collection = database.create_collection("docs", dim=DIM, index=IndexSpec(m=4, ef_construction=12))
        collection.upsert(IDS, vectors_of(0, 0), [{"writer": 0, "turn": 0} for _ in IDS])

        def write(writer: int) -> None:
            while time.monotonic() < end:
                turns[writer] += 1
                payloads = [{"writer": writer, "turn": turns[writer]} for _ in IDS]
                collection.upsert(IDS, vectors_of(writer, turns[writer]), payloads)

        def search(recall: float | str, k: int) -> None:
            chance = np.random.default_rng(k)
            while time.monotonic() < end:
                query = chance.standard_normal(DIM).astype(np.float32)
                hits = collection.search(query, k, recall=recall)  # type: ignore[arg-type]
                check_whole(hits, query, k, exact=recall == "exact")

        def read() -> None:
            while time.monotonic() < end:
                points = collection.get(IDS)
                assert [each.id for each in points] == IDS
                assert len({str(each.payload) for each in points}) == 1
                page = collection.scroll_page(1_000)
                assert {each.id for each in page.points} == set(IDS)
                assert len(page.points) == len(IDS)
                assert len({str(each.payload) for each in page.points}) == 1
                assert collection.count() == len(IDS)
                assert 0 <= collection.count("turn >= 0 AND writer < 2") <= len(IDS)

        def maintain() -> None:
            while time.monotonic() < end:
                collection.flush()
                collection.wait_indexed(60)
                time.sleep(0.02)

        runs = [
            lambda: write(0),
            lambda: write(1),
            lambda: search("exact", 100),
            lambda: search(0.95, 7),
            read,
            maintain,
        ]
        together(runs)
        assert min(turns) > 10
        last = collection.get(IDS)[0].payload
    with opened(tmp_path / "db") as database:
        points = database.collection("docs").get(IDS, with_vectors=True)
        assert [each.payload for each in points] == [last] * len(IDS)
        assert last is not None
        wanted = vectors_of(last["writer"], last["turn"])
        np.testing.assert_allclose([each.vector for each in points], wanted, rtol=1e-5)


def test_what_a_reader_holds_does_not_change(tmp_path: Path) -> None:
    with opened(tmp_path / "db") as database:
        collection = database.create_collection("docs", dim=DIM, index=IndexSpec(m=4, ef_construction=12))
        query = vectors_of(9, 9, 1)[0]
        held: list[tuple[int, Hits]] = []
        for turn in range(12):
            collection.upsert(IDS, vectors_of(0, turn), [{"writer": 0, "turn": turn} for _ in IDS])
            held.append((turn, collection.search(query, 100, recall="exact", with_vectors=True)))
            if turn % 3 == 1:
                collection.flush()
            if turn % 4 == 2:
                collection.wait_indexed(60)
        collection.delete(IDS)
        collection.flush()
        for turn, hits in held:
            check_whole(hits, query, 100, exact=True)
            assert hits[0].payload == {"writer": 0, "turn": turn}
            at = IDS.index(hits.ids[0])
            np.testing.assert_allclose(hits[0].vectors[""], vectors_of(0, turn)[at], rtol=1e-5)


def test_a_collection_dropped_during_searches_is_not_found_and_nothing_else(tmp_path: Path) -> None:
    with opened(tmp_path / "db") as database:
        for turn in range(8):
            collection = database.create_collection("docs", dim=DIM, index=IndexSpec(m=4, ef_construction=12))
            collection.upsert(IDS, vectors_of(0, turn), [{"writer": 0, "turn": turn} for _ in IDS])
            if turn % 2:
                collection.wait_indexed(60)
            searched = threading.Barrier(4)

            def use(collection: Collection = collection, searched: threading.Barrier = searched) -> None:
                query = vectors_of(8, 8, 1)[0]
                check_whole(collection.search(query, 100, recall="exact"), query, 100, exact=True)
                searched.wait(STUCK_S)
                try:
                    for number in range(100_000):
                        check_whole(collection.search(query, 100, recall="exact"), query, 100, exact=True)
                        if number % 3 == 0:
                            assert collection.count() == len(IDS)
                except NotFound:
                    return
                raise AssertionError("the dropped collection went on answering")

            def drop(searched: threading.Barrier = searched) -> None:
                searched.wait(STUCK_S)
                time.sleep(0.01)
                database.drop_collection("docs")

            together([use, use, use, drop])
            assert database.collections() == []
            assert [each.name for each in (tmp_path / "db" / "collections").iterdir()] == []


def test_writers_that_wait_for_flushes_of_other_collections_do_not_wait_for_ever(tmp_path: Path) -> None:
    options = EngineOptions(
        memtable_size_bytes=16 * (250 + 4 * DIM), memtables_waiting_max=1, writer_threads=1, kernels="reference"
    )
    database = opened(tmp_path / "db", options)
    collections = [database.create_collection(f"docs {number}", dim=DIM, index="flat") for number in range(4)]

    def fill(number: int) -> None:
        for turn in range(25):
            ids = range(turn * 10, turn * 10 + 10)
            collections[number].upsert(ids, vectors_of(number, turn, 10))

    together([lambda number=number: fill(number) for number in range(4)])  # type: ignore[misc]
    assert [each.count() for each in collections] == [250] * 4
    database.close()


def test_collections_closed_for_others_while_they_are_flushed_lose_nothing(tmp_path: Path) -> None:
    options = EngineOptions(
        memtable_size_bytes=16 * (250 + 4 * DIM), open_collections_max=1, graph_rows_min=10, kernels="reference"
    )
    for attempt in range(3):
        with opened(tmp_path / "db", options) as database:
            collections = [
                database.create_collection(
                    f"docs {number}", dim=DIM, index=IndexSpec(m=4, ef_construction=8), exist_ok=True
                )
                for number in range(3)
            ]
            for turn in range(20):
                for number, collection in enumerate(collections):
                    ids = range(turn * 5, turn * 5 + 9)
                    payloads = [{"attempt": attempt, "turn": turn} for _ in ids]
                    collection.upsert(ids, vectors_of(number, turn, 9), payloads)
            for number, collection in enumerate(collections):
                points = {each.id: each for each in collection.scroll(with_vectors=True)}
                assert points.keys() == set(range(104))
                for each, point in points.items():
                    turn = min(int(each) // 5, 19)
                    assert point.payload == {"attempt": attempt, "turn": turn}
                    wanted = vectors_of(number, turn, 9)[int(each) - turn * 5]
                    np.testing.assert_allclose(point.vectors[""], wanted, rtol=1e-5, atol=1e-6)


class SlowFileSystem(FreezableFileSystem):
    """Syncs take a while, so that waiting writes form groups."""

    def fdatasync(self, fd: int) -> None:
        time.sleep(0.01)


def test_a_request_id_names_one_request_also_among_those_that_arrive_together(tmp_path: Path) -> None:
    with EmbeddedDatabase.open(
        tmp_path / "db", options=SMALL, kernels=KERNELS, file_system=SlowFileSystem()
    ) as database:
        collection = database.create_collection("docs", dim=DIM, index="flat")
        for turn in range(10):
            told: list[object] = []
            start = threading.Barrier(8)

            def write(
                writer: int, turn: int = turn, told: list[object] = told, start: threading.Barrier = start
            ) -> None:
                start.wait(STUCK_S)
                # Two contents, four attempts at each.
                content = writer % 2
                try:
                    told.append(
                        (content, collection.upsert([turn], vectors_of(content, turn, 1), request_id=f"{turn}"))
                    )
                except InvalidArgument as error:
                    told.append((content, error))

            together([lambda writer=writer: write(writer) for writer in range(8)])  # type: ignore[misc]
            results = [(content, result) for content, result in told if isinstance(result, WriteResult)]  # type: ignore[misc]
            assert len(results) == 4
            assert len({(content, result.seq) for content, result in results}) == 1
            (point,) = collection.get([turn], with_vectors=True)
            np.testing.assert_allclose(point.vectors[""], vectors_of(results[0][0], turn, 1)[0], rtol=1e-5)
        assert collection.stats().last_seq == 10


def test_a_segment_flushed_when_a_build_ends_is_indexed_too(tmp_path: Path) -> None:
    options = EngineOptions(
        memtable_size_bytes=8 * (250 + 4 * DIM), graph_rows_min=3, search_costs=WALKS, kernels="reference"
    )
    with opened(tmp_path / "db", options) as database:
        collection = database.create_collection("docs", dim=DIM, index=IndexSpec(m=3, ef_construction=4))
        for turn in range(120):
            collection.upsert(range(turn * 4, turn * 4 + 4), vectors_of(0, turn, 4))
            if turn % 2:
                collection.wait_indexed(STUCK_S / 2)
                assert collection.stats().unindexed_rows == 0
        assert collection.count() == 480
