"""Graphs of merged segments: which source lends its graph, and that the same sources give the same graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.conftest import SMALL
from vecdb.engine.check import check_database
from vecdb.engine.collection import EmbeddedCollection
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.state import CollectionState
from vecdb.errors import Corruption, InvalidArgument
from vecdb.index.hnsw import LentGraph
from vecdb.segment import lending
from vecdb.segment.layout import Role
from vecdb.segment.lending import lent_graph
from vecdb.segment.merge import MergeSource

OPTIONS = replace(SMALL, memtable_size_bytes=2**30, graph_rows_min=40, build_threads=2)
SIZES = (50, 160, 30)


def state_of(collection: EmbeddedCollection) -> CollectionState:
    with collection._lease() as opened:
        return opened._state


def filled(path: Path, options: Any = OPTIONS) -> tuple[EmbeddedDatabase, EmbeddedCollection]:
    """Three segments; some points lack a vector, and some of every segment are deleted."""
    rng = np.random.default_rng(4)
    database = EmbeddedDatabase.open(path, options=options)
    collection = database.create_collection("c", 12, "l2")
    first = 0
    for size in SIZES:
        collection.upsert(range(first, first + size), rng.standard_normal((size, 12)).astype(np.float32))
        collection.flush()
        collection.wait_indexed()
        first += size
    collection.delete(range(0, first, 7))
    return database, collection


def sources_of(collection: EmbeddedCollection) -> list[MergeSource]:
    state = state_of(collection)
    return [
        MergeSource(each.reader, state.stored_live[each.reader.segment_id].bitmap().rows())
        for each in state.view.segments
    ]


def digests(path: Path) -> list[str]:
    report = check_database(path)
    assert report.ok, report.problems
    return [each.sha256 for each in report.graphs]


def test_the_source_with_most_rows_lends_its_graph(tmp_path):
    database, collection = filled(tmp_path / "db")
    collection.flush()
    sources = sources_of(collection)
    (declared,) = collection.schema.vectors
    lent = lent_graph(sources, declared)
    assert lent is not None
    kept = sources[1].rows
    before = sources[0].rows.shape[0]
    assert lent.rows.shape == (160,)
    np.testing.assert_array_equal(lent.rows[kept], before + np.arange(kept.shape[0]))
    assert (lent.rows >= 0).sum() == kept.shape[0]
    np.testing.assert_array_equal(lent.links, sources[1].reader.field(declared.name).graph.graph.links)
    # Too little of the whole; too little kept of it; no graph at all.
    assert lent_graph([sources[0], MergeSource(sources[1].reader, kept[:120]), *[sources[0]] * 15], declared) is None
    assert lent_graph([MergeSource(sources[1].reader, kept[:70])], declared) is None
    assert lent_graph([sources[2]], declared) is None
    database.close()


def test_the_same_sources_give_the_same_graph(tmp_path):
    found = []
    for threads in (1, 3):
        path = tmp_path / str(threads)
        database, collection = filled(path, replace(OPTIONS, build_threads=threads))
        before = len(state_of(collection).manifest.segments)
        database.close()
        apart = digests(path)
        assert len(apart) == 2
        assert before == 3
        database = EmbeddedDatabase.open(path, options=replace(OPTIONS, build_threads=threads))
        collection = database.collection("c")
        collection.compact()
        assert len(state_of(collection).manifest.segments) == 1
        database.close()
        found.append((apart, digests(path)))
    assert found[0] == found[1]
    assert len({digest for part in found[0] for digest in part}) == 3


def test_a_merged_graph_answers_as_an_exact_search_does(tmp_path):
    database, collection = filled(tmp_path / "db")
    collection.compact()
    (segment,) = state_of(collection).view.segments
    assert segment.reader.entry.file(Role.GRAPH, collection.schema.vectors[0].name) is not None
    queries = np.random.default_rng(8).standard_normal((20, 12)).astype(np.float32)
    for query in queries:
        exact = collection.search(query, k=10, recall="exact")
        assert list(collection.search(query, k=10, ef=400).ids) == list(exact.ids)
    database.close()


def test_a_damaged_graph_is_told_of_and_not_lent(tmp_path, monkeypatch):
    database, collection = filled(tmp_path / "db")
    collection.flush()

    def damaged(arrays: Any, rows: Any) -> LentGraph:
        raise Corruption("the links lead nowhere", field="links")

    monkeypatch.setattr(lending.LentGraph, "from_arrays", damaged)
    collection.compact()
    assert collection.stats().segments == 1
    assert collection.stats().events["file_damaged"] == 1
    database.close()
    assert len(digests(tmp_path / "db")) == 1


@pytest.mark.parametrize("threads", [0, 65])
def test_absurd_numbers_of_threads_are_refused(threads):
    with pytest.raises(InvalidArgument) as caught:
        replace(SMALL, build_threads=threads)
    assert caught.value.field == "build_threads"
