"""Plans that are kept with a view stand for as long as what they were made for, and no longer."""

from dataclasses import replace

import numpy as np
import pytest

from tests.engine.conftest import DIM, SMALL
from vecdb.engine import search as searching
from vecdb.errors import InvalidArgument
from vecdb.query.costs import DEFAULT_COSTS

_ROWS = 300


@pytest.fixture
def indexed(open_database, vectors):
    """A collection of segments with graphs, of which nothing is learnt between two searches."""
    options = replace(SMALL, search_costs=DEFAULT_COSTS, recall_correction=False)
    collection = open_database(options).create_collection("c", DIM)
    collection.upsert(range(_ROWS), vectors[:_ROWS])
    collection.wait_indexed()
    return collection


def state_of(collection):
    return collection._lease().use(lambda opened: opened._state)


def test_a_search_asked_again_is_not_planned_again(indexed, vectors, monkeypatch):
    first = indexed.search(vectors[400])
    planned = []
    monkeypatch.setattr(searching, "plan_parts", lambda *arguments, **_: planned.append(arguments))
    again = indexed.search(vectors[400])
    assert again.ids == first.ids
    assert again.distances.tolist() == first.distances.tolist()
    assert not planned


@pytest.mark.parametrize("changed", [{"k": 3}, {"recall": "exact"}, {"ef": 100}])
def test_one_asked_otherwise_is(indexed, vectors, changed, monkeypatch):
    indexed.search(vectors[400])
    plan_parts, planned = searching.plan_parts, []
    monkeypatch.setattr(
        searching, "plan_parts", lambda *given, **named: planned.append(given) or plan_parts(*given, **named)
    )
    found = indexed.search(vectors[400], **changed)
    assert len(planned) == 1
    right = np.argsort(-(vectors[:_ROWS] / np.linalg.norm(vectors[:_ROWS], axis=1)[:, None]) @ vectors[400])
    assert found.ids == right[: changed.get("k", 10)].tolist()
    assert found.strategy == ("exact" if "recall" in changed else "graph")


def test_a_write_is_found_at_once(indexed, vectors):
    indexed.search(vectors[400])
    indexed.upsert([1000], vectors[400:401])
    assert indexed.search(vectors[400]).ids[0] == 1000
    indexed.delete([1000])
    assert indexed.search(vectors[400]).ids[0] != 1000


def test_a_graph_that_is_attached_to_a_segment_of_the_view_is_walked(indexed, vectors):
    view = state_of(indexed).view
    assert indexed.search(vectors[400]).strategy == "graph"
    for segment in view.segments:
        # As before the graph was built.
        segment.reader.field("").has_graph = False
    view.plans.clear()
    assert indexed.search(vectors[400]).strategy == "scan"
    for segment in view.segments:
        for file in segment.reader.entry.files:
            segment.reader.attach(file)
    assert state_of(indexed).view is view
    assert indexed.search(vectors[400]).strategy == "graph"


def test_few_plans_are_kept(indexed, vectors):
    for k in range(1, 200):
        indexed.search(vectors[400], k=k)
    assert len(state_of(indexed).view.plans) <= 64


def test_a_refused_query_is_refused_whatever_is_planned(indexed, vectors):
    indexed.search(vectors[400])
    for query, limit in [(np.zeros(DIM), "non-zero"), (np.full(DIM, np.nan), "finite"), (vectors[400][:-1], "dim")]:
        with pytest.raises(InvalidArgument) as raised:
            indexed.search(query)
        assert limit in str(raised.value.limit)


def test_a_query_alone_and_in_a_batch_get_the_same_answer(indexed, vectors):
    together = indexed.search_batch(vectors[400:480])
    for query, found in zip(vectors[400:480], together, strict=True):
        alone = indexed.search(query)
        assert alone.ids == found.ids
        assert alone.distances.tobytes() == found.distances.tobytes()
