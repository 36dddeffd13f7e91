"""hnswlib, the reference that every ratio refers to: HNSW over float32, one thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vecdb.bench.engines.protocol import BenchVectors, Bound, Engine, few_of
from vecdb.types import Metric

M = 16
EF_CONSTRUCTION = 200

SPACES = {Metric.COSINE: "ip", Metric.DOT: "ip", Metric.L2: "l2"}
"""Under cosine the vectors come normalised, which spares hnswlib from doing it again for every query."""


class HnswlibGraph(Engine):
    """``hnswlib.Index``."""

    def prepare(self, vectors: BenchVectors) -> None:
        """Import the library."""
        import hnswlib

        self.vectors = vectors
        self.index = hnswlib.Index(space=SPACES[vectors.metric], dim=vectors.dim)

    def build(self) -> None:
        """Insert all rows in order."""
        self.index.init_index(len(self.vectors.train), M=M, ef_construction=EF_CONSTRUCTION, random_seed=self.seed)
        # Without this it starts a thread a core for every call of more than a few rows.
        self.index.set_num_threads(1)
        self.index.add_items(self.vectors.unit_train, num_threads=1)

    def bind(self, k: int, effort: int) -> Bound:
        """``knn_query`` with one row, and with all rows."""
        self.index.set_ef(max(effort, k))
        search, queries = self.index.knn_query, np.array(self.vectors.unit_queries)
        rows = list(queries)
        few = few_of(queries)
        return Bound(
            one=lambda at: search(rows[at], k, 1),
            all=lambda: search(queries, k, 1),
            few=lambda: search(few, k, 1),
            rows_of_one=lambda found: found[0][0].astype(np.int64),
            rows_of_all=lambda found: found[0].astype(np.int64),
        )

    def disk_bytes(self) -> int:
        """Size of the saved index."""
        path = self.directory / "saved.hnswlib"
        self.index.save_index(str(path))
        size_bytes = path.stat().st_size
        path.unlink()
        return size_bytes

    def parameters(self) -> Mapping[str, Any]:
        """M and ef_construction."""
        return {"M": M, "ef_construction": EF_CONSTRUCTION, "space": SPACES[self.vectors.metric], "seed": self.seed}
