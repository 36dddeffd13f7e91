"""vecdb as an embedded database: durable upserts with payloads, filters, opened again by another process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vecdb.bench.engines.database import Database, RowBatch
from vecdb.types import Metric

COLLECTION = "bench"
TIMEOUT_S = 36_000.0

METRICS = {metric: metric for metric in Metric}


class VecdbDatabase(Database):
    """``vecdb.open`` with default options.

    Parameters
    ----------
    compacted
        Merge the segments into one before searching.
    """

    durable = True
    metrics = METRICS

    def __init__(self, directory: Path, seed: int, compacted: bool = False) -> None:
        super().__init__(directory, seed)
        self.compacted = compacted

    def load_library(self) -> None:
        """Import the engine."""
        import vecdb

        self.open, self.field = vecdb.open, vecdb.Field

    def warm_up(self) -> None:
        """Load or compile the kernels."""
        from vecdb.kernels.cpu import CpuKernels

        CpuKernels().warm_up()

    def create(self) -> None:
        """One collection with the default index."""
        self.database = self.open(self.directory / "database")
        self.collection = self.database.create_collection(COLLECTION, self.vectors.dim, self.metric)

    def insert(self, batch: RowBatch) -> None:
        """``upsert``, which returns when the batch is durable."""
        payloads = [{"bucket": bucket, "text": text} for bucket, text in zip(batch.buckets, batch.texts, strict=True)]
        self.collection.upsert(batch.ids, batch.vectors, payloads)

    def finish(self) -> None:
        """``wait_indexed``, and ``compact`` where that is asked for."""
        self.collection.wait_indexed(TIMEOUT_S)
        if self.compacted:
            self.collection.compact(TIMEOUT_S)

    def open_again(self) -> None:
        """``vecdb.open``."""
        self.database = self.open(self.directory / "database")
        self.collection = self.database.collection(COLLECTION)

    def asker(self, k: int, effort: int | None, below: int | None) -> Callable[[int], Any]:
        """``search`` with ``ef``, or with the default recall, which is 0.95."""
        search, rows = self.collection.search, list(np.array(self.vectors.queries))
        where = None if below is None else self.field("bucket") < below
        return lambda at: search(rows[at], k, where=where, ef=effort, with_payloads=False)

    def rows_of(self, found: Any) -> Sequence[int]:
        """Ids are the rows' numbers."""
        return [int(each) for each in found.ids]

    def parameters(self) -> Mapping[str, Any]:
        """Whether it was compacted; everything else is the default."""
        return {"compacted": self.compacted}

    def facts(self) -> Mapping[str, Any]:
        """Segments, and rows without an index."""
        stats = self.collection.stats()
        return {
            "segments": stats.segments,
            "unindexed_rows": stats.unindexed_rows,
            "role_bytes": dict(stats.role_bytes),
        }

    def close(self) -> None:
        """Close the database."""
        self.database.close()
