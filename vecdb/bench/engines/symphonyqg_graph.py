"""SymphonyQG as rabitqlib has it: a graph that keeps one-bit codes of its neighbours with each node, one thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vecdb.bench.engines.protocol import BenchVectors, Bound, Engine, few_of
from vecdb.types import F32Array, Metric

DEGREE = 32
EF_CONSTRUCTION = 400

DIM_MIN = 64
"""The library's rotation knows no fewer dimensions."""


class SymphonyqgGraph(Engine):
    """``rabitqlib.SymqgIndex`` over float32: distances of expanded nodes are exact, so there is nothing to rerank."""

    def prepare(self, vectors: BenchVectors) -> None:
        """Import the library."""
        from rabitqlib import SymqgIndex

        self.vectors = vectors
        # Under cosine on normalised vectors: the order is the same.
        self.metric = "ip" if vectors.metric is Metric.DOT else "l2"
        self.index: Any = SymqgIndex(max(vectors.dim, DIM_MIN), DEGREE, self.metric)
        self.queries = filled(vectors.unit_queries)

    def build(self) -> None:
        """Build the graph over all rows."""
        self.index.build(filled(self.vectors.unit_train), EF_CONSTRUCTION, num_threads=1)

    def bind(self, k: int, effort: int) -> Bound:
        """``search`` with one row, and with all rows."""
        search, queries, ef = self.index.search, np.array(self.queries), max(effort, k)
        rows = list(queries[:, np.newaxis, :])
        few = few_of(queries)
        return Bound(
            one=lambda at: search(rows[at], k, ef, 1),
            all=lambda: search(queries, k, ef, 1),
            few=lambda: search(few, k, ef, 1),
            rows_of_one=lambda found: found[0][0].astype(np.int64),
            rows_of_all=lambda found: found[0].astype(np.int64),
        )

    def disk_bytes(self) -> int:
        """Size of the saved index."""
        path = self.directory / "saved.symphonyqg"
        self.index.save(str(path))
        size_bytes = path.stat().st_size
        path.unlink()
        return size_bytes

    def parameters(self) -> Mapping[str, Any]:
        """Degree and ef_construction."""
        return {
            "max_degree": DEGREE,
            "ef_construction": EF_CONSTRUCTION,
            "metric": self.metric,
            "dim": max(self.vectors.dim, DIM_MIN),
        }


def filled(rows: F32Array) -> F32Array:
    """``rows`` with zeros up to ``DIM_MIN`` dimensions, which change no distance; unchanged where there are enough."""
    missing = DIM_MIN - rows.shape[1]
    return rows if missing <= 0 else np.pad(rows, ((0, 0), (0, missing)))
