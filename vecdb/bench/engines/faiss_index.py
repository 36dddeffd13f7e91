"""FAISS: HNSW over float32, HNSW over 8-bit scalar quantisation, and the exact flat index; one thread each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from vecdb.bench.engines.protocol import BenchVectors, Bound, Engine, few_of
from vecdb.types import I64Array, Metric

M = 32
EF_CONSTRUCTION = 200


class FaissIndex(Engine):
    """What the three indexes share: the C call without the checks of FAISS's Python wrapper, and saving."""

    index: Any

    @abstractmethod
    def empty_index(self) -> Any:
        """A new index of the kind."""

    def set_effort(self, effort: int) -> None:
        """Tell the index how hard to search."""

    def prepare(self, vectors: BenchVectors) -> None:
        """Import the library, hold it to one thread."""
        import faiss

        faiss.omp_set_num_threads(1)
        self.faiss, self.vectors = faiss, vectors
        # Under cosine on normalised vectors: distances are then those that FAISS's graph code minimises natively.
        self.by_l2 = vectors.metric is not Metric.DOT
        self.metric = faiss.METRIC_L2 if self.by_l2 else faiss.METRIC_INNER_PRODUCT

    def build(self) -> None:
        """Train where there is something to train, then add all rows in one call."""
        self.index = self.empty_index()
        if not self.index.is_trained:
            self.index.train(self.vectors.unit_train)
        self.index.add(self.vectors.unit_train)

    def bind(self, k: int, effort: int) -> Bound:
        """The C call on pointers made beforehand: FAISS's own wrapper costs several microseconds a call."""
        self.set_effort(max(effort, k))
        queries = np.array(self.vectors.unit_queries)
        count = len(queries)
        found, distances = np.empty((count, k), np.int64), np.empty((count, k), np.float32)
        pointer, search = self.faiss.swig_ptr, self.index.search_c
        at_query, at_found, at_distances = ([pointer(row) for row in array] for array in (queries, found, distances))
        # The pointers keep nothing alive.
        self.pointed_at = (queries, found, distances)
        few = len(few_of(queries))

        def one(at: int) -> I64Array:
            search(1, at_query[at], k, at_distances[at], at_found[at])
            return found[at]  # type: ignore[no-any-return]

        def first(number: int) -> I64Array:
            search(number, at_query[0], k, at_distances[0], at_found[0])
            return found

        return Bound(
            one=one,
            all=lambda: first(count),
            few=lambda: first(few),
            rows_of_one=lambda rows: rows.copy(),
            rows_of_all=lambda rows: rows.copy(),
        )

    def disk_bytes(self) -> int:
        """Size of the saved index."""
        path = self.directory / "saved.faiss"
        self.faiss.write_index(self.index, str(path))
        size_bytes = path.stat().st_size
        path.unlink()
        return size_bytes

    def parameters(self) -> Mapping[str, Any]:
        """The metric, and what the library was compiled with."""
        return {"metric": "L2" if self.by_l2 else "inner product", "compiled": self.faiss.get_compile_options().strip()}


class FaissFlat(FaissIndex):
    """``IndexFlat``: exact, float32."""

    def empty_index(self) -> Any:
        """Under cosine by inner product, which the library scans fastest."""
        if self.vectors.metric is Metric.L2:
            return self.faiss.IndexFlatL2(self.vectors.dim)
        return self.faiss.IndexFlatIP(self.vectors.dim)

    def parameters(self) -> Mapping[str, Any]:
        """The metric, and what the library was compiled with."""
        return {**super().parameters(), "metric": "L2" if self.vectors.metric is Metric.L2 else "inner product"}


class FaissHnsw(FaissIndex):
    """``IndexHNSWFlat``."""

    def empty_index(self) -> Any:
        """M = 32: 64 links at the bottom, FAISS's customary setting."""
        index = self.faiss.IndexHNSWFlat(self.vectors.dim, M, self.metric)
        index.hnsw.efConstruction = EF_CONSTRUCTION
        return index

    def set_effort(self, effort: int) -> None:
        """``efSearch``."""
        self.index.hnsw.efSearch = effort

    def parameters(self) -> Mapping[str, Any]:
        """M and efConstruction."""
        return {**super().parameters(), "M": M, "efConstruction": EF_CONSTRUCTION}


class FaissHnswSq8(FaissHnsw):
    """``IndexHNSWSQ`` with 8 bits a component, without a rerank: its recall ends where the codes do."""

    def empty_index(self) -> Any:
        """As ``FaissHnsw``, over codes."""
        index = self.faiss.IndexHNSWSQ(self.vectors.dim, self.faiss.ScalarQuantizer.QT_8bit, M, self.metric)
        index.hnsw.efConstruction = EF_CONSTRUCTION
        return index
