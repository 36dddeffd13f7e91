"""Chroma: HNSW over float32, with metadata in SQLite."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vecdb.bench.engines.database import Database, RowBatch
from vecdb.types import Metric

NAME = "bench"
M = 16
EF_CONSTRUCTION = 200
EF_SEARCH = 100

METRICS = {Metric.COSINE: "cosine", Metric.DOT: "ip", Metric.L2: "l2"}


class ChromaCollection(Database):
    """``chromadb.PersistentClient``."""

    durable = True
    metrics = METRICS

    def load_library(self) -> None:
        """Import the library."""
        import chromadb
        from chromadb.api.shared_system_client import SharedSystemClient
        from chromadb.config import Settings

        self.chromadb, self.settings, self.shared = chromadb, Settings, SharedSystemClient

    def create(self) -> None:
        """A collection without an embedding model."""
        graph = {
            "space": self.metric,
            "max_neighbors": M,
            "ef_construction": EF_CONSTRUCTION,
            "ef_search": EF_SEARCH,
            "num_threads": len(os.sched_getaffinity(0)),
        }
        self.collection = self._client().create_collection(NAME, embedding_function=None, configuration={"hnsw": graph})

    def insert(self, batch: RowBatch) -> None:
        """``add``, which indexes the rows too."""
        self.collection.add(
            ids=list(map(str, batch.ids)),
            embeddings=batch.vectors,
            metadatas=[
                {"bucket": bucket, "text": text} for bucket, text in zip(batch.buckets, batch.texts, strict=True)
            ],
        )

    def finish(self) -> None:
        """Nothing is left to do after ``add``."""

    def open_again(self) -> None:
        """``get_collection``."""
        self.collection = self._client().get_collection(NAME, embedding_function=None)
        self.effort: int | None = None

    def asker(self, k: int, effort: int | None, below: int | None) -> Callable[[int], Any]:
        """``query``. The effort is a property of the collection, which is read when it is opened."""
        if effort != self.effort:
            self.collection.modify(configuration={"hnsw": {"ef_search": effort}})
            self.shared.clear_system_cache()
            self.open_again()
            self.effort = effort
        query, rows = self.collection.query, [[row] for row in np.array(self.vectors.queries)]
        where = None if below is None else {"bucket": {"$lt": below}}
        return lambda at: query(query_embeddings=rows[at], n_results=k, where=where, include=["distances"])

    def rows_of(self, found: Any) -> Sequence[int]:
        """Ids are the rows' numbers as text."""
        return [int(id) for id in found["ids"][0]]

    def parameters(self) -> Mapping[str, Any]:
        """The graph."""
        return {"max_neighbors": M, "ef_construction": EF_CONSTRUCTION}

    def _client(self) -> Any:
        return self.chromadb.PersistentClient(
            str(self.directory / "chroma"), settings=self.settings(anonymized_telemetry=False)
        )
