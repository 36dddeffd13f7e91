"""Results hold ``min(k, matches)`` rows, also where a walk through the graph meets fewer that match."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.crash.observe import ranking_differences
from vecdb.engine.database import EmbeddedDatabase, choose_kernels
from vecdb.engine.options import EngineOptions
from vecdb.schema import IndexSpec
from vecdb.types import Metric

ROWS, DIM = 240, 6
OPTIONS = EngineOptions(graph_rows_min=20, kernels="reference")


def test_a_graph_that_finds_too_few_is_completed_by_a_scan(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    # The rows that match are far from the queries: a narrow beam fills with rows that may not be returned.
    near = np.arange(ROWS) % 10 < 7
    vectors = chance.standard_normal((ROWS, DIM)).astype(np.float32) + np.where(near, 0, 9)[:, None].astype(np.float32)
    queries = chance.standard_normal((6, DIM)).astype(np.float32)
    with EmbeddedDatabase.open(tmp_path / "db", options=OPTIONS, kernels=choose_kernels("reference")) as database:
        collection = database.create_collection("docs", dim=DIM, metric="l2", index=IndexSpec(m=4, ef_construction=16))
        collection.upsert(range(ROWS), vectors, [{"near": bool(each)} for each in near])
        collection.wait_indexed(60)
        for wanted in (True, False):
            allowed = {int(row): vectors[row] for row in np.flatnonzero(near == wanted)}
            for ef in (None, 1, 12):
                for k in (1, 5, 30, 71, 100, 500):
                    answers = collection.search_batch(queries, k, where="near = :near", params={"near": wanted}, ef=ef)
                    for query, hits in zip(queries, answers, strict=True):
                        wrong = ranking_differences(
                            hits.ids, hits.distances.tolist(), allowed, query, Metric.L2, k, exact=False
                        )
                        assert not wrong, (wrong, ef, k, hits.strategy)
                        assert hits.complete
        assert collection.stats().events["graph_fell_back_to_scan"] > 0
        assert "graph" in collection.search(queries[0], 5).strategy
