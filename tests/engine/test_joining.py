"""Segments that wait for a graph join one that has one, so that a search walks through one graph and not several."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.engine.conftest import SMALL
from vecdb.api import Collection
from vecdb.engine import merger
from vecdb.engine.check import check_database
from vecdb.engine.collection import EmbeddedCollection
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.options import EngineOptions
from vecdb.segment.layout import Role
from vecdb.storage.io import DiskFull

DIM = 12
JOINING = replace(SMALL, memtable_size_bytes=2**30, graph_rows_min=40, compaction=True, compaction_fanout=4)


class Filling:
    """A collection that is filled segment by segment."""

    def __init__(self, path: Path, options: EngineOptions, dim: int = DIM) -> None:
        self.path = path
        self.dim = dim
        self.database = EmbeddedDatabase.open(path, options=options)
        self.docs: EmbeddedCollection = self.database.create_collection("c", dim, "l2")
        self.rng = np.random.default_rng(4)
        self.rows = 0

    def flush(self, size: int) -> None:
        vectors = self.rng.standard_normal((size, self.dim)).astype(np.float32)
        self.docs.upsert(range(self.rows, self.rows + size), vectors)
        self.docs.flush()
        self.rows += size

    def segments(self) -> list[int]:
        """Rows of each."""
        with self.docs._lease() as opened:
            return [each.reader.rows for each in opened._state.view.segments]

    def require_sound(self) -> None:
        """Every row is found, and what is on the disk is right."""
        require_exact(self.docs, self.rng, self.dim)
        assert self.docs.count() == self.rows
        self.database.close()
        report = check_database(self.path)
        assert report.ok, report.problems


def require_exact(docs: Collection, rng: np.random.Generator, dim: int) -> None:
    for query in rng.standard_normal((10, dim)).astype(np.float32):
        exact = docs.search(query, k=10, recall="exact")
        assert list(docs.search(query, k=10, ef=400).ids) == list(exact.ids)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_segment_joins_one_that_is_not_much_larger(tmp_path: Path) -> None:
    filling = Filling(tmp_path / "db", JOINING)
    for size in (160, 60, 80):
        filling.flush(size)
        filling.docs.wait_indexed(60)
    assert filling.segments() == [300]
    stats = filling.docs.stats()
    assert stats.unindexed_rows == 0
    filling.require_sound()
    assert len(check_database(tmp_path / "db").graphs) == 1


def test_a_segment_gets_its_own_graph_beside_one_that_is_much_larger_or_smaller(tmp_path: Path) -> None:
    filling = Filling(tmp_path / "db", JOINING)
    for size in (50, 800, 60):
        filling.flush(size)
        filling.docs.wait_indexed(60)
    # 60 rows join the 50, not the 800.
    assert sorted(filling.segments()) == [110, 800]
    filling.require_sound()
    assert len(check_database(tmp_path / "db").graphs) == 2


def test_rows_too_few_for_a_graph_join_nothing(tmp_path: Path) -> None:
    filling = Filling(tmp_path / "db", JOINING)
    for size in (120, 39):
        filling.flush(size)
        filling.docs.wait_indexed(60)
    assert filling.segments() == [120, 39]
    filling.require_sound()


def test_without_compaction_nothing_joins(tmp_path: Path) -> None:
    filling = Filling(tmp_path / "db", replace(JOINING, compaction=False))
    for size in (120, 100):
        filling.flush(size)
        filling.docs.wait_indexed(60)
    assert filling.segments() == [120, 100]
    filling.require_sound()


def test_a_segment_that_cannot_join_gets_its_own_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filling = Filling(tmp_path / "db", JOINING)
    filling.flush(120)
    filling.docs.wait_indexed(60)

    def full(self: merger.Merger, group: object) -> int:
        raise DiskFull("no room", field="disk")

    monkeypatch.setattr(merger.Merger, "merge", full)
    filling.flush(100)
    filling.docs.wait_indexed(60)
    assert filling.segments() == [120, 100]
    assert filling.docs.stats().events["compaction_waits_for_disk"] == 1
    filling.require_sound()
    assert len(check_database(tmp_path / "db").graphs) == 2


class Lost(BaseException):
    """What nobody expects: not even an Exception."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_segment_waits_for_no_merge_that_nobody_will_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filling = Filling(tmp_path / "db", JOINING)
    filling.flush(120)
    filling.docs.wait_indexed(60)

    def lost(self: merger.Merger, group: object) -> int:
        raise Lost

    monkeypatch.setattr(merger.Merger, "merge", lost)
    filling.flush(100)
    filling.docs.wait_indexed(20)
    assert filling.segments() == [120, 100]
    filling.require_sound()


def test_what_is_flushed_during_a_merge_joins_what_it_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filling = Filling(tmp_path / "db", JOINING)
    filling.flush(120)
    filling.docs.wait_indexed(60)
    merging, go_on = threading.Event(), threading.Event()
    write_merged = merger.write_merged

    def waiting(*arguments: object) -> object:
        merging.set()
        assert go_on.wait(30)
        return write_merged(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(merger, "write_merged", waiting)
    filling.flush(100)
    assert merging.wait(30)
    filling.flush(70)
    with filling.docs._lease() as opened:
        # It would be built in milliseconds, were it not to join.
        indexer = opened._indexer
        until(lambda: indexer._work._future is None)
        assert opened._state.view.segments[-1].reader.rows == 70
        assert indexer.waiting_rows() == 170
        assert indexer._next() is None
    go_on.set()
    filling.docs.wait_indexed(60)
    assert filling.segments() == [290]
    assert filling.docs.stats().events["graphs_built"] == 1
    filling.require_sound()


def test_deletes_that_are_not_flushed_leave_no_segment_waiting(tmp_path: Path) -> None:
    filling = Filling(tmp_path / "db", JOINING)
    filling.flush(404)
    filling.docs.wait_indexed(60)
    indexing, go_on = threading.Event(), threading.Event()
    filling.database._threads.indexing.submit(lambda: (indexing.set(), go_on.wait(30)))
    assert indexing.wait(30)
    filling.flush(100)
    # With what is live now the two would be in proportion; merges go by what was live as of the last flush.
    filling.docs.delete(range(8))
    go_on.set()
    with filling.docs._lease() as opened:
        opened._indexer.wait_idle(30)
    assert filling.segments() == [404, 100]
    filling.rows -= 8
    filling.require_sound()


def mapped_bytes(name: str) -> int:
    """What this process has in memory of a mapped file."""
    found, within = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            within = line.endswith(name)
        elif within and line.startswith("Rss:"):
            found += 1024 * int(line.split()[1])
    return found


def test_a_graph_is_built_without_the_pages_of_what_was_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filling = Filling(tmp_path / "db", JOINING, dim=300)
    filling.flush(900)
    filling.docs.wait_indexed(60)
    with filling.docs._lease() as opened:
        entry = opened._state.manifest.segments[0]
    file = entry.file(Role.VECTORS, filling.docs.schema.vectors[0].name)
    assert file is not None
    during: list[int] = []
    build_graph = merger.build_graph

    def watched(*arguments: object) -> object:
        during.append(mapped_bytes(file.ref.name))
        return build_graph(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(merger, "build_graph", watched)
    filling.docs.search(np.zeros(300, np.float32), k=900, recall="exact")
    before = mapped_bytes(file.ref.name)
    assert before >= 900 * 300 * 4
    filling.flush(600)
    filling.docs.wait_indexed(60)
    assert filling.segments() == [1500]
    # But for what a page brings along that was touched since.
    assert during[0] <= before // 8
    filling.require_sound()
