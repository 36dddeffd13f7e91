"""What every index of one vector field in one segment offers to the query layer.

An index is read-only and may be searched by any number of threads at once. Its slots are those of the vector field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from vecdb.bitmap import Bitmap
from vecdb.kernels.arrays import Beam
from vecdb.types import F32Array, I64Array, Metric, TopK

EnsureRows: TypeAlias = Callable[[I64Array], None]
"""Verifies the stored vectors of the given slots (ascending, unique) before they are read; raises Corruption."""


# Not frozen, as each search makes one: that would take four times as long.
@dataclass(slots=True)
class IndexAnswer:
    """What a search found, and what it cost.

    Attributes
    ----------
    topk
        Exact float32 distances of the rows found, nearest first.
    fewest
        The least number of rows found for one query.
    distance_computations
        Rows scored for the whole batch, by code or by float32 vector, the final rerank not counted.
    hops
        Graph nodes expanded for the whole batch; 0 where there is no graph.
    reranked
        The least number of rows of one query that were found by code and ranked again by float32 vector; 0 where no
        codes were used.
    """

    topk: TopK
    fewest: int
    distance_computations: int
    hops: int
    reranked: int


class VectorIndex(Protocol):
    """An index of ``rows`` vectors."""

    @property
    def rows(self) -> int:
        """Number of slots."""
        ...

    @property
    def metric(self) -> Metric:
        """The metric that distances are reported in."""
        ...

    def search(
        self,
        queries: F32Array,
        k: int,
        *,
        beam: Beam | None = None,
        allowed: Bitmap | None = None,
        ensure: EnsureRows | None = None,
    ) -> IndexAnswer:
        """The nearest allowed slots of each query.

        Parameters
        ----------
        queries
            (nq, dim) float32; normalised for the metric cosine.
        k
            Results per query, at least 1; may exceed the number of rows.
        beam
            Breadth of an approximate search; None for the index's own choice. Exact indexes ignore it.
        allowed
            The slots that may be returned; None for all. An approximate index may then find fewer than
            ``min(k, allowed.count())``.
        ensure
            Called once, before float32 vectors are read, with the slots concerned.

        Raises
        ------
        Corruption
            Raised by ``ensure``.
        """
        ...

    def check(self) -> list[str]:
        """What is wrong with the structure, in words; empty when nothing is."""
        ...
