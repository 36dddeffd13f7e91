"""zvec: HNSW over 8-bit codes, reranked by float32, in a collection of its own, one thread."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from vecdb.bench.engines.protocol import BenchVectors, Bound, Engine, few_of, padded_rows
from vecdb.bench.memory import allocated_bytes
from vecdb.errors import FailedPrecondition
from vecdb.types import F32Array, Metric

M = 32
EF_CONSTRUCTION = 500

RERANKED_PER_HIT = 2.0
"""Candidates whose float32 vectors are read, for each neighbour asked for; by default it would be all of them."""

BATCH_ROWS = 1_000
"""The library inserts at most 1,024 rows in one call."""

FIELD = "vector"

METRICS = {Metric.COSINE: "IP", Metric.DOT: "IP", Metric.L2: "L2"}
"""Under cosine the vectors come normalised."""


@cache
def library() -> Any:
    """The library, held to one thread; a process can do that only once."""
    import zvec

    zvec.init(log_level=zvec.LogLevel.WARN, query_threads=1, optimize_threads=1)
    return zvec


class ZvecHnsw(Engine):
    """``zvec.Collection`` with one field, a vector with an HNSW index."""

    def prepare(self, vectors: BenchVectors) -> None:
        """Import the library, make an empty collection."""
        self.zvec, self.vectors = library(), vectors
        # What is asked keeps a pointer into these rows, and does not keep them alive.
        self.queries = list(np.array(vectors.unit_queries))
        zvec = self.zvec
        index = zvec.HnswIndexParam(
            metric_type=getattr(zvec.MetricType, METRICS[vectors.metric]),
            m=M,
            ef_construction=EF_CONSTRUCTION,
            quantize_type=zvec.QuantizeType.INT8,
            use_contiguous_memory=True,
            use_flat_contiguous_memory=True,
        )
        schema = zvec.CollectionSchema(
            name="bench", vectors=zvec.VectorSchema(FIELD, zvec.DataType.VECTOR_FP32, vectors.dim, index)
        )
        self.path = str(self.directory / "collection")
        self.collection: Any = zvec.create_and_open(self.path, schema)

    def build(self) -> None:
        """Insert all rows, then ``optimize``, which makes codes and graph; open again for reading, from memory."""
        rows, document = self.vectors.unit_train, self.zvec.Doc
        for start in range(0, len(rows), BATCH_ROWS):
            batch = rows[start : start + BATCH_ROWS]
            answers = self.collection.insert(
                [document(id=str(at), vectors={FIELD: row}) for at, row in enumerate(batch, start)]
            )
            refused = [answer for answer in answers if not answer.ok()]
            if refused:
                raise FailedPrecondition(
                    f"zvec refused {len(refused)} rows, the first with {refused[0]}", field="rows", value=len(refused)
                )
        self.collection.optimize(self.zvec.OptimizeOption(concurrency=1))
        self.collection.close()
        # Searches are faster than in the collection that was written to, and than through mapped files.
        self.collection = self.zvec.open(self.path, self.zvec.CollectionOption(read_only=True, enable_mmap=False))

    def bind(self, k: int, effort: int) -> Bound:
        """The compiled call below ``Collection.query``, on queries made beforehand; it takes one, so all are a loop."""
        from zvec._zvec.param import _SearchQuery

        # The public method makes the same object for every call, and one of its own for each hit.
        search = self.collection._obj.Query  # noqa: SLF001
        field = self.collection.schema.vector(FIELD)._get_object()  # noqa: SLF001
        parameters = self.zvec.HnswQueryParam(ef=max(effort, k), is_using_refiner=True, scale_factor=RERANKED_PER_HIT)

        def asked_for(row: F32Array) -> Any:
            asked = _SearchQuery()
            asked.field_name, asked.topk, asked.query_params = FIELD, k, parameters
            asked.include_vector, asked.output_fields = False, []
            asked.set_vector(field, row)
            return asked

        queries = [asked_for(row) for row in self.queries]
        few = queries[: len(few_of(self.vectors.unit_queries))]

        def each_of(asked: list[Any]) -> list[Any]:
            return [search(query) for query in asked]

        def rows_of_one(found: Any) -> list[int]:
            return [int(hit[0]) for hit in found]

        return Bound(
            one=lambda at: search(queries[at]),
            all=lambda: each_of(queries),
            few=lambda: each_of(few),
            rows_of_one=rows_of_one,
            rows_of_all=lambda answers: padded_rows([rows_of_one(found) for found in answers], k),
        )

    def disk_bytes(self) -> int:
        """The collection's directory, with the vectors in it."""
        return allocated_bytes(self.directory)

    def parameters(self) -> Mapping[str, Any]:
        """The index's parameters."""
        return {
            "m": M,
            "ef_construction": EF_CONSTRUCTION,
            "metric": METRICS[self.vectors.metric],
            "quantize_type": "INT8",
            "use_contiguous_memory": True,
            "scale_factor": RERANKED_PER_HIT,
            "enable_mmap": False,
            "batch_rows": BATCH_ROWS,
        }

    def facts(self) -> Mapping[str, Any]:
        """Share of the rows that the index holds."""
        return {"index_completeness": dict(self.collection.stats.index_completeness)}

    def close(self) -> None:
        """Give up the directory."""
        self.collection.close()
