"""Explain: what each part cost, counted by NumPy and by the indexes themselves, and advice that follows from it."""

import time
from dataclasses import replace

import numpy as np
import pytest

from tests.engine.conftest import DIM, SMALL
from tests.engine.test_at_once import request_for
from vecdb.engine.database import EmbeddedDatabase
from vecdb.errors import InvalidArgument
from vecdb.explanation import Explanation, PartExplanation
from vecdb.index.hnsw import HnswIndex
from vecdb.requests import SearchRequest

ROWS = 900


@pytest.fixture
def filled(open_database, vectors) -> EmbeddedDatabase:
    """Two segments, the first of which has a graph, and a memtable; every third point of the first is deleted."""
    database = open_database(replace(SMALL, memtable_size_bytes=64 << 20, graph_rows_min=300))
    docs = database.create_collection("c", DIM, "l2")
    docs.upsert(range(600), vectors[:600], [{"n": n} for n in range(600)])
    docs.flush()
    docs.wait_indexed()
    docs.upsert(range(600, 800), vectors[600:800], [{"n": n} for n in range(600, 800)])
    docs.flush()
    docs.upsert(range(800, ROWS), vectors[800:ROWS], [{"n": n} for n in range(800, ROWS)])
    docs.delete(range(0, 600, 3))
    return database


def facts(told):
    return [(part.rows, part.allowed_rows, part.strategy, part.ef) for part in told.parts]


@pytest.fixture
def answers(monkeypatch):
    """What each walk through a graph answered."""
    seen = []
    search = HnswIndex.search

    def noting(self, *arguments, **named):
        seen.append(search(self, *arguments, **named))
        return seen[-1]

    monkeypatch.setattr(HnswIndex, "search", noting)
    return seen


def test_each_part_is_told_as_it_was_searched(filled, vectors, answers):
    docs = filled.collection("c")
    told = docs.explain(vectors[950], k=5, ef=50)
    assert facts(told) == [(600, 400, "graph", 50), (200, 200, "scan", 0), (100, 100, "exact", 0)]
    assert [part.name for part in told.parts[-1:]] == ["memtable"]
    assert [part.segment_id is None for part in told.parts] == [False, False, True]
    walk, scan, exact = told.parts
    # Once: what is told comes from the search that was made, and from no second one.
    [answer] = answers
    assert (walk.distance_computations, walk.hops, walk.reranked) == (
        answer.distance_computations, answer.hops, answer.reranked,
    )  # fmt: skip
    assert 0 < walk.hops < walk.distance_computations
    assert 5 <= walk.reranked < 50
    assert (scan.distance_computations, scan.reranked, scan.hops) == (200, 37, 0)
    assert (exact.distance_computations, exact.reranked, exact.hops) == (100, 0, 0)
    assert (walk.selectivity_estimate, walk.selectivity) == (400 / 600, 400 / 600)
    assert told.distance_computations == walk.distance_computations + 300
    assert told.strategy == "exact+graph+scan"
    assert min(walk.search_s, scan.search_s, exact.search_s, told.plan_s, told.merge_s, told.fetch_s) > 0
    assert (told.filter_s, told.unindexed_rows) == (0, 100)


def test_opening_a_graph_is_told_as_opening(filled, vectors, monkeypatch):
    opened_s = []
    from_arrays = HnswIndex.from_arrays

    def slowly(*arguments):
        begun = time.perf_counter()
        time.sleep(0.05)
        graph = from_arrays(*arguments)
        opened_s.append(time.perf_counter() - begun)
        return graph

    docs = filled.collection("c")
    with docs._lease() as opened:
        for segment in opened._state.view.segments:
            segment.reader.forget_derived()
    monkeypatch.setattr(HnswIndex, "from_arrays", slowly)
    told = docs.explain(vectors[950], k=5, where="n > 3")
    [walk] = [part for part in told.parts if part.strategy == "graph"]
    # All that it took is in the stage of its own, and in no other.
    assert len(opened_s) == 1
    assert walk.open_s >= opened_s[0]
    assert told.plan_s + told.filter_s < told.total_s - opened_s[0]
    assert docs.explain(vectors[950], k=5, where="n > 3").open_s < walk.open_s
    assert (walk.ef, walk.recall_estimate) == next(
        (part.ef, part.recall_estimate)
        for part in docs.explain(vectors[950], k=5, where="n > 3").parts
        if part.strategy == "graph"
    )


def test_parts_in_which_nothing_matches_are_told_and_not_searched(filled, vectors):
    told = filled.collection("c").explain(vectors[950], where="n >= 650 AND n < 655")
    assert facts(told) == [(600, 0, "nothing", 0), (200, 5, "exact", 0), (100, 0, "nothing", 0)]
    assert [part.distance_computations for part in told.parts] == [0, 5, 0]
    assert told.hits_found == 5
    assert told.parts[1].selectivity == 5 / 200
    assert told.filter_s > 0
    assert told.advice[0] == f"the filter allows {100 * 5 / 700:.2g} % of the rows: all of them compared exactly"


def test_a_graph_that_falls_short_is_told(filled, vectors, monkeypatch):
    search = HnswIndex.search

    def short(self, queries, k, **named):
        answer = search(self, queries, k, **named)
        answer.topk.slots[:, 2:] = -1
        answer.topk.distances[:, 2:] = np.inf
        return replace(answer, fewest=2, distance_computations=7, hops=3, reranked=4)

    monkeypatch.setattr(HnswIndex, "search", short)
    docs = filled.collection("c")
    told = docs.explain(vectors[950], k=5)
    walk = told.parts[0]
    assert (walk.strategy, walk.fell_back) == ("graph", True)
    # Both the walk and the scan of all allowed rows.
    assert (walk.distance_computations, walk.hops, walk.reranked) == (7 + 400, 3, 4 + 37)
    assert [part.fell_back for part in told.parts[1:]] == [False, False]
    assert told.hits_found == 5
    assert any(f"graph of {walk.name} found too few" in sentence for sentence in told.advice)
    assert "graph+scan" in str(told)
    assert docs.stats().events["graph_fell_back_to_scan"] == 1


def ef_advice(told):
    """(from, to, recall) of the sentence about ef."""
    [sentence] = [each for each in told.advice if each.startswith("ef ")]
    words = sentence.split()
    return int(words[1]), int(words[3]), float(words[-1])


def test_a_larger_ef_is_advised_with_what_the_planner_then_expects(filled, vectors):
    docs = filled.collection("c")
    docs.wait_indexed()
    docs.compact()
    docs.wait_indexed()
    told = docs.explain(vectors[950], ef=24)
    now, better, recall = ef_advice(told)
    assert now == told.parts[0].ef < better
    again = docs.explain(vectors[950], ef=better)
    assert again.recall_estimate == pytest.approx(recall, abs=0.0006)
    assert recall > told.recall_estimate + 0.005
    now, enough, recall = ef_advice(docs.explain(vectors[950], ef=600))
    assert (now, recall) == (600, 0.99)
    assert enough < 400
    assert docs.explain(vectors[950], ef=enough).recall_estimate >= 0.989


def test_what_else_is_advised(filled, vectors):
    docs = filled.collection("c")
    assert "100 rows are not indexed yet: wait_indexed()" in docs.explain(vectors[950]).advice
    assert "recall=0.99 walks the graph instead of comparing all rows" in docs.explain(vectors[0], recall=1).advice
    docs.create_snapshot("now")
    docs.upsert([5000], vectors[:1])
    assert not any("not indexed" in each for each in docs.explain(vectors[950], at="now").advice)
    docs.wait_indexed()
    assert not any("not indexed" in each for each in docs.explain(vectors[950]).advice)
    for number in range(7):
        docs.upsert([6000 + number], vectors[:1])
        docs.flush()
    assert any("compact()" in each for each in docs.explain(vectors[950]).advice)


def test_one_query_is_explained(filled, vectors):
    request: SearchRequest = replace(request_for(vectors[0]), queries=vectors[:2])
    with pytest.raises(InvalidArgument, match="query_count must be 1 to 1, got 2"):
        filled.collection("c").run_explain(request)


def test_a_reader_explains_too(filled, vectors):
    from vecdb.engine.reading import ReadOnlyDatabase

    with ReadOnlyDatabase.open(filled.path, options=SMALL) as reading:
        told = reading.collection("c").explain(vectors[0], where="n < 800")
        assert told.hits_found == 10
        assert told.open_s > 0
        assert [part.allowed_rows for part in told.parts] == [400, 200, 0]


def test_the_table_fits_a_terminal_whatever_the_numbers():
    walk = PartExplanation(
        4_294_967, 12_345_678, 9_876_543, 0.81, 0.8, "graph", 2_048, 0.95123, 1_234_567, 12_345, 210, True,
        1.0, 2.0, 30.0,
    )  # fmt: skip
    memtable = PartExplanation(None, 100_000, 0, 0.0, 0.0, "nothing")
    advice = ("advice " * 20, "more")
    told = Explanation(10, 0.95, None, (walk, memtable), "graph+scan", 0.95, 10, True, 7, 0.1, 0.2, 4e-6, advice)
    lines = str(told).splitlines()
    assert max(map(len, lines)) <= 100
    assert max(map(len, lines[:2] + lines[6:])) <= 80
    assert " ".join(lines[2].split()) == ("segment rows allowed share est. strategy ef recall compared hops rerank ms")
    assert " ".join(lines[3].split()) == (
        "4294967 12.35M 9.877M 80% 81% graph+scan 2,048 0.951 1.235M 12,345 210 33,000"
    )
    assert lines[4].split() == ["memtable", "100,000", "0", "0%", "0%", "nothing", "0.00"]
    assert lines[5].split() == ["all", "12.45M", "9.877M", "79.4%", "0.95", "1.235M", "12,345", "210", "33,000"]
    assert "33,300 ms: plan 100, filter 1,000, open files 2,000, search 30,000, merge 200" in lines
    assert [line[:2] for line in lines[-3:]] == ["- ", "  ", "- "]
