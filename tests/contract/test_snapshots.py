"""Named snapshots, compaction and purge: what a collection held stays readable, and space comes back unseen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vecdb import Field
from vecdb.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound


@pytest.fixture
def docs(database: Any) -> Any:
    collection = database.create_collection("docs", dim=2, metric="l2")
    collection.upsert(["a", "b", 3], [[0, 0], [1, 0], [2, 0]], [{"n": 1}, {"n": 2}, {"n": 3}])
    return collection


def changed(docs: Any) -> None:
    docs.upsert(["b", "d"], [[9, 9], [0, 1]], [{"n": 20}, {"n": 4}])
    docs.delete([3])


def test_every_reading_verb_answers_from_a_snapshot(docs: Any) -> None:
    info = docs.create_snapshot("before")
    changed(docs)
    assert info.name == "before"
    assert info.seq == 1
    assert docs.count(at="before") == 3
    assert docs.count(Field("n") >= 2, at="before") == 2
    found = docs.get(["b", "d", 3], with_vectors=True, at="before")
    assert [(each.id, each.payload) for each in found] == [("b", {"n": 2}), (3, {"n": 3})]
    np.testing.assert_array_equal(found[0].vector, [1, 0])
    assert docs.search([2, 0], k=9, at="before").ids == [3, "b", "a"]
    assert [hits.ids for hits in docs.search_batch([[2, 0], [0, 0]], k=1, at="before")] == [[3], ["a"]]
    assert docs.search([2, 0], k=9, where="n < 3", at="before").ids == ["b", "a"]
    assert {each.id for each in docs.scroll(at="before", page_rows=1)} == {"a", "b", 3}
    assert docs.count() == 3
    assert docs.search([2, 0], k=9).ids == ["a", "d", "b"]


def test_compaction_changes_no_answer(docs: Any) -> None:
    docs.create_snapshot("before")
    changed(docs)
    docs.flush()
    report = docs.compact(60.0)
    assert report.segments_after <= report.segments_before
    assert docs.search([2, 0], k=9).ids == ["a", "d", "b"]
    assert docs.search([2, 0], k=9, at="before").ids == [3, "b", "a"]
    assert docs.get(["b"])[0].payload == {"n": 20}
    assert docs.get(["b"], at="before")[0].payload == {"n": 2}
    assert docs.compact(60.0, dry_run=True).rows_dropped == 0


def test_snapshots_are_listed_by_name_and_dropped(docs: Any) -> None:
    docs.create_snapshot("second")
    changed(docs)
    docs.create_snapshot("first")
    assert [(each.name, each.seq) for each in docs.snapshots()] == [("first", 3), ("second", 1)]
    docs.drop_snapshot("second")
    assert [each.name for each in docs.snapshots()] == ["first"]
    assert docs.count(at="first") == 3
    with pytest.raises(NotFound, match="no snapshot 'second'"):
        docs.count(at="second")


def test_what_is_wrong_with_a_snapshot_is_said(docs: Any) -> None:
    docs.create_snapshot("one")
    with pytest.raises(AlreadyExists, match="snapshot 'one' exists"):
        docs.create_snapshot("one")
    for call in (
        lambda: docs.drop_snapshot("two"),
        lambda: docs.search([1, 1], at="two"),
        lambda: docs.get(["a"], at="two"),
        lambda: docs.scroll_page(at="two"),
    ):
        with pytest.raises(NotFound, match="no snapshot 'two'"):
            call()
    for name in ("", "x" * 513):
        with pytest.raises(InvalidArgument):
            docs.create_snapshot(name)
        with pytest.raises(InvalidArgument):
            docs.count(at=name)


def test_purge_is_refused_while_a_snapshot_keeps_what_was_deleted(docs: Any) -> None:
    docs.create_snapshot("before")
    docs.purge(60.0)
    changed(docs)
    with pytest.raises(FailedPrecondition, match="snapshot 'before' keeps"):
        docs.purge(60.0)
    docs.drop_snapshot("before")
    docs.purge(60.0)
    assert docs.search([2, 0], k=9).ids == ["a", "d", "b"]


def test_an_empty_collection_has_snapshots_too(database: Any) -> None:
    docs = database.create_collection("docs", dim=2)
    docs.create_snapshot("empty")
    docs.compact(60.0)
    docs.purge(60.0)
    docs.upsert(["a"], [[1, 1]])
    assert docs.count(at="empty") == 0
    assert len(docs.search([1, 1], at="empty")) == 0
