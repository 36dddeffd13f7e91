"""Milvus Lite: its engine in this process, HNSW over float32, an inverted index on the field."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vecdb.bench.engines.database import Database, RowBatch
from vecdb.types import Metric

NAME = "bench"
M = 16
EF_CONSTRUCTION = 200
TEXT_MAX = 256

METRICS = {Metric.COSINE: "COSINE", Metric.DOT: "IP", Metric.L2: "L2"}


class MilvusLiteCollection(Database):
    """``milvus_lite.MilvusLite``, without the gRPC server that its other interface goes through."""

    durable = False
    metrics = METRICS

    def load_library(self) -> None:
        """Import the library."""
        import milvus_lite

        self.milvus = milvus_lite

    def create(self) -> None:
        """One collection."""
        field, kind = self.milvus.FieldSchema, self.milvus.DataType
        schema = self.milvus.CollectionSchema(
            fields=[
                field(name="id", dtype=kind.INT64, is_primary=True),
                field(name="vector", dtype=kind.FLOAT_VECTOR, dim=self.vectors.dim),
                field(name="bucket", dtype=kind.INT64),
                field(name="text", dtype=kind.VARCHAR, max_length=TEXT_MAX),
            ]
        )
        self.database = self.milvus.MilvusLite(str(self.directory / "database"))
        self.collection = self.database.create_collection(NAME, schema)

    def insert(self, batch: RowBatch) -> None:
        """``insert``."""
        self.collection.insert(
            [
                {"id": id, "vector": vector, "bucket": bucket, "text": text}
                for id, vector, bucket, text in zip(
                    batch.ids, batch.vectors.tolist(), batch.buckets, batch.texts, strict=True
                )
            ]
        )

    def finish(self) -> None:
        """``flush``, both indexes, ``load``."""
        self.collection.flush()
        self.collection.create_index(
            "vector",
            {
                "index_type": "HNSW",
                "metric_type": self.metric,
                "params": {"M": M, "efConstruction": EF_CONSTRUCTION},
            },
        )
        self.collection.create_index("bucket", {"index_type": "INVERTED"})
        self.collection.load()

    def open_again(self) -> None:
        """``get_collection`` and ``load``."""
        self.database = self.milvus.MilvusLite(str(self.directory / "database"))
        self.collection = self.database.get_collection(NAME)
        self.collection.load()

    def asker(self, k: int, effort: int | None, below: int | None) -> Callable[[int], Any]:
        """``search``."""
        search, rows, metric = self.collection.search, [[row] for row in self.vectors.queries.tolist()], self.metric
        where = None if below is None else f"bucket < {below}"
        params = {"ef": effort}
        return lambda at: search(
            rows[at], top_k=k, metric_type=metric, expr=where, output_fields=["id"], search_params=params
        )

    def rows_of(self, found: Any) -> Sequence[int]:
        """Ids are the rows' numbers."""
        return [int(hit["id"]) for hit in found[0]]

    def parameters(self) -> Mapping[str, Any]:
        """The graph."""
        return {"index": "HNSW", "M": M, "efConstruction": EF_CONSTRUCTION}

    def close(self) -> None:
        """Close the database."""
        self.database.close()
