"""USearch: HNSW over float32, one thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vecdb.bench.engines.protocol import BenchVectors, Bound, Engine, few_of, padded_rows
from vecdb.types import I64Array, Metric

CONNECTIVITY = 16
EXPANSION_ADD = 200

METRICS = {Metric.COSINE: "ip", Metric.DOT: "ip", Metric.L2: "l2sq"}
"""Under cosine the vectors come normalised; its own cosine would measure norms again at every distance."""


class UsearchGraph(Engine):
    """``usearch.index.Index``."""

    def prepare(self, vectors: BenchVectors) -> None:
        """Import the library."""
        from usearch.index import Index

        self.vectors = vectors
        self.index: Any = Index(
            ndim=vectors.dim,
            metric=METRICS[vectors.metric],
            dtype="f32",
            connectivity=CONNECTIVITY,
            expansion_add=EXPANSION_ADD,
            enable_key_lookups=False,
        )

    def build(self) -> None:
        """Add all rows in one call; by default it would use every core."""
        count = len(self.vectors.unit_train)
        self.index.add(np.arange(count, dtype=np.uint64), self.vectors.unit_train, threads=1)

    def bind(self, k: int, effort: int) -> Bound:
        """``search`` with one row, and with all rows."""
        self.index.expansion_search = max(effort, k)
        search, queries = self.index.search, np.array(self.vectors.unit_queries)
        rows = list(queries[:, np.newaxis, :])
        few = few_of(queries)

        def rows_of_all(found: Any) -> I64Array:
            if len(queries) == 1:  # a batch of one comes back as a single ranking
                return padded_rows([found.keys.astype(np.int64)], k)
            return padded_rows(
                [keys[:count].astype(np.int64) for keys, count in zip(found.keys, found.counts, strict=True)], k
            )

        return Bound(
            one=lambda at: search(rows[at], k, threads=1),
            all=lambda: search(queries, k, threads=1),
            few=lambda: search(few, k, threads=1),
            rows_of_one=lambda found: found.keys.astype(np.int64),
            rows_of_all=rows_of_all,
        )

    def disk_bytes(self) -> int:
        """Size of the saved index."""
        path = self.directory / "saved.usearch"
        self.index.save(str(path))
        size_bytes = path.stat().st_size
        path.unlink()
        return size_bytes

    def parameters(self) -> Mapping[str, Any]:
        """Connectivity and expansion, and the instruction set in use."""
        return {
            "connectivity": CONNECTIVITY,
            "expansion_add": EXPANSION_ADD,
            "metric": METRICS[self.vectors.metric],
            "dtype": "f32",
            "hardware": str(self.index.hardware_acceleration),
        }
