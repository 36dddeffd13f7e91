"""vecdb embedded, through its public interface: durable writes, background flushes and builds, ids and hits made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vecdb.bench.engines.protocol import BenchVectors, Bound, Engine, few_of, padded_rows
from vecdb.bench.memory import allocated_bytes
from vecdb.results.hits import Hits
from vecdb.schema import IndexKind, IndexSpec
from vecdb.types import F32Array, I64Array

RECALL_MIN = 0.5
"""The least that is asked for: a narrower walk is of no use to anybody."""

BATCH_ROWS = 1_000
COLLECTION = "bench"
INDEX_TIMEOUT_S = 36_000.0


class VecdbEmbedded(Engine):
    """``vecdb.open``, with the default options or with a memtable that takes all rows.

    Parameters
    ----------
    one_segment
        Keep all rows in one memtable until the end, so that one flush makes one segment and one graph.
    """

    def __init__(self, directory: Path, seed: int, one_segment: bool = False) -> None:
        super().__init__(directory, seed)
        self.one_segment = one_segment

    def prepare(self, vectors: BenchVectors) -> None:
        """Open a new database; load or compile its kernels."""
        from vecdb.engine.database import EmbeddedDatabase
        from vecdb.engine.options import EngineOptions

        self.vectors = vectors
        options = EngineOptions()
        if self.one_segment:
            # Twice the vectors: room for ids and empty payloads, and for what a row costs in memory beside its bytes.
            options = EngineOptions(memtable_size_bytes=2 * vectors.train.nbytes + 2**26)
        self.database = EmbeddedDatabase.open(self.directory / "database", options=options)
        self.database.kernels.warm_up()

    def build(self) -> None:
        """Upsert batches of 1,000 rows, each durable before the next; then wait until every row is indexed."""
        self.collection = self.database.create_collection(
            COLLECTION, self.vectors.dim, self.vectors.metric, index_spec(self.seed)
        )
        ingest(self.collection.upsert, self.vectors.train)
        self.collection.wait_indexed(INDEX_TIMEOUT_S)

    def bind(self, k: int, effort: int) -> Bound:
        """``search`` and ``search_batch``; no payloads, as the other engines have none."""
        return bound_calls(self.collection, self.vectors.queries, k, effort)

    def disk_bytes(self) -> int:
        """The database's directory."""
        return allocated_bytes(self.directory)

    def parameters(self) -> Mapping[str, Any]:
        """The index, the options and the kernels."""
        spec = index_spec(self.seed)
        return {
            "M": spec.m,
            "ef_construction": spec.ef_construction,
            "seed": spec.seed,
            "batch_rows": BATCH_ROWS,
            "one_segment": self.one_segment,
            "kernels": self.database.kernels.name,
        }

    def facts(self) -> Mapping[str, Any]:
        """Segments, and rows without an index."""
        stats = self.collection.stats()
        return {
            "segments": stats.segments,
            "unindexed_rows": stats.unindexed_rows,
            "role_bytes": dict(stats.role_bytes),
            "events": dict(stats.events),
        }

    def close(self) -> None:
        """Close the database."""
        self.database.close()


def index_spec(seed: int) -> IndexSpec:
    """The default index, with the seed of the run."""
    return IndexSpec(kind=IndexKind.HNSW, seed=seed)


def ingest(upsert: Any, train: F32Array) -> None:
    """Upsert every row under its number, in batches; empty payloads."""
    for start in range(0, len(train), BATCH_ROWS):
        batch = train[start : start + BATCH_ROWS]
        upsert(range(start, start + len(batch)), batch)


def bound_calls(collection: Any, all_queries: F32Array, k: int, effort: int) -> Bound:
    """The public search calls of a collection, embedded or served."""
    from vecdb.index.hnsw import recall_of_ef

    # The recall that a beam of this width is expected to have: what is asked for is what a caller asks for.
    recall = max(recall_of_ef(k, effort), RECALL_MIN)
    search, search_batch = collection.search, collection.search_batch
    queries = np.array(all_queries)
    rows, few = list(queries), few_of(queries)

    def rows_of_all(found: Sequence[Hits]) -> I64Array:
        return padded_rows([row_numbers(hits) for hits in found], k)

    return Bound(
        one=lambda at: search(rows[at], k, recall=recall, with_payloads=False),
        all=lambda: search_batch(queries, k, recall=recall, with_payloads=False),
        few=lambda: search_batch(few, k, recall=recall, with_payloads=False),
        rows_of_one=row_numbers,
        rows_of_all=rows_of_all,
    )


def row_numbers(hits: Hits) -> list[int]:
    """The rows found: ids are the rows' numbers."""
    return [int(each) for each in hits.ids]
