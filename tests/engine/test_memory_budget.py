"""The memory budget: it is kept, in the order that is told, and changes no answer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.budgeted import queries
from tests.engine.conftest import DIM, SMALL
from vecdb.bitmap import Bitmap
from vecdb.engine import memory_budget
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.options import EngineOptions
from vecdb.engine.reading import ReadOnlyDatabase
from vecdb.errors import Corruption, FailedPrecondition, InvalidArgument
from vecdb.kernels.cpu import CpuKernels
from vecdb.segment.layout import Role
from vecdb.segment.reader import SegmentReader
from vecdb.segment.windows import windowed
from vecdb.storage.array_file import ArrayFile, write_array_file
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem
from vecdb.types import Metric, TopK

MIB = 2**20
FOLIO_BYTES = 2 * MIB
"""One page that is used brings at most so much of its surroundings along."""


class Pretending(FileSystem):
    """Has in memory of each mapping what the test says, and notes what is given back.

    Attributes
    ----------
    mapped
        Bytes by address.
    held
        Addresses of mappings that the system does not give back.
    """

    def __init__(self) -> None:
        self.mapped: dict[int, int] = {}
        self.held: set[int] = set()
        self.others = 50 * MIB

    def mapped_bytes(self, fd: int) -> int:
        del fd
        return self.others + sum(self.mapped.values())

    def mapped_bytes_by_address(self) -> dict[int, int]:
        return {1: self.others, **self.mapped}

    def release(self, mapping: memoryview) -> None:
        super().release(mapping)
        address = np.frombuffer(mapping, np.uint8).ctypes.data
        if address not in self.held:
            self.mapped.pop(address, None)


def readers_of(database: EmbeddedDatabase) -> list[SegmentReader]:
    collection = database.collection("c")
    with database._lease("c", collection.collection_id) as opened:
        return [each.reader for each in opened._state.view.segments]


def filled(database: Any, vectors: np.ndarray) -> Any:
    """A collection of two segments with graphs, in which everything was used."""
    collection = database.create_collection("c", DIM)
    for start in (0, 300):
        rows = vectors[start : start + 300]
        collection.upsert(range(start, start + 300), rows, [{"part": n % 3} for n in range(300)])
        collection.flush()
    collection.wait_indexed()
    answers(collection, vectors)
    return collection


def answers(collection: Any, vectors: np.ndarray) -> list[Any]:
    found = []
    for recall in ("exact", 0.9):
        for where in (None, "part = 1"):
            hits = collection.search(vectors[700], k=20, recall=recall, where=where, with_vectors=True)
            found.append((hits.ids, hits.scores.tolist(), [each.payload for each in hits], [*map(vector, hits)]))
    return found


def vector(hit: Any) -> list[float]:
    return [float(each) for each in hit.vectors[""]]


BUDGETED = replace(SMALL, memtable_size_bytes=MIB, memory_budget_bytes=12 * MIB, recall_checked_share=0.0)


@pytest.fixture
def pretending(open_database, vectors, monkeypatch) -> Iterator[tuple[Pretending, EmbeddedDatabase]]:
    """A database with 4 MiB of vectors and half a MiB of other files in memory; the first segment was searched earlier.

    Nothing is given back but when the test says so.
    """
    monkeypatch.setattr(memory_budget, "_TICK_S", 3600.0)
    fs = Pretending()
    database = open_database(BUDGETED, fs)
    filled(database, vectors)
    for number, reader in enumerate(readers_of(database)):
        reader.searched_s = 1.0 + number
        for each in reader.entry.files:
            # Whatever has read it by now, or will.
            reader.files.array_file(each.role, each.field)
        for role, file in reader.files.mapped():
            fs.mapped[file.address] = 4 * MIB if role is Role.VECTORS else MIB // 2
    return fs, database


def left(fs: Pretending, reader: SegmentReader) -> set[Role]:
    return {role for role, file in reader.files.mapped() if file.address in fs.mapped}


def settle(database: EmbeddedDatabase) -> None:
    database._resources.budget._measured_s = -10.0
    database._resources.budget.settle()


def test_within_the_budget_nothing_is_given_back(pretending):
    fs, database = pretending
    fs.mapped = dict.fromkeys(fs.mapped, MIB // 2)
    fs.others = 500 * MIB
    before = dict(fs.mapped)
    settle(database)
    assert fs.mapped == before
    memory = database.collection("c").stats().memory
    assert memory.releases == 0
    assert memory.budget_bytes == 12 * MIB
    assert memory.mapped_bytes == sum(before.values())
    assert memory.derived_bytes > 0


def test_vectors_and_payloads_go_first_of_what_was_not_searched_for_longest(pretending):
    fs, database = pretending
    older, newer = readers_of(database)
    everything = left(fs, newer)
    assert sum(fs.mapped.values()) > 12 * MIB
    settle(database)
    assert not left(fs, older) & {Role.VECTORS, Role.PAYLOAD}
    assert {Role.CODES, Role.GRAPH, Role.IDS} <= left(fs, older)
    assert left(fs, newer) == everything
    stats = database.collection("c").stats()
    assert stats.events["memory_released_vectors"] == 1
    assert stats.memory.releases == 1
    assert "memory_released_filters" not in stats.events


def test_filters_go_next_and_then_codes_and_graphs_of_what_was_not_searched_for_longest(pretending, vectors):
    fs, database = pretending
    older, newer = readers_of(database)
    for reader in (older, newer):
        for role, file in reader.files.mapped():
            fs.mapped[file.address] = 4 * MIB if role is Role.CODES else 2 * MIB
    before = database.collection("c").stats().memory
    settle(database)
    stats = database.collection("c").stats()
    assert stats.events["memory_released_filters"] == 4  # A column and a bitmap of each segment.
    assert stats.memory.derived_bytes < before.derived_bytes
    assert left(fs, older) == set()
    assert {Role.CODES, Role.GRAPH, Role.IDS} <= left(fs, newer)
    assert stats.events["memory_released_graphs"] == 1
    assert stats.memory.mapped_bytes <= 12 * MIB
    assert "memory_released_sketches" not in stats.events


def test_what_cannot_be_kept_is_told_once_and_changes_no_answer(pretending, vectors, caplog):
    fs, database = pretending
    collection = database.collection("c")
    expected = answers(collection, vectors)
    older, _ = readers_of(database)
    held = next(file.address for role, file in older.files.mapped() if role is Role.CODES)
    fs.held.add(held)
    fs.mapped[held] = 13 * MIB
    for _ in range(3):
        settle(database)
    events = collection.stats().events
    assert events["memory_released_sketches"] == 2
    assert events["memory_budget_exceeded"] == 1
    assert all(not field.has_open_graph for reader in readers_of(database) for field in reader._fields.values())
    assert answers(collection, vectors) == expected
    assert len([each for each in caplog.records if each.getMessage().startswith("memory_budget_exceeded")]) == 1


def test_a_system_that_does_not_tell_is_refused_by_name(tmp_path):
    class Silent(FileSystem):
        def mapped_bytes_by_address(self) -> dict[int, int]:
            raise FileNotFoundError(2, "No such file or directory")

    with pytest.raises(FailedPrecondition) as caught:
        EmbeddedDatabase.open(tmp_path / "db", options=BUDGETED, file_system=Silent())
    assert caught.value.field == "memory_budget_bytes"
    with EmbeddedDatabase.open(tmp_path / "db", options=SMALL, file_system=Silent()) as database:
        assert database.create_collection("c", DIM).stats().memory.mapped_bytes == 0


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"memory_budget_bytes": 0}, "memory_budget_bytes"),
        ({"memory_budget_bytes": MIB - 1}, "memory_budget_bytes"),
        ({"memory_budget_bytes": 2**60}, "memory_budget_bytes"),
        ({"memory_size_bytes_max": 0}, "memory_size_bytes_max"),
        ({"memory_budget_bytes": 2 * MIB, "memory_size_bytes_max": 3 * MIB}, "memory_size_bytes_max"),
    ],
)
def test_a_wrong_budget_is_refused_by_name(options, field):
    with pytest.raises(InvalidArgument) as caught:
        EngineOptions(**options)
    assert caught.value.field == field


def test_rows_in_memory_are_a_part_of_the_budget(tmp_path, vectors):
    assert EngineOptions().rows_bytes_max == 2 * 2**30
    assert EngineOptions(memory_budget_bytes=2**40).rows_bytes_max == 2 * 2**30
    assert EngineOptions(memory_budget_bytes=10 * MIB).rows_bytes_max == 5 * MIB
    assert EngineOptions(memory_budget_bytes=10 * MIB, memory_size_bytes_max=MIB).rows_bytes_max == MIB
    with EmbeddedDatabase.open(tmp_path / "db", options=BUDGETED) as database:
        collection = database.create_collection("c", DIM)
        before = collection.stats().memory.rows_bytes
        collection.upsert(range(500), vectors[:500])
        assert collection.stats().memory.rows_bytes >= before + 500 * 4 * DIM


class Narrow:
    """Room for a few rows at a time."""

    fits = False
    window_bytes = 7 * 4 * 16

    def settle(self) -> None:
        pass

    def note_built(self) -> None:
        pass


@pytest.mark.parametrize("metric", [*Metric])
def test_vectors_read_in_windows_give_the_same_bits(tmp_path, rng, metric):
    rows = rng.standard_normal((300, 16)).astype(np.float32)
    rows[100:200] = rows[:100]  # Ties, across windows.
    directory = MmapDirectory.open(tmp_path / "d", FileSystem(), create=True)
    ref = write_array_file(directory, "vectors", "vectors", {"vectors": rows, "norms": rows[:, 0].copy()})
    file = ArrayFile.open(directory, ref)
    mapped = file.arrays["vectors"]
    asked = rng.standard_normal((5, 16)).astype(np.float32)
    plain, narrow = CpuKernels(), windowed(CpuKernels(), file, Narrow())
    candidates = np.stack([rng.permutation(300)[:40] for _ in asked]).astype(np.int32)
    candidates[:, 30:] = -1
    candidates[1] = -1
    for allowed in (None, rng.random(300) < 0.3, np.zeros(300, np.bool_)):
        words = None if allowed is None else Bitmap.from_bools(allowed).words
        for k in (1, 10, 400):
            same(narrow.scan_topk(mapped, asked, metric, k, words), plain.scan_topk(mapped, asked, metric, k, words))
    same(narrow.rerank(mapped, asked, candidates, metric, 10), plain.rerank(mapped, asked, candidates, metric, 10))
    # What has no name any more is still read.
    directory.unlink("vectors")
    same(narrow.scan_topk(mapped, asked, metric, 5), plain.scan_topk(mapped, asked, metric, 5))


def same(found: TopK, expected: TopK) -> None:
    np.testing.assert_array_equal(found.slots, expected.slots)
    np.testing.assert_array_equal(found.distances, expected.distances)


def test_a_vector_that_cannot_be_read_is_corruption_and_not_a_wrong_answer(tmp_path, rng):
    directory = MmapDirectory.open(tmp_path / "d", FileSystem(), create=True)
    rows = rng.standard_normal((300, 16)).astype(np.float32)
    file = ArrayFile.open(directory, write_array_file(directory, "vectors", "vectors", {"vectors": rows}))
    with (tmp_path / "d" / "vectors").open("r+b") as damaged:
        damaged.truncate(8192)
    with pytest.raises(Corruption, match="vectors"):
        windowed(CpuKernels(), file, Narrow()).scan_topk(file.arrays["vectors"], rows[:1], Metric.L2, 3)


def measured(path: Path, budget: int, kernels: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.engine.budgeted", str(path), str(budget), kernels, f"{path}-small-{budget}"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def written(path: Path, rows: np.ndarray, options: EngineOptions) -> None:
    with EmbeddedDatabase.open(path, options=options) as database:
        collection = database.create_collection("c", rows.shape[1], "l2")
        for start in range(0, rows.shape[0], 5_000):
            ids = range(start, min(start + 5_000, rows.shape[0]))
            collection.upsert(ids, rows[ids.start : ids.stop], [{"part": n % 4} for n in ids])
        collection.wait_indexed(3_600.0)


def nearest(rows: np.ndarray, query: np.ndarray, allowed: np.ndarray) -> list[int]:
    distances = ((rows[allowed].astype(np.float64) - query) ** 2).sum(axis=1)
    return [int(each) for each in allowed[np.argsort(distances)[:10]]]


def expected(rows: np.ndarray) -> list[list[int]]:
    """What ``budgeted.everything`` is to find."""
    asked, every = queries(rows.shape[1]), np.arange(rows.shape[0])
    singly = [nearest(rows, query, every) for query in asked]
    return singly + singly + [nearest(rows, asked[0], every[every % 4 == part]) for part in range(4)]


def test_the_budget_is_kept_by_a_process_whose_files_are_several_times_as_large(tmp_path, rng):
    rows = rng.standard_normal((14_000, 128)).astype(np.float32)
    written(tmp_path / "db", rows, EngineOptions(kernels="reference", graph_rows_min=10**6))
    budget = 3 * MIB
    facts = measured(tmp_path / "db", budget, "reference")
    assert facts["found"] == expected(rows)
    assert facts["budget"] == budget
    assert facts["left_out"] >= rows.nbytes
    assert facts["mapped"] <= budget + FOLIO_BYTES, facts
    assert facts["resident"] <= budget + FOLIO_BYTES


@pytest.mark.slow
def test_a_hundred_megabytes_for_a_hundred_thousand_rows(tmp_path, rng):
    centres = rng.standard_normal((1_000, 384)).astype(np.float32)
    noise = rng.standard_normal((100_000, 384)).astype(np.float32)
    rows = (centres[rng.integers(0, 1_000, 100_000)] + np.float32(0.6) * noise).astype(np.float32)
    written(tmp_path / "db", rows, EngineOptions())
    budget = 100_000_000
    facts = measured(tmp_path / "db", budget, "cpu")
    assert facts["found"] == expected(rows)
    assert facts["mapped"] <= budget + FOLIO_BYTES, facts
    # What calls hold while they run and what the interpreter keeps of it is no part of the budget.
    assert facts["both"] <= budget + 32 * MIB, facts
    free = measured(tmp_path / "db", 0, "cpu")
    assert free["mapped"] > 2 * budget


def test_a_reader_keeps_to_a_budget_of_its_own(tmp_path, vectors):
    with EmbeddedDatabase.open(tmp_path / "db", options=SMALL) as database:
        wanted = answers(filled(database, vectors), vectors)
    with ReadOnlyDatabase.open(tmp_path / "db", options=replace(SMALL, memory_budget_bytes=MIB)) as reader:
        collection = reader.collection("c")
        assert answers(collection, vectors) == wanted
        assert collection.stats().memory.budget_bytes == MIB
