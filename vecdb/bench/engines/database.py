"""What the benchmark asks of an embedded database: rows with a payload put in batch by batch, and filtered searches.

The process that loads a database closes it; other processes open it again and search. Every call is of the database's
public Python interface, and a search returns ids and distances, no payloads.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vecdb.bench.engines.protocol import BenchVectors, Bound, Engine, few_of, padded_rows
from vecdb.bench.memory import allocated_bytes
from vecdb.types import F32Array, I64Array, Metric

BATCH_ROWS = 1_000

BUCKETS = 1_000
"""The integer field is uniform over this many values, so that ``bucket < n`` matches n rows in a thousand."""

LABELS = ("manual", "question", "answer", "article", "comment", "release", "report", "tutorial")


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Consecutive rows as a program holds them before it knows of any database.

    Attributes
    ----------
    ids
        The rows' numbers.
    vectors
        (n, dim) float32, C order.
    buckets, texts
        The payload: n integers and n short texts.
    """

    ids: range
    vectors: F32Array
    buckets: list[int]
    texts: list[str]


def buckets_of(rows: int, seed: int) -> I64Array:
    """(rows,) int64: the integer field of every row."""
    return np.random.default_rng([seed, 1]).integers(0, BUCKETS, rows)


def text_of(row: int) -> str:
    """The text field of a row: about 40 characters, different in every row."""
    return f"{LABELS[row % len(LABELS)]} number {row:,} of the collection"


def batches_of(vectors: F32Array, seed: int) -> Iterator[RowBatch]:
    """All rows in batches of ``BATCH_ROWS``."""
    buckets = buckets_of(len(vectors), seed).tolist()
    for start in range(0, len(vectors), BATCH_ROWS):
        rows = range(start, min(start + BATCH_ROWS, len(vectors)))
        yield RowBatch(
            rows, np.array(vectors[rows.start : rows.stop]), buckets[rows.start : rows.stop], list(map(text_of, rows))
        )


class Database(Engine):
    """One embedded database in one configuration.

    In the process that loads: ``prepare``, ``warm_up``, ``build``, ``close``. In one that searches: ``prepare``,
    ``open_again``, then ``bind_where`` for each point, ``close``.

    Attributes
    ----------
    durable
        A batch whose insert has returned is synced to the disk.
    metrics
        What the database compares vectors by, in its own words.
    insert_seconds
        Time of the inserts of ``build``, without what prepared the batches.
    """

    durable: bool
    metrics: Mapping[Metric, Any]

    insert_seconds = 0.0

    def prepare(self, vectors: BenchVectors) -> None:
        """Keep the vectors, import the library."""
        self.vectors = vectors
        self.load_library()

    @abstractmethod
    def load_library(self) -> None:
        """Import it, and hold it to the threads that this process may use."""

    def warm_up(self) -> None:
        """Compile what is compiled once for each machine and not for each process."""

    @abstractmethod
    def create(self) -> None:
        """Make an empty database with an index on the integer field, where it has such indexes."""

    @abstractmethod
    def insert(self, batch: RowBatch) -> None:
        """Put rows in; a row's id is its number."""

    @abstractmethod
    def finish(self) -> None:
        """Return when every row is indexed and merging is done, as the database's manual advises before searching."""

    @abstractmethod
    def open_again(self) -> None:
        """Open what another process loaded and closed."""

    @abstractmethod
    def asker(self, k: int, effort: int | None, below: int | None) -> Callable[[int], Any]:
        """A search of query number i among the rows with ``bucket < below``, or among all.

        Parameters
        ----------
        effort
            ``None``: as the database chooses by itself.
        """

    @abstractmethod
    def rows_of(self, found: Any) -> Sequence[int]:
        """The rows in what a search returned; not timed."""

    def build(self) -> None:
        """Insert batch by batch, then finish."""
        self.create()
        for batch in batches_of(self.vectors.train, self.seed):
            start = time.perf_counter()
            self.insert(batch)
            self.insert_seconds += time.perf_counter() - start
        self.finish()

    def bind(self, k: int, effort: int) -> Bound:
        """Searches among all rows."""
        return self.bind_where(k, effort, None)

    def bind_where(self, k: int, effort: int | None, below: int | None) -> Bound:
        """Searches among the rows with ``bucket < below``; a batch is asked one query after another."""
        one = self.asker(k, effort, below)
        count, few = len(self.vectors.queries), len(few_of(self.vectors.queries))
        return Bound(
            one=one,
            all=lambda: [one(at) for at in range(count)],
            few=lambda: [one(at) for at in range(few)],
            rows_of_one=self.rows_of,
            rows_of_all=lambda found: padded_rows([self.rows_of(each) for each in found], k),
        )

    def disk_bytes(self) -> int:
        """The database's directory."""
        return allocated_bytes(self.directory)

    @property
    def metric(self) -> Any:
        """The metric of this run in the database's own words."""
        return self.metrics[self.vectors.metric]
