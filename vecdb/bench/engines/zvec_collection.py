"""zvec: HNSW or Vamana over 8-bit codes, refined with the float32 vectors, opened for reading when it is searched."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vecdb.bench.engines.database import Database, RowBatch
from vecdb.types import Metric

M = 16
EF_CONSTRUCTION = 200

VAMANA_DEGREE = 32
VAMANA_LIST = 200
VAMANA_ALPHA = 1.2

REFINED = 2.0
"""Candidates reranked, as a multiple of k."""

METRICS = {Metric.COSINE: "COSINE", Metric.DOT: "IP", Metric.L2: "L2"}


class ZvecCollection(Database):
    """``zvec.Collection``.

    Parameters
    ----------
    vamana
        A Vamana graph instead of HNSW.
    """

    durable = False
    metrics = METRICS

    def __init__(self, directory: Path, seed: int, vamana: bool = False) -> None:
        super().__init__(directory, seed)
        self.vamana = vamana

    def load_library(self) -> None:
        """Import and start the library with as many threads as it has cores."""
        import zvec

        self.zvec = zvec
        threads = len(os.sched_getaffinity(0))
        zvec.init(query_threads=1, optimize_threads=threads, log_level=zvec.LogLevel.ERROR)

    def create(self) -> None:
        """A collection with an index on the integer field for ranges."""
        zvec = self.zvec
        metric = getattr(zvec.MetricType, self.metric)
        shared = {"quantize_type": zvec.QuantizeType.INT8, "use_contiguous_memory": True}
        graph = (
            zvec.VamanaIndexParam(
                metric, max_degree=VAMANA_DEGREE, search_list_size=VAMANA_LIST, alpha=VAMANA_ALPHA, **shared
            )
            if self.vamana
            else zvec.HnswIndexParam(metric, m=M, ef_construction=EF_CONSTRUCTION, **shared)
        )
        schema = zvec.CollectionSchema(
            "bench",
            fields=[
                zvec.FieldSchema(
                    "bucket",
                    zvec.DataType.INT64,
                    index_param=zvec.InvertIndexParam(enable_range_optimization=True),
                ),
                zvec.FieldSchema("text", zvec.DataType.STRING),
            ],
            vectors=[zvec.VectorSchema("vector", zvec.DataType.VECTOR_FP32, self.vectors.dim, index_param=graph)],
        )
        self.collection = zvec.create_and_open(str(self.directory / "collection"), schema)

    def insert(self, batch: RowBatch) -> None:
        """``insert``; each row has a status of its own."""
        document = self.zvec.Doc
        statuses = self.collection.insert(
            [
                document(id=str(id), vectors={"vector": vector}, fields={"bucket": bucket, "text": text})
                for id, vector, bucket, text in zip(batch.ids, batch.vectors, batch.buckets, batch.texts, strict=True)
            ]
        )
        refused = [status for status in statuses if not status.ok()]
        if refused:
            raise RuntimeError(f"{len(refused)} rows were refused: {refused[0]}")

    def finish(self) -> None:
        """``optimize``, which builds the graph, and ``flush``."""
        self.collection.optimize()
        self.collection.flush()

    def open_again(self) -> None:
        """Read-only, which opens its fastest way to search."""
        option = self.zvec.CollectionOption(read_only=True)
        self.collection = self.zvec.open(str(self.directory / "collection"), option)

    def asker(self, k: int, effort: int | None, below: int | None) -> Callable[[int], Any]:
        """``query_internal_ids`` and the ids that belong to them."""
        query, collection = self.zvec.Query, self.collection
        search, resolve = collection.query_internal_ids, collection.resolve_internal_ids
        param = (
            self.zvec.VamanaQueryParam(ef_search=effort, is_using_refiner=True, scale_factor=REFINED)
            if self.vamana
            else self.zvec.HnswQueryParam(ef=effort, is_using_refiner=True, scale_factor=REFINED)
        )
        rows = list(np.array(self.vectors.queries))
        where = None if below is None else f"bucket < {below}"
        return lambda at: resolve(search(query("vector", vector=rows[at], param=param), topk=k, filter=where))

    def rows_of(self, found: Any) -> Sequence[int]:
        """Ids are the rows' numbers as text; ``None`` stands where fewer were found."""
        return [int(id) for id in found if id is not None]

    def parameters(self) -> Mapping[str, Any]:
        """Graph, codes and refining."""
        graph = (
            {"max_degree": VAMANA_DEGREE, "search_list_size": VAMANA_LIST, "alpha": VAMANA_ALPHA}
            if self.vamana
            else {"m": M, "ef_construction": EF_CONSTRUCTION}
        )
        return {**graph, "quantize_type": "INT8", "use_contiguous_memory": True, "scale_factor": REFINED}

    def close(self) -> None:
        """Close the collection."""
        self.collection.close()
