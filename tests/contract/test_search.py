"""Search: the nearest points, their scores, and what is said about the answer."""

import numpy as np
import pytest

from vecdb.schema import CollectionSchema, VectorField

STRATEGIES = {"exact", "scan", "graph", "nothing"}


def expected(vectors, query, metric):
    """Scores (larger is nearer) and natural distances in float64."""
    vectors, query = vectors.astype(np.float64), np.asarray(query, np.float64)
    if metric == "l2":
        distances = np.sqrt(((vectors - query) ** 2).sum(axis=1))
        return -distances, distances
    products = vectors @ query
    if metric == "dot":
        return products, products
    cosines = products / np.sqrt((vectors**2).sum(axis=1)) / np.sqrt((query**2).sum())
    return cosines, 1 - cosines


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("recall", [None, 0.99, "exact"])
def test_hits_are_the_nearest_with_natural_scores(database, rng, metric, recall):
    docs = database.create_collection("docs", dim=12, metric=metric)
    vectors = rng.normal(size=(200, 12)).astype(np.float32) * rng.uniform(0.5, 3, (200, 1)).astype(np.float32)
    docs.upsert(range(120), vectors[:120])
    docs.flush()
    docs.upsert(range(120, 200), vectors[120:])
    query = rng.normal(size=12)
    hits = docs.search(query, k=7, recall=recall)
    scores, distances = expected(vectors, query.astype(np.float32), metric)
    nearest = np.argsort(-scores)[:7]
    assert list(hits.ids) == nearest.tolist()
    np.testing.assert_allclose(hits.scores, scores[nearest], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(hits.distances, distances[nearest], rtol=1e-4, atol=1e-5)


def test_hits_hold_columns_and_hits(database):
    docs = database.create_collection("docs", dim=2, metric="l2")
    docs.upsert(["a", 2, "c"], [[0, 0], [3, 4], [6, 8]], [{"n": 1}, {"n": 2}, {"n": 3}])
    hits = docs.search([0, 0], k=10, with_vectors=True)
    assert len(hits) == 3
    assert hits.ids == ["a", 2, "c"]
    assert hits.scores.dtype == hits.distances.dtype == np.float32
    np.testing.assert_allclose(hits.distances, [0, 5, 10])
    np.testing.assert_allclose(hits.scores, [0, -5, -10])
    assert hits.complete is True
    assert set(hits.strategy.split("+")) <= STRATEGIES
    assert 0 < hits.recall_estimate <= 1
    assert hits.unindexed_rows >= 0
    assert hits[1].id == 2
    assert (hits[-1].id, hits[-1].payload, hits[-1].distance, hits[-1].score) == ("c", {"n": 3}, 10.0, -10.0)
    assert [hit.id for hit in hits[1:]] == [2, "c"]
    assert [hit.payload["n"] for hit in hits] == [1, 2, 3]
    np.testing.assert_array_equal(hits[2].vectors[""], [6, 8])
    assert hits.payload_bytes(0) == b'{"n":1}'
    with pytest.raises(IndexError):
        hits[3]


def test_hits_bring_what_was_asked_for(database):
    docs = database.create_collection("docs", dim=1)
    docs.upsert([1], [[1.0]], [{"a": 1}])
    bare = docs.search([1.0], with_payloads=False)
    assert (bare[0].payload, bare.payload_bytes(0), dict(bare[0].vectors)) == (None, None, {})
    assert docs.search([1.0])[0].payload == {"a": 1}


def test_an_empty_collection_answers_with_nothing(database):
    docs = database.create_collection("docs", dim=2)
    hits = docs.search([1, 2], k=5, with_vectors=True)
    assert (len(hits), hits.ids, hits.complete, hits.strategy) == (0, [], True, "nothing")
    assert hits.scores.shape == hits.distances.shape == (0,)
    docs.upsert([1], [[1, 1]])
    docs.delete([1])
    assert docs.search([1, 2]).strategy == "nothing"
    assert [len(each) for each in docs.search_batch([[1, 2], [3, 4]])] == [0, 0]


def test_results_hold_as_many_as_match(database):
    docs = database.create_collection("docs", dim=1)
    docs.upsert(range(30), np.ones((30, 1)), [{"n": n} for n in range(30)])
    assert len(docs.search([1.0])) == 10
    assert len(docs.search([1.0], k=30)) == len(docs.search([1.0], k=10_000)) == 30
    few = docs.search([1.0], k=10, where="n IN (3, 4, 5, 99)")
    assert (sorted(few.ids), few.complete) == ([3, 4, 5], True)
    none = docs.search([1.0], where="n > 1000")
    assert (len(none), none.complete) == (0, True)


def test_deleted_and_replaced_points_are_not_found(database):
    docs = database.create_collection("docs", dim=2, metric="l2")
    docs.upsert([1, 2, 3], [[0, 0], [1, 1], [2, 2]])
    docs.flush()
    docs.delete([1])
    docs.upsert([2], [[9, 9]])
    hits = docs.search([0, 0], k=10)
    assert hits.ids == [3, 2]
    np.testing.assert_allclose(hits.distances, [np.sqrt(8), np.sqrt(162)], rtol=1e-6)


def test_a_batch_answers_each_query_as_a_search_would(database, rng):
    docs = database.create_collection("docs", dim=6)
    docs.upsert([f"id{n}" for n in range(100)], rng.normal(size=(100, 6)), [{"n": n} for n in range(100)])
    queries = rng.normal(size=(17, 6))
    rankings = docs.search_batch(queries, k=5, where="n >= 20", with_vectors=True)
    assert len(rankings) == 17
    for query, hits in zip(queries, rankings, strict=True):
        alone = docs.search(query, k=5, where="n >= 20", with_vectors=True)
        assert hits.ids == alone.ids
        np.testing.assert_allclose(hits.scores, alone.scores, rtol=1e-5)
        assert [hit.payload for hit in hits] == [hit.payload for hit in alone]
        for one, other in zip(hits, alone, strict=True):
            np.testing.assert_array_equal(one.vectors[""], other.vectors[""])
    assert docs.search_batch(np.zeros((0, 6))) == []


def test_many_hits_come_back_whole(database, rng):
    docs = database.create_collection("docs", dim=4, metric="l2")
    docs.upsert(range(400), rng.normal(size=(400, 4)), [{"text": "x" * 3_000} for _ in range(400)])
    rankings = docs.search_batch(rng.normal(size=(8, 4)), k=400)
    assert [sorted(hits.ids) for hits in rankings] == [list(range(400))] * 8
    assert all(np.all(np.diff(hits.distances) >= 0) for hits in rankings)
    assert rankings[7][399].payload == {"text": "x" * 3_000}


def test_queries_of_any_number_type_are_taken(database):
    docs = database.create_collection("docs", dim=2, metric="l2")
    docs.upsert([1], np.array([[1, 2]], np.int8))
    for query in ([1, 2], (1.0, 2.0), np.array([1, 2], np.float16), np.array([[1, 0], [2, 0]], np.float64)[:, 0]):
        assert docs.search(query)[0].distance == 0.0


def test_ef_is_taken_instead_of_recall(database, rng):
    docs = database.create_collection("docs", dim=4, index="hnsw")
    docs.upsert(range(50), rng.normal(size=(50, 4)))
    assert len(docs.search(rng.normal(size=4), k=5, ef=64)) == 5


def test_fields_are_searched_apart(database):
    docs = database.create_collection(
        "docs", schema=CollectionSchema((VectorField(2, "l2", name="a"), VectorField(1, "dot", name="b")))
    )
    docs.upsert([1, 2], {"a": [[0, 0], [5, 5]], "b": [[1], [2]]})
    assert docs.search([0, 0], field="a").ids == [1, 2]
    assert docs.search([1], field="b").ids == [2, 1]


def test_the_only_field_needs_no_name(database):
    docs = database.create_collection("docs", schema=CollectionSchema((VectorField(1, "l2", name="v"),)))
    docs.upsert([1], {"v": [[1.0]]})
    assert docs.search([1.0]).ids == docs.search([1.0], field="v").ids == [1]
