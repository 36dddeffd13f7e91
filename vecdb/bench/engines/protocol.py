"""What the benchmark asks of an engine: one narrow adapter each, so that every engine is timed by the same loop.

The timed calls (``Bound.one``, ``Bound.all``) are the cheapest that a user of the engine could write: no conversion, no
checking, no recall inside. What they return is turned into rows afterwards, outside the timing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vecdb.types import F32Array, I64Array, Metric


@dataclass(frozen=True, slots=True)
class BenchVectors:
    """Vectors as an engine gets them, mapped from files so that they count as nobody's memory.

    Attributes
    ----------
    metric
        How they are compared.
    train, queries
        (n, dim) and (nq, dim) float32, C order, as they are in the data set.
    unit_train, unit_queries
        Under cosine the same divided by their norms, for engines that know no cosine; else the same arrays.
    """

    metric: Metric
    train: F32Array
    queries: F32Array
    unit_train: F32Array
    unit_queries: F32Array

    @property
    def dim(self) -> int:
        """Number of dimensions."""
        return int(self.train.shape[1])


@dataclass(frozen=True, slots=True)
class Bound:
    """Searches of the queries with one k and effort, ready to be timed.

    Attributes
    ----------
    one
        Search query number i alone; returns whatever the engine returns.
    all
        Search all queries in one call.
    few
        Search the first queries in one call, to warm caches before ``all`` is timed.
    rows_of_one, rows_of_all
        The rows found, as (k,) and (nq, k) integers, from what ``one`` and ``all`` returned; not timed.
    """

    one: Callable[[int], Any]
    all: Callable[[], Any]
    few: Callable[[], Any]
    rows_of_one: Callable[[Any], Sequence[int]]
    rows_of_all: Callable[[Any], I64Array]


class Engine(ABC):
    """One engine in one configuration, in a process of its own.

    Calls come in this order: ``prepare``, ``build``, then ``bind`` for each point, ``disk_bytes``, ``close``.
    """

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.seed = seed

    @abstractmethod
    def prepare(self, vectors: BenchVectors) -> None:
        """Import libraries, load compiled kernels, start processes: what a user pays once, not per data set."""

    @abstractmethod
    def build(self) -> None:
        """Make everything searchable and fully indexed, on one thread."""

    @abstractmethod
    def bind(self, k: int, effort: int) -> Bound:
        """The searches to time."""

    @abstractmethod
    def disk_bytes(self) -> int:
        """Bytes on disk; an engine that lives in memory saves itself to a file for this."""

    def parameters(self) -> Mapping[str, Any]:
        """What was chosen, for the record."""
        return {}

    def facts(self) -> Mapping[str, Any]:
        """What came of the build, for the record: number of segments, rows left unindexed."""
        return {}

    def processes(self) -> Sequence[int]:
        """The processes whose memory is the engine's; none: the one that runs the adapter."""
        return ()

    def close(self) -> None:  # noqa: B027  # most engines have nothing to release
        """Release what is held; processes that were started have ended afterwards."""


def padded_rows(rows: Sequence[Sequence[int]] | Sequence[I64Array], k: int) -> I64Array:
    """Rankings of different lengths as one (nq, k) int64 array, -1 where a ranking is short."""
    table = np.full((len(rows), k), -1, np.int64)
    for at, each in enumerate(rows):
        found = np.asarray(each, np.int64)[:k]
        table[at, : len(found)] = found
    return table


WARM_UP_QUERIES = 100


def few_of(queries: F32Array) -> F32Array:
    """The queries of an untimed call that brings the index back into the caches."""
    return queries[: max(1, min(WARM_UP_QUERIES, len(queries) // 4))]
