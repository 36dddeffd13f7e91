"""Making, finding, listing and dropping collections; closing the database."""

import pytest

from vecdb.errors import AlreadyExists, FailedPrecondition, NotFound
from vecdb.schema import CollectionSchema, IndexKind, IndexSpec, VectorField
from vecdb.types import Metric

NAMED = CollectionSchema(
    (
        VectorField(3, Metric.COSINE, IndexSpec(IndexKind.HNSW, m=8, ef_construction=64, seed=7), "标题"),
        VectorField(2, Metric.L2, IndexSpec(IndexKind.FLAT), "body"),
        VectorField(5, Metric.DOT, IndexSpec(), "image"),
    )
)


def test_a_new_database_has_no_collections(database):
    assert list(database.collections()) == []


def test_collections_are_listed_by_name(database):
    for name in ("b", "文档", "a"):
        database.create_collection(name, dim=2)
    assert list(database.collections()) == ["a", "b", "文档"]


def test_the_simple_arguments_make_one_unnamed_field(database):
    made = database.create_collection("docs", dim=3, metric="l2", index="flat")
    assert made.name == "docs"
    assert made.schema == CollectionSchema.single(3, "l2", "flat")
    assert database.collection("docs").schema == made.schema


def test_the_default_is_cosine_with_an_index_of_the_engines_choice(database):
    field = database.create_collection("docs", dim=3).schema.vectors[0]
    assert (field.metric, field.index, field.name) == (Metric.COSINE, IndexSpec(IndexKind.AUTO), "")


def test_a_schema_keeps_every_attribute_of_every_field(database):
    assert database.create_collection("docs", schema=NAMED).schema == NAMED
    assert database.collection("docs").schema == NAMED


def test_exist_ok_returns_the_same_collection(database):
    database.create_collection("docs", schema=NAMED).upsert([1], {"body": [[1, 2]]})
    again = database.create_collection("docs", schema=NAMED, exist_ok=True)
    assert again.count() == 1


def test_exist_ok_refuses_another_schema(database):
    database.create_collection("docs", dim=3)
    with pytest.raises(AlreadyExists, match="another schema"):
        database.create_collection("docs", dim=4, exist_ok=True)


def test_a_dropped_collection_is_gone_with_its_points(database):
    database.create_collection("docs", dim=1).upsert([1], [[1.0]])
    database.create_collection("kept", dim=1).upsert([1], [[1.0]])
    database.drop_collection("docs")
    assert list(database.collections()) == ["kept"]
    with pytest.raises(NotFound):
        database.collection("docs")
    assert database.create_collection("docs", dim=2).count() == 0
    assert database.collection("kept").count() == 1


def test_a_handle_of_a_dropped_collection_finds_nothing_even_if_the_name_is_taken_again(database):
    old = database.create_collection("docs", dim=1)
    database.drop_collection("docs")
    with pytest.raises(NotFound):
        old.count()
    new = database.create_collection("docs", dim=1)
    assert new.collection_id != old.collection_id
    for call in (
        old.count,
        old.stats,
        old.flush,
        old.wait_indexed,
        lambda: old.get([1]),
        lambda: old.search([1.0]),
        lambda: list(old.scroll()),
        lambda: old.upsert([1], [[1.0]]),
        lambda: old.delete([1]),
    ):
        with pytest.raises(NotFound) as caught:
            call()
        assert (caught.value.field, caught.value.value) == ("collection", "docs")
    assert new.count() == 0


def test_handles_of_one_collection_share_its_points(database):
    database.create_collection("docs", dim=1).upsert([1], [[1.0]])
    assert len(database.collection("docs")) == 1


def test_flush_and_wait_indexed_change_no_answer(database):
    docs = database.create_collection("docs", dim=2)
    docs.upsert([1, 2], [[1, 0], [0, 1]], [{"a": 1}, {"a": 2}])
    docs.flush()
    docs.upsert([2, 3], [[0, 1], [1, 1]], [{"a": 20}, {"a": 3}])
    docs.wait_indexed(timeout_s=60)
    assert [hit.id for hit in docs.search([1, 0.1], k=3)] == [1, 3, 2]
    assert [point.payload for point in docs.get([1, 2, 3])] == [{"a": 1}, {"a": 20}, {"a": 3}]
    stats = docs.stats()
    assert (stats.points, stats.last_seq, stats.unindexed_rows) == (3, 2, 0)
    assert (stats.calibration, stats.live_recall) == ((), ())


def test_a_closed_database_refuses_every_call(database):
    docs = database.create_collection("docs", dim=1)
    database.close()
    database.close()
    for call in (
        database.collections,
        lambda: database.collection("docs"),
        lambda: database.create_collection("more", dim=1),
        lambda: database.drop_collection("docs"),
        docs.count,
        docs.stats,
        docs.flush,
        lambda: docs.search([1.0]),
        lambda: docs.upsert([1], [[1.0]]),
    ):
        with pytest.raises(FailedPrecondition) as caught:
            call()
        assert (caught.value.message, caught.value.field) == ("the database is closed", "database")
