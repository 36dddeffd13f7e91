"""Results hold ``min(k, matches)`` rows, also where a walk through the graph meets fewer that match."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.crash.observe import ranking_differences
from tests.walking import WALKS
from vecdb.engine.database import EmbeddedDatabase, choose_kernels
from vecdb.engine.options import EngineOptions
from vecdb.schema import IndexSpec
from vecdb.types import Metric

ROWS, DIM = 240, 6
OPTIONS = EngineOptions(graph_rows_min=20, search_costs=WALKS, kernels="reference")


def test_a_walk_finds_as_many_as_match_however_far_they_are(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    # Three rows in ten are far from the queries, behind all the others.
    near = np.arange(ROWS) % 10 < 7
    vectors = chance.standard_normal((ROWS, DIM)).astype(np.float32) + np.where(near, 0, 9)[:, None].astype(np.float32)
    queries = chance.standard_normal((2, DIM)).astype(np.float32)
    with EmbeddedDatabase.open(tmp_path / "db", options=OPTIONS, kernels=choose_kernels("reference")) as database:
        collection = database.create_collection("docs", dim=DIM, metric="l2", index=IndexSpec(m=4, ef_construction=16))
        collection.upsert(range(ROWS), vectors, [{"near": bool(each)} for each in near])
        collection.wait_indexed(60)
        strategies: set[str] = set()
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
                        strategies.add(hits.strategy)
        assert strategies == {"exact", "graph"}
        assert "graph_fell_back_to_scan" not in collection.stats().events
