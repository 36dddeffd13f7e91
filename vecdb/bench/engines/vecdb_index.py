"""vecdb's HNSW index alone: codes, graph and float32 rerank over arrays in memory, without the database around them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vecdb.bench.engines.protocol import BenchVectors, Bound, Engine, few_of
from vecdb.bench.engines.vecdb_embedded import index_spec


class VecdbIndex(Engine):
    """``HnswIndex`` on the kernels of this CPU. Under cosine it gets normalised vectors, as the engine stores them."""

    def prepare(self, vectors: BenchVectors) -> None:
        """Load or compile the kernels."""
        from vecdb.kernels.cpu import CpuKernels

        self.vectors = vectors
        self.kernels = CpuKernels()
        self.kernels.warm_up()

    def build(self) -> None:
        """Copy the vectors, encode them, build the graph."""
        from vecdb.index.codes import ScalarCodes
        from vecdb.index.hnsw import HnswBuilder, HnswIndex, HnswParams
        from vecdb.kernels.memory import aligned_copy

        spec = index_spec(self.seed)
        # A copy, as the other engines make one: it counts as memory of the index. Files are mapped as aligned as it is.
        rows = aligned_copy(self.vectors.unit_train)
        codes = ScalarCodes.encode(self.kernels, rows, self.vectors.metric)
        builder = HnswBuilder(self.kernels, codes, HnswParams(spec.m, spec.ef_construction, spec.seed))
        builder.run()
        graph = builder.arrays()
        self.size_bytes = sum(array.nbytes for array in (rows, *codes.arrays().values(), *graph.values()))
        self.index = HnswIndex.from_arrays(self.kernels, graph, codes, rows)

    def bind(self, k: int, effort: int) -> Bound:
        """``search`` with one row, and with all rows."""
        from vecdb.index.hnsw import beam_for_recall, recall_of_ef

        beam = beam_for_recall(k, recall_of_ef(k, effort))
        search, queries = self.index.search, np.array(self.vectors.unit_queries)
        rows = list(queries[:, np.newaxis, :])
        few = few_of(queries)
        return Bound(
            one=lambda at: search(rows[at], k, beam=beam),
            all=lambda: search(queries, k, beam=beam),
            few=lambda: search(few, k, beam=beam),
            rows_of_one=lambda answer: answer.topk.slots[0].astype(np.int64),
            rows_of_all=lambda answer: answer.topk.slots.astype(np.int64),
        )

    def disk_bytes(self) -> int:
        """Size of the arrays that a segment would hold for it."""
        return self.size_bytes

    def parameters(self) -> Mapping[str, Any]:
        """The index and the kernels."""
        spec = index_spec(self.seed)
        return {"M": spec.m, "ef_construction": spec.ef_construction, "seed": spec.seed, "kernels": self.kernels.name}

    def facts(self) -> Mapping[str, Any]:
        """One graph over all rows."""
        return {"segments": 1}
