"""Qdrant Edge: HNSW over 8-bit codes kept in memory, rescored with the float32 vectors; one segment."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vecdb.bench.engines.database import Database, RowBatch
from vecdb.types import Metric

M = 16
EF_CONSTRUCTION = 200
QUANTILE = 0.99
OVERSAMPLING = 2.0
FULL_SCAN_KB = 1_000
INDEXING_KB = 100

METRICS = {Metric.COSINE: "Cosine", Metric.DOT: "Dot", Metric.L2: "Euclid"}


class QdrantEdge(Database):
    """``qdrant_edge.EdgeShard``."""

    # Its log is written but not synced before an update returns.
    durable = False
    metrics = METRICS

    def load_library(self) -> None:
        """Import the library."""
        import qdrant_edge

        self.qdrant = qdrant_edge

    def create(self) -> None:
        """The field's index is made first: the graph then gets links within ranges of the field."""
        qdrant, threads = self.qdrant, len(os.sched_getaffinity(0))
        config = qdrant.EdgeConfig(
            vectors=qdrant.EdgeVectorParams(self.vectors.dim, getattr(qdrant.Distance, self.metric)),
            hnsw_config=qdrant.HnswIndexConfig(M, EF_CONSTRUCTION, FULL_SCAN_KB, max_indexing_threads=threads),
            quantization_config=qdrant.ScalarQuantizationConfig(
                qdrant.ScalarType.Int8, quantile=QUANTILE, memory=qdrant.Memory.Pinned
            ),
            optimizers=qdrant.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=INDEXING_KB),
            max_search_threads=1,
        )
        (self.directory / "shard").mkdir()
        self.shard = qdrant.EdgeShard.create(str(self.directory / "shard"), config)
        index = qdrant.IntegerIndexParams(lookup=False, range=True)
        self.shard.update(qdrant.UpdateOperation.create_field_index("bucket", index))

    def insert(self, batch: RowBatch) -> None:
        """``upsert_points``."""
        point = self.qdrant.Point
        points = [
            point(id, vector, {"bucket": bucket, "text": text})
            for id, vector, bucket, text in zip(
                batch.ids, batch.vectors.tolist(), batch.buckets, batch.texts, strict=True
            )
        ]
        self.shard.update(self.qdrant.UpdateOperation.upsert_points(points))

    def finish(self) -> None:
        """``optimize``, which merges and builds the graph, and ``flush``."""
        self.shard.optimize()
        self.shard.flush()

    def open_again(self) -> None:
        """``EdgeShard.load``."""
        self.shard = self.qdrant.EdgeShard.load(str(self.directory / "shard"))

    def asker(self, k: int, effort: int | None, below: int | None) -> Callable[[int], Any]:
        """``search`` with ``hnsw_ef``, rescoring twice as many as asked for; lists are what it takes fastest."""
        qdrant, search = self.qdrant, self.shard.search
        request, nearest = qdrant.SearchRequest, qdrant.Query.Nearest
        rows = self.vectors.queries.tolist()
        params = qdrant.SearchParams(
            hnsw_ef=effort,
            quantization=qdrant.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING),
        )
        where = None
        if below is not None:
            where = qdrant.Filter(must=[qdrant.FieldCondition("bucket", range=qdrant.RangeFloat(lt=below))])
        return lambda at: search(request(nearest(rows[at]), k, filter=where, params=params))

    def rows_of(self, found: Any) -> Sequence[int]:
        """Ids are the rows' numbers."""
        return [int(point.id) for point in found]

    def parameters(self) -> Mapping[str, Any]:
        """Graph, codes and rescoring."""
        return {
            "m": M,
            "ef_construct": EF_CONSTRUCTION,
            "quantization": "int8, in memory",
            "oversampling": OVERSAMPLING,
            "full_scan_threshold_kb": FULL_SCAN_KB,
        }

    def facts(self) -> Mapping[str, Any]:
        """Segments, and rows without an index."""
        info = self.shard.info()
        return {"segments": info.segments_count, "unindexed_rows": info.points_count - info.indexed_vectors_count}

    def close(self) -> None:
        """Close the shard."""
        self.shard.close()
