"""Explain: one real search, told part by part, with the same facts wherever the database is."""

from typing import Any

import numpy as np
import pytest

from tests.contract.implementations import NAMES, opened
from tests.service.running import LoopThread
from vecdb.schema import CollectionSchema, VectorField

STRATEGIES = {"exact", "scan", "graph", "nothing"}
SEARCHES: list[tuple[dict[str, Any], int]] = [
    ({}, 110),
    ({"k": 3, "recall": 0.9}, 110),
    ({"ef": 70}, 110),
    ({"recall": "exact"}, 110),
    ({"where": "n >= :low AND n < 100", "params": {"low": 60}}, 40),
    ({"where": "n < 20"}, 10),
    ({"where": "n < 13"}, 3),
    ({"where": "n = 5"}, 0),
]
"""Arguments, and how many points match."""


@pytest.fixture(scope="module", params=NAMES)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, loop: LoopThread) -> Any:
    """One database for all of these tests, each of which has a collection of its own or only reads."""
    with opened(request.param, tmp_path_factory.mktemp("explained") / "db", loop) as found:
        yield found


@pytest.fixture
def docs(database):
    """80 points in a segment and 40 in memory, ten of the first deleted."""
    docs = database.create_collection("docs", dim=6, exist_ok=True)
    if not len(docs):
        vectors = np.random.default_rng(1).normal(size=(120, 6))
        docs.upsert(range(80), vectors[:80], [{"n": n} for n in range(80)])
        docs.flush()
        docs.upsert(range(80, 120), vectors[80:], [{"n": n} for n in range(80, 120)])
        docs.delete(range(10))
    return docs


def test_what_is_told_fits_the_search(docs, rng):
    query = rng.normal(size=6)
    for arguments, allowed in SEARCHES:
        told, hits = docs.explain(query, **arguments), docs.search(query, **arguments)
        assert told.hits_found == len(hits) == min(told.k, allowed)
        assert (told.strategy, told.complete, told.recall_estimate, told.unindexed_rows) == (
            hits.strategy, hits.complete, hits.recall_estimate, hits.unindexed_rows,
        )  # fmt: skip
        assert told.allowed_rows == sum(part.allowed_rows for part in told.parts) == allowed
        assert told.k == arguments.get("k", 10)
        exact = arguments.get("recall") == "exact"
        recall = None if "ef" in arguments else 1.0 if exact else arguments.get("recall", 0.95)
        assert (told.recall, told.ef) == (recall, arguments.get("ef"))
        for part in told.parts:
            assert part.strategy in STRATEGIES
            assert 0 <= part.allowed_rows <= part.rows
            assert (part.strategy == "nothing") == (part.allowed_rows == 0)
            assert part.selectivity == part.selectivity_estimate == part.allowed_rows / part.rows
            # So few rows are looked at one by one.
            assert (part.distance_computations, part.hops, part.fell_back) == (part.allowed_rows, 0, False)
            assert part.total_s >= 0
        assert told.total_s >= told.search_s >= 0
        assert all(isinstance(sentence, str) and len(sentence) < 120 for sentence in told.advice)
        text = str(told)
        assert text.startswith(f"k = {told.k}, ")
        assert max(map(len, text.splitlines())) <= 100


def test_a_field_and_a_snapshot_are_explained(database):
    docs = database.create_collection(
        "fields", schema=CollectionSchema((VectorField(2, "l2", name="a"), VectorField(1, "dot", name="b")))
    )
    docs.upsert([1, 2, 3], {"a": [[0, 0], [5, 5], None], "b": [[1], None, [2]]})
    docs.create_snapshot("before")
    seq = docs.upsert([4], {"a": [[1, 1]]}).seq
    assert docs.explain([0, 0], field="a", read_after_seq=seq).allowed_rows == 3
    assert docs.explain([0], field="b").allowed_rows == 2
    assert docs.explain([0, 0], field="a", at="before").hits_found == 2


def test_an_empty_collection_is_explained(database):
    told = database.create_collection("empty", dim=2).explain([1, 2])
    assert (told.parts, told.strategy, told.hits_found, told.complete) == ((), "nothing", 0, True)
    assert "0 hits by nothing" in str(told)
