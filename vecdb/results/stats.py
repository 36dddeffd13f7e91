"""The statistics of a collection: what it holds, the memory that it takes, and how well its graphs find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """What an open database takes of memory for searching, all its open collections together.

    Attributes
    ----------
    budget_bytes
        What it may take (``memory_budget_bytes``); 0: as much as there is.
    mapped_bytes
        Pages of its segment files in the memory of the process. They can be read again at any time. 0 where the system
        does not tell.
    derived_bytes
        What was computed from files and is kept: sketches and upper layers of graphs, columns and bitmaps of filters.
        An estimate.
    rows_bytes
        Rows that are not yet in a segment.
    releases
        How often memory was given back to keep to the budget.
    """

    budget_bytes: int = 0
    mapped_bytes: int = 0
    derived_bytes: int = 0
    rows_bytes: int = 0
    releases: int = 0

    @property
    def resident_bytes(self) -> int:
        """All of it: what the budget is for."""
        return self.mapped_bytes + self.derived_bytes + self.rows_bytes


@dataclass(frozen=True, slots=True)
class LiveRecall:
    """What live queries of one kind found, measured by running some of them again exactly.

    Attributes
    ----------
    field
        The vector field.
    recall
        Recall that was asked for, to the nearest of 0.90, 0.95 and 0.99; 0 where an ef was given in its place.
    share
        Share of the rows that was allowed, to the nearest of 1.0, 0.5, 0.2 and 0.05.
    estimate, low, high
        Mean recall that such queries are found with now, and its 95 % confidence interval.
    samples
        Queries that were checked.
    correction
        How many times as much as the calibration expects is reckoned to be missed when a search is planned.
    """

    field: str
    recall: float
    share: float
    estimate: float
    low: float
    high: float
    samples: int
    correction: float


@dataclass(frozen=True, slots=True)
class FieldCalibration:
    """What the graphs of one vector field were found to need when they were built, over those that are open.

    Attributes
    ----------
    field
        The vector field.
    graphs, calibrated
        Graphs that are open, and those of them that have recall curves.
    distance_computations
        Of a query with k = 10, all of these graphs together, by the recall that was asked for.
    """

    field: str
    graphs: int
    calibrated: int
    distance_computations: Mapping[float, float]


@dataclass(frozen=True, slots=True)
class CollectionStats:
    """What a collection holds and what happened to it since it was opened.

    Attributes
    ----------
    points
        Live points.
    deleted_rows
        Rows of segments whose point was deleted or overwritten and whose space is not yet reclaimed.
    unindexed_rows
        Rows that wait for an index and are scanned exactly until then.
    memtable_rows
        Rows that are not yet in a segment; they are in the log.
    segments
        Number of segments.
    last_seq, flushed_seq
        The newest write; the newest one whose effects are all in segments.
    disk_bytes
        Everything in the collection's directory.
    log_bytes
        Bytes of the write-ahead log in use.
    role_bytes
        Bytes of segment files by role (``vectors``, ``codes``, ``graph`` ...).
    events
        Counters: recoveries, dropped bytes of torn tails, slowed writes, refused writes, fallbacks to exact search ...
    memory
        Memory taken for searching, by all open collections of the database.
    calibration
        By vector field that has open graphs.
    live_recall
        By vector field, recall asked for and share of allowed rows, as far as searches were checked.
    """

    points: int
    deleted_rows: int
    unindexed_rows: int
    memtable_rows: int
    segments: int
    last_seq: int
    flushed_seq: int
    disk_bytes: int
    log_bytes: int
    role_bytes: Mapping[str, int]
    events: Mapping[str, int]
    memory: MemoryUse = MemoryUse()
    calibration: Sequence[FieldCalibration] = ()
    live_recall: Sequence[LiveRecall] = ()
