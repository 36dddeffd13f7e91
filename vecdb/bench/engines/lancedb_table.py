"""LanceDB: one partition with HNSW over 8-bit codes, refined with the float32 vectors, and a B-tree on the field."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vecdb.bench.engines.database import Database, RowBatch
from vecdb.types import Metric

M = 16
EF_CONSTRUCTION = 200
REFINED = 2

METRICS = {Metric.COSINE: "cosine", Metric.DOT: "dot", Metric.L2: "l2"}


class LancedbTable(Database):
    """``lancedb.table.Table``."""

    durable = False
    metrics = METRICS

    def load_library(self) -> None:
        """Import the library; its scheduler writes a line for every search unless it is told not to."""
        os.environ.setdefault("LANCE_LOG", "error")
        import lancedb
        import lancedb.index
        import pyarrow

        self.lancedb, self.arrow = lancedb, pyarrow

    def create(self) -> None:
        """An empty table."""
        arrow = self.arrow
        self.schema = arrow.schema(
            [
                ("id", arrow.int64()),
                ("bucket", arrow.int64()),
                ("text", arrow.string()),
                ("vector", arrow.list_(arrow.float32(), self.vectors.dim)),
            ]
        )
        self.table = self.lancedb.connect(str(self.directory)).create_table("bench", schema=self.schema)

    def insert(self, batch: RowBatch) -> None:
        """``add`` an Arrow table."""
        arrow = self.arrow
        vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(batch.vectors.reshape(-1)), self.vectors.dim)
        columns = [arrow.array(batch.ids, arrow.int64()), arrow.array(batch.buckets), arrow.array(batch.texts), vectors]
        self.table.add(arrow.table(columns, schema=self.schema))

    def finish(self) -> None:
        """Merge the fragments, then build both indexes."""
        index = self.lancedb.index
        self.table.optimize()
        self.table.create_index(
            "vector",
            config=index.HnswSq(distance_type=self.metric, num_partitions=1, m=M, ef_construction=EF_CONSTRUCTION),
        )
        self.table.create_index("bucket", config=index.BTree())
        self.table.optimize()

    def open_again(self) -> None:
        """``open_table``."""
        self.table = self.lancedb.connect(str(self.directory)).open_table("bench")

    def asker(self, k: int, effort: int | None, below: int | None) -> Callable[[int], Any]:
        """``search`` in the one partition, reranking twice as many as asked for."""
        search, rows = self.table.search, list(np.array(self.vectors.queries))
        where = None if below is None else f"bucket < {below}"
        # It refuses a candidate list that is shorter than what it reranks.
        ef = None if effort is None else max(effort, REFINED * k)

        def one(at: int) -> Any:
            query = search(rows[at], vector_column_name="vector").limit(k).select(["id", "_distance"])
            query = query.nprobes(1).ef(ef).refine_factor(REFINED)
            return (query if where is None else query.where(where, prefilter=True)).to_arrow()

        return one

    def rows_of(self, found: Any) -> Sequence[int]:
        """The column of ids."""
        return [int(id) for id in found.column("id").to_pylist()]

    def parameters(self) -> Mapping[str, Any]:
        """Graph, codes and refining."""
        return {"index": "HNSW_SQ, 1 partition", "m": M, "ef_construction": EF_CONSTRUCTION, "refine_factor": REFINED}
