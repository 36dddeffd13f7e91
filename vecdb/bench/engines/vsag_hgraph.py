"""VSAG's HGraph: a graph over 8-bit codes, reranked by float32, one thread."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from vecdb.bench.engines.protocol import BenchVectors, Bound, Engine, few_of, padded_rows
from vecdb.types import F32Array, Metric

MAX_DEGREE = 64
EF_CONSTRUCTION = 300

EF_SEARCH_MAX = 1_000
"""The library refuses more, by a line of its log and an answer of ``None``."""

METRICS = {Metric.COSINE: "ip", Metric.DOT: "ip", Metric.L2: "l2"}
"""Under cosine the vectors come normalised."""


class VsagHgraph(Engine):
    """``pyvsag.Index("hgraph", ...)``."""

    def prepare(self, vectors: BenchVectors) -> None:
        """Import the library."""
        import pyvsag

        pyvsag.set_logger_off()
        self.vectors = vectors
        self.settings = {
            "dtype": "float32",
            "metric_type": METRICS[vectors.metric],
            "dim": vectors.dim,
            "index_param": {
                "base_quantization_type": "sq8_uniform",
                "max_degree": MAX_DEGREE,
                "ef_construction": EF_CONSTRUCTION,
                "use_reorder": True,
                "precise_quantization_type": "fp32",
                "build_thread_count": 1,
            },
        }
        self.index: Any = pyvsag.Index("hgraph", json.dumps(self.settings))

    def build(self) -> None:
        """Add all rows in one call."""
        # A copy: rows that may not be written to end the process.
        rows = np.array(self.vectors.unit_train)
        self.index.build(rows, np.arange(len(rows), dtype=np.int64), *rows.shape)

    def bind(self, k: int, effort: int) -> Bound:
        """``knn_search`` with one row; it takes no more, so all rows are a loop. Effort is ``ef_search``."""
        search, queries = self.index.knn_search, np.array(self.vectors.unit_queries)
        asked = json.dumps({"hgraph": {"ef_search": min(max(effort, k), EF_SEARCH_MAX)}})
        rows = list(queries)
        few = list(few_of(queries))

        def each_of(asked_rows: list[F32Array]) -> list[Any]:
            return [search(row, k, asked) for row in asked_rows]

        return Bound(
            one=lambda at: search(rows[at], k, asked),
            all=lambda: each_of(rows),
            few=lambda: each_of(few),
            rows_of_one=lambda found: found[0],
            rows_of_all=lambda answers: padded_rows([found[0] for found in answers], k),
        )

    def disk_bytes(self) -> int:
        """Size of the saved index."""
        path = self.directory / "saved.vsag"
        self.index.save(str(path))
        size_bytes = path.stat().st_size
        path.unlink()
        return size_bytes

    def parameters(self) -> Mapping[str, Any]:
        """All that the index was made with."""
        return self.settings
