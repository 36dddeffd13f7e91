"""Reads and writes over memtable and segments together, against a dict and NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.conftest import DIM
from vecdb.errors import DeadlineExceeded, InvalidArgument
from vecdb.filter import Field
from vecdb.schema import CollectionSchema, IndexSpec, VectorField
from vecdb.types import Metric


def cosine_ranking(rows: dict, query: np.ndarray, k: int) -> list:
    unit = query / np.linalg.norm(query)
    scored = sorted(rows, key=lambda point_id: -float(rows[point_id] @ unit / np.linalg.norm(rows[point_id])))
    return scored[:k]


def test_rows_are_found_wherever_they_are(open_database, vectors):
    with open_database() as database:
        collection = database.create_collection("c", DIM)
        model = {}
        for start in range(0, 600, 50):
            ids = [number % 400 if number % 3 else f"s{number % 400}" for number in range(start, start + 50)]
            collection.upsert(ids, vectors[start : start + 50], [{"n": number} for number in range(start, start + 50)])
            model.update({point_id: (vectors[start + at], start + at) for at, point_id in enumerate(ids)})
        gone = [point_id for point_id in model if isinstance(point_id, int) and point_id % 5 == 0]
        assert collection.delete(gone).deleted == len(gone)
        for point_id in gone:
            del model[point_id]
        stats = collection.stats()
        assert stats.segments > 1
        assert stats.memtable_rows > 0
        assert stats.deleted_rows > 0
    for _ in range(2):
        with open_database() as database:
            collection = database.collection("c")
            assert collection.count() == len(model)
            assert {point.id: point.payload for point in collection.scroll(page_rows=37)} == {
                point_id: {"n": number} for point_id, (_, number) in model.items()
            }
            for query in vectors[700:710]:
                expected = cosine_ranking({point_id: row for point_id, (row, _) in model.items()}, query, 12)
                hits = collection.search(query, k=12, recall="exact")
                assert hits.ids == expected
                assert hits.complete
                assert hits.recall_estimate == 1.0
            wanted = [gone[0], *list(model)[:5], "nobody", *list(model)[:2]]
            found = collection.get(wanted, with_vectors=True)
            assert [point.id for point in found] == [*list(model)[:5], *list(model)[:2]]
            for point in found:
                np.testing.assert_allclose(point.vector, model[point.id][0], rtol=3e-7)
            collection.wait_indexed()


def test_a_graph_is_attached_and_used_without_a_rebuild_after_reopening(open_database, vectors):
    with open_database() as database:
        collection = database.create_collection("c", DIM, index=IndexSpec.parse("hnsw"))
        collection.upsert(range(60), vectors[:60])
        collection.wait_indexed()
        assert collection.search(vectors[3], k=5).strategy == "graph"
        assert collection.stats().unindexed_rows == 0
    with open_database() as database:
        collection = database.collection("c")
        hits = collection.search(vectors[3], k=5)
        assert (hits.strategy, hits.ids[0]) == ("graph", 3)
        assert "graphs_built" not in collection.stats().events


def test_a_flat_field_never_gets_a_graph(open_database, vectors):
    collection = open_database().create_collection("c", DIM, index="flat")
    collection.upsert(range(100), vectors[:100])
    collection.wait_indexed()
    assert "graph" not in collection.stats().role_bytes
    assert collection.search(vectors[0]).strategy == "scan"


@pytest.mark.parametrize("k", [1, 5, 50, 500])
def test_a_filter_never_returns_too_few_rows(open_database, vectors, k):
    collection = open_database().create_collection("c", DIM)
    collection.upsert(range(400), vectors[:400], [{"share": number % 100} for number in range(400)])
    collection.wait_indexed()
    for limit in (0, 1, 7, 60, 99, 100):
        hits = collection.search(vectors[500], k=k, where=Field("share") < limit)
        matching = [number for number in range(400) if number % 100 < limit]
        assert len(hits) == min(k, len(matching))
        assert set(hits.ids) <= set(matching)
        assert len(set(hits.ids)) == len(hits)
        assert hits.complete


def test_a_point_may_lack_a_named_vector(open_database, vectors):
    schema = CollectionSchema((VectorField(DIM, Metric.L2, name="a"), VectorField(4, Metric.DOT, name="b")))
    with open_database() as database:
        collection = database.create_collection("c", schema=schema)
        with_b = [number for number in range(100) if number % 3]
        collection.upsert(
            range(100),
            {"a": vectors[:100], "b": [vectors[number, :4] if number % 3 else None for number in range(100)]},
        )
        collection.upsert([500], {"a": vectors[500:501]})
        collection.delete([1, 3])
    for _ in range(2):
        with open_database() as database:
            collection = database.collection("c")
            live_b = [number for number in with_b if number != 1]
            hits = collection.search(vectors[0, :4], k=100, field="b", recall="exact")
            products = {number: float(vectors[number, :4] @ vectors[0, :4]) for number in live_b}
            assert hits.ids == sorted(products, key=lambda number: -products[number])
            np.testing.assert_allclose(hits.scores, sorted(products.values(), reverse=True), rtol=1e-5)
            assert len(collection.search(vectors[0], k=1000, field="a")) == 99
            point = collection.get([6], with_vectors=True)[0]
            assert set(point.vectors) == {"a"}
            assert set(collection.get([7], with_vectors=True)[0].vectors) == {"a", "b"}
            with pytest.raises(InvalidArgument, match="'a', 'b'"):
                collection.search(vectors[0])
            collection.flush()


@pytest.mark.parametrize("metric", list(Metric))
def test_scores_and_distances_are_the_metrics_natural_values(open_database, vectors, metric):
    collection = open_database().create_collection("c", DIM, metric=metric)
    collection.upsert(range(50), vectors[:50])
    collection.flush()
    collection.upsert(range(50, 100), vectors[50:100])
    query = vectors[200]
    hits = collection.search(query, k=100, recall="exact")
    rows = vectors[hits.ids].astype(np.float64)
    if metric is Metric.L2:
        distances = np.linalg.norm(rows - query, axis=1)
        scores = -distances
    elif metric is Metric.DOT:
        distances = scores = rows @ query
    else:
        scores = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
        distances = 1 - scores
    np.testing.assert_allclose(hits.scores, scores, atol=1e-5)
    np.testing.assert_allclose(hits.distances, distances, atol=1e-5)
    assert (np.diff(hits.scores) <= 0).all()


def test_a_hit_can_be_looked_at_after_its_rows_have_moved(open_database, vectors):
    collection = open_database().create_collection("c", DIM)
    collection.upsert(range(30), vectors[:30], [{"n": number} for number in range(30)])
    hits = collection.search(vectors[4], k=3, with_vectors=True)
    collection.flush()
    collection.upsert(range(30), vectors[30:60], [{"n": -1}] * 30)
    assert hits[0].payload == {"n": 4}
    np.testing.assert_allclose(hits[0].vectors[""], vectors[4], rtol=3e-7)


def test_pages_go_on_where_the_last_one_ended_whatever_happens_between(open_database, vectors):
    collection = open_database().create_collection("c", DIM)
    collection.upsert(range(200), vectors[:200])
    seen = []
    page = collection.scroll_page(limit=30)
    while True:
        seen.extend(point.id for point in page.points)
        if page.next_cursor is None:
            break
        collection.flush()
        collection.delete([seen[0]])
        collection.upsert([seen[1]], vectors[:1])
        page = collection.scroll_page(limit=30, cursor=page.next_cursor)
    assert sorted(seen) == list(range(200))


def test_a_cursor_of_another_collection_is_refused(open_database, vectors):
    database = open_database()
    cursors = []
    for name in ("a", "b"):
        collection = database.create_collection(name, DIM)
        collection.upsert(range(20), vectors[:20])
        cursors.append(collection.scroll_page(limit=5).next_cursor)
    for cursor in (cursors[0], b"nonsense"):
        with pytest.raises(InvalidArgument) as caught:
            database.collection("b").scroll_page(cursor=cursor)
        assert caught.value.field == "cursor"


def test_deleting_by_a_filter_sees_the_writes_before_it(open_database, vectors):
    collection = open_database().create_collection("c", DIM)
    collection.upsert(range(100), vectors[:100], [{"n": number} for number in range(100)])
    collection.flush()
    collection.upsert([1, 200], vectors[:2], [{"n": 99}, {"n": 3}])
    assert collection.delete(where="n < :limit", params={"limit": 10}).deleted == 10
    assert collection.count() == 91
    assert collection.count("n < 10") == 0
    assert collection.get([1])[0].payload == {"n": 99}


def test_a_wait_for_a_write_that_never_comes_ends(open_database, vectors, monkeypatch):
    monkeypatch.setattr("vecdb.engine.store.READ_AFTER_TIMEOUT_S", 0.05)
    collection = open_database().create_collection("c", DIM)
    seq = collection.upsert([1], vectors[:1]).seq
    assert len(collection.search(vectors[0], read_after_seq=seq)) == 1
    with pytest.raises(DeadlineExceeded) as caught:
        collection.search(vectors[0], read_after_seq=seq + 1)
    assert caught.value.field == "read_after_seq"


def test_huge_and_tiny_vectors_keep_their_direction(open_database):
    collection = open_database().create_collection("c", 2)
    rows = np.array([[1e17, 0], [0, 1e-30], [3e-45, 3e-45]], np.float32)
    collection.upsert([1, 2, 3], rows)
    assert collection.search([1, 0], k=1).ids == [1]
    assert collection.search([0, 1], k=1).ids == [2]
    np.testing.assert_allclose(collection.search([1, 1], k=1).scores, [1.0], rtol=1e-5)
    collection.flush()
    for point_id, row in zip([1, 2, 3], rows, strict=True):
        np.testing.assert_allclose(collection.get([point_id], with_vectors=True)[0].vector, row, rtol=1e-5)
    with pytest.raises(InvalidArgument, match="length"):
        collection.upsert([4], [[1e25, 0]])
