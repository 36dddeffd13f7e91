"""Scalable Vector Search (SVS): a flat Vamana graph over half-width or full-width vectors, one thread.

Its compressed vectors (LVQ, LeanVec) are left out: the library refuses them on processors of other makers than its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vecdb.bench.engines.protocol import BenchVectors, Bound, Engine, few_of
from vecdb.bench.memory import allocated_bytes
from vecdb.types import Metric

WINDOW_SIZE = 200

ALPHA_L2 = 1.2
ALPHA_INNER_PRODUCT = 0.95
"""What the library recommends: above 1 for a distance, below 1 for a similarity."""


class SvsVamana(Engine):
    """``svs.Vamana``."""

    def __init__(self, directory: Path, seed: int, dtype: str, degree: int) -> None:
        super().__init__(directory, seed)
        self.dtype = np.dtype(dtype)
        self.degree = degree

    def prepare(self, vectors: BenchVectors) -> None:
        """Import the library."""
        import svs

        self.svs, self.vectors = svs, vectors
        self.by_l2 = vectors.metric is Metric.L2
        self.alpha = ALPHA_L2 if self.by_l2 else ALPHA_INNER_PRODUCT

    def build(self) -> None:
        """Convert, which the library leaves to its user, and build the graph."""
        distances = self.svs.DistanceType
        parameters = self.svs.VamanaBuildParameters(
            alpha=self.alpha, graph_max_degree=self.degree, window_size=WINDOW_SIZE
        )
        rows = self.vectors.unit_train.astype(self.dtype)
        self.index: Any = self.svs.Vamana.build(parameters, rows, distances.L2 if self.by_l2 else distances.MIP, 1)
        self.index.num_threads = 1

    def bind(self, k: int, effort: int) -> Bound:
        """``search`` with one row, and with all rows; effort is ``search_window_size``."""
        # What else there is to set (prefetching, the visited set) stays as the library chose it for these vectors.
        parameters = self.index.search_parameters
        parameters.buffer_config = self.svs.SearchBufferConfig(max(effort, k))
        self.index.search_parameters = parameters
        search, queries = self.index.search, np.array(self.vectors.unit_queries)
        rows = list(queries)
        few = few_of(queries)
        return Bound(
            one=lambda at: search(rows[at], k),
            all=lambda: search(queries, k),
            few=lambda: search(few, k),
            rows_of_one=lambda found: found[0][0].astype(np.int64),
            rows_of_all=lambda found: found[0].astype(np.int64),
        )

    def disk_bytes(self) -> int:
        """Size of the three directories that a saved index consists of."""
        path = self.directory / "saved.svs"
        path.mkdir()
        self.index.save(*(str(path / part) for part in ("config", "graph", "data")))
        size_bytes = allocated_bytes(path)
        shutil.rmtree(path)
        return size_bytes

    def parameters(self) -> Mapping[str, Any]:
        """The graph's parameters, and what is stored."""
        return {
            "graph_max_degree": self.degree,
            "window_size": WINDOW_SIZE,
            "alpha": self.alpha,
            "metric": "L2" if self.by_l2 else "inner product",
            "dtype": self.dtype.name,
        }
