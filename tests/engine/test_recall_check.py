"""Checks of live queries: counted, off the request path, holding nothing, and with the effect that they are for."""

import time
from dataclasses import replace

import numpy as np
import pytest

from tests.engine.conftest import SMALL
from vecdb.engine.check import check_database
from vecdb.engine.options import EngineOptions
from vecdb.errors import InvalidArgument
from vecdb.index.hnsw import RecallEstimate
from vecdb.index.hnsw.curves import SLACK_ONE
from vecdb.kernels.arrays import Beam
from vecdb.schema import IndexKind, IndexSpec

HARD = 16
CHECKED = replace(SMALL, memtable_size_bytes=2**24, recall_check_busy_share_max=1.0)
N = 3000


@pytest.fixture
def stored():
    return np.random.default_rng(8).standard_normal((N, HARD)).astype(np.float32)


def filled(database, stored):
    docs = database.create_collection("c", HARD, "l2", IndexSpec(IndexKind.HNSW, m=4, ef_construction=16))
    docs.upsert(list(range(len(stored))), stored)
    indexed(docs, stored)
    return docs


def indexed(docs, stored):
    """Return once searches walk: a graph is committed a moment before they do."""
    docs.wait_indexed(60)
    while docs.search(stored[0], k=3).strategy != "graph":
        time.sleep(0.005)


def checked(docs):
    with docs._lease() as collection:
        assert collection.wait_recall_checked(30)


class Boasts:
    """Knows of too narrow a walk that it gives the recall that was asked for, and of broader ones by how much more."""

    def beam(self, k, recall, selectivity=1.0):
        miss = max(1 - recall, 1e-4)
        return Beam(400, SLACK_ONE + int(0.04 * (0.05 / miss) * SLACK_ONE))

    def recall_of(self, beam, k, selectivity=1.0):
        return RecallEstimate(1 - min(1.0, 0.05 * 0.04 / max((beam.slack - SLACK_ONE) / SLACK_ONE, 1e-6)))


def mean_recall(docs, stored, queries):
    found = docs.search_batch(queries, k=10, recall=0.95)
    right = np.argsort(((queries[:, None] - stored) ** 2).sum(axis=2), axis=1)[:, :10]
    return np.mean([len(set(a.ids) & set(b)) / 10 for a, b in zip(found, right.tolist(), strict=True)])


def test_a_boastful_calibration_is_corrected_by_500_queries(open_database, stored):
    queries = np.random.default_rng(9).standard_normal((700, HARD)).astype(np.float32)
    with open_database(CHECKED) as database:
        docs = filled(database, stored)
        with docs._lease() as collection:
            (segment,) = collection._state.view.segments
            segment.reader.field("").graph.breadth = Boasts()
        before = mean_recall(docs, stored, queries[500:])
        assert before < 0.93
        for number, query in enumerate(queries[:500]):
            docs.search(query, k=10, recall=0.95)
            if number % 20 == 0:
                checked(docs)
        checked(docs)
        assert mean_recall(docs, stored, queries[500:]) >= 0.95 - 0.015
        (live,) = docs.stats().live_recall
        assert live.samples >= 100
        assert live.correction > 1.5
        assert abs(live.estimate - mean_recall(docs, stored, queries[500:])) < 0.03
        assert abs(docs.search(queries[0], k=10, recall=0.95).recall_estimate - live.estimate) < 0.03


def test_checks_measure_by_vectors_what_codes_cannot_tell_apart(open_database):
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((15, 32))[rng.integers(0, 15, N + 240)]
    rows = (centres + 0.01 * rng.standard_normal(centres.shape)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    stored, queries = rows[:N], rows[N:]
    right = np.argsort(-(queries.astype(np.float64) @ stored.T), axis=1)[:, :10]
    assert (np.sort(queries @ stored.T, axis=1)[:, -10] > 0.9998).all()
    with open_database(CHECKED) as database:
        docs = database.create_collection("c", 32, "cosine", IndexSpec(IndexKind.HNSW, m=8, ef_construction=48))
        docs.upsert(list(range(N)), stored)
        docs.wait_indexed(60)
        while docs.search(stored[0], k=10, ef=40).strategy != "graph":
            time.sleep(0.005)
        found = []
        for number, query in enumerate(queries):
            hits = docs.search(query, k=10, ef=40)
            assert hits.strategy == "graph"
            found.append(len(set(hits.ids) & set(right[number].tolist())) / 10)
            if number % 20 == 0:
                checked(docs)
        checked(docs)
        (live,) = docs.stats().live_recall
        assert live.recall == 0.0
        assert live.samples >= 40
        # A measurement by codes would find next to nothing missed.
        assert np.mean(found) < 0.9
        assert abs(live.estimate - np.mean(found)) < 0.05
        assert live.low - 0.02 <= np.mean(found) <= live.high + 0.02
        assert abs(docs.search(queries[0], k=10, ef=40).recall_estimate - np.mean(found)) < 0.07


def test_every_graph_is_calibrated_merged_ones_too(open_database, stored, tmp_path):
    with open_database(CHECKED) as database:
        docs = filled(database, stored)
        docs.upsert(list(range(N, 2 * N)), stored[::-1])
        indexed(docs, stored)
        (calibration,) = docs.stats().calibration
        assert (calibration.graphs, calibration.calibrated) == (2, 2)
        costs = [calibration.distance_computations[recall] for recall in (0.9, 0.95, 0.99)]
        assert 0 < costs[0] < costs[1] < costs[2] < 2 * N
        docs.compact(60)
        docs.search(stored[0], k=3)
        (calibration,) = docs.stats().calibration
        assert (calibration.graphs, calibration.calibrated) == (1, 1)
    assert check_database(tmp_path / "db").problems == ()


def test_no_check_where_none_is_wanted_or_nothing_is_walked(open_database, stored):
    with open_database(replace(CHECKED, recall_checked_share=0.0)) as database:
        docs = filled(database, stored)
        for query in stored[:40]:
            docs.search(query, k=3)
        checked(docs)
        assert "recall_checks" not in docs.stats().events
    with open_database(CHECKED) as database:
        docs = database.collection("c")
        for query in stored[:40]:
            docs.search(query, k=3, recall="exact")
        checked(docs)
        assert "recall_checks" not in docs.stats().events
        docs.search_batch(stored[:40], k=3)
        checked(docs)
        assert 0 < docs.stats().events["recall_checks"] <= 8


def test_what_waits_to_be_checked_holds_no_segment(open_database, stored, tmp_path):
    with open_database(replace(CHECKED, recall_check_busy_share_max=0.001)) as database:
        docs = filled(database, stored)
        docs.upsert(list(range(N, N + 100)), stored[:100])
        docs.flush()
        for query in stored[:200]:
            docs.search(query, k=3)
        with docs._lease() as collection:
            assert not collection.wait_recall_checked(0)
        before = {path.name for path in tmp_path.rglob("*.ids.*")}
        docs.compact(60)
        docs.purge(60)
        after = {path.name for path in tmp_path.rglob("*.ids.*")}
        assert len(before) == 2
        assert len(after) == 1
        assert not before & after
        # Closing finds checks that wait, and a pause of seconds.


def test_absurd_options_are_refused():
    for named, value in (
        ("recall_checked_share", 0.5),
        ("recall_checked_share", -1),
        ("recall_check_busy_share_max", 0),
    ):
        with pytest.raises(InvalidArgument, match=named):
            EngineOptions(**{named: value})
