"""What a caller gets back: hits, points, pages and counts, the same values embedded and served.

``Hits`` holds columns; a ``Hit`` and its payload are made when they are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

from vecdb.payload import decode_payload
from vecdb.types import F32Array, Payload, PointId


@dataclass(frozen=True, slots=True)
class Point:
    """A stored point.

    Attributes
    ----------
    id
        The caller's key.
    payload_json
        Its payload as UTF-8 JSON; ``None`` where it was not asked for.
    vectors
        Its vectors by field name ((dim,) float32 each); empty where they were not asked for.
    """

    id: PointId
    payload_json: bytes | None = None
    vectors: Mapping[str, F32Array] = field(default_factory=dict)

    @property
    def payload(self) -> Payload | None:
        """The payload as a JSON object, decoded at each access; ``None`` where it was not asked for."""
        return None if self.payload_json is None else decode_payload(self.payload_json)

    @property
    def vector(self) -> F32Array | None:
        """The vector of a point that has exactly one, else ``None``."""
        if len(self.vectors) != 1:
            return None
        return next(iter(self.vectors.values()))


@dataclass(frozen=True, slots=True)
class Hit:
    """One point of a ranking.

    Attributes
    ----------
    id
        The caller's key.
    score
        Larger is nearer: cosine similarity, dot product, or minus the Euclidean distance.
    distance
        The metric's natural value: 1 - cosine similarity, dot product, or Euclidean distance.
    payload
        Its JSON object; ``None`` where the search was told not to bring payloads.
    vectors
        Its vectors by field name; empty unless asked for.
    """

    id: PointId
    score: float
    distance: float
    payload: Payload | None = None
    vectors: Mapping[str, F32Array] = field(default_factory=dict)


class Hits(Sequence[Hit]):
    """The ranking of one query, nearest first.

    Attributes
    ----------
    ids
        The k keys, in order.
    scores
        (k,) float32, larger is nearer.
    distances
        (k,) float32, the metric's natural value.
    complete
        The ranking holds ``min(k, matching points)`` hits.
    strategy
        What was done: ``"exact"``, ``"graph"``, ``"scan"``, several of them as in ``"exact+graph"``, or ``"nothing"``.
        Queries that are answered together share it.
    recall_estimate
        Mean recall expected of this plan over queries like those seen; 1.0 for an exact search. Not a measurement of
        this one answer.
    unindexed_rows
        Rows that were scanned because no index holds them yet.
    """

    __slots__ = (
        "_payload_of", "_vectors_of", "complete", "distances", "ids", "recall_estimate", "scores", "strategy",
        "unindexed_rows",
    )  # fmt: skip

    def __init__(
        self,
        ids: list[PointId],
        scores: F32Array,
        distances: F32Array,
        *,
        complete: bool,
        strategy: str,
        recall_estimate: float,
        unindexed_rows: int,
        payload_of: Callable[[int], bytes] | None,
        vectors_of: Callable[[int], Mapping[str, F32Array]] | None,
    ) -> None:
        self.ids = ids
        self.scores = scores
        self.distances = distances
        self.complete = complete
        self.strategy = strategy
        self.recall_estimate = recall_estimate
        self.unindexed_rows = unindexed_rows
        self._payload_of = payload_of
        self._vectors_of = vectors_of

    def payload_bytes(self, position: int) -> bytes | None:
        """The payload of the hit at ``position`` as UTF-8 JSON; ``None`` where payloads were not asked for."""
        return None if self._payload_of is None else self._payload_of(position)

    def vectors(self, position: int) -> Mapping[str, F32Array]:
        """The vectors of the hit at ``position`` by field name; empty unless asked for."""
        return {} if self._vectors_of is None else self._vectors_of(position)

    def _hit(self, position: int) -> Hit:
        encoded = self.payload_bytes(position)
        return Hit(
            self.ids[position],
            float(self.scores[position]),
            float(self.distances[position]),
            None if encoded is None else decode_payload(encoded),
            self.vectors(position),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, at: int) -> Hit: ...
    @overload
    def __getitem__(self, at: slice) -> list[Hit]: ...
    def __getitem__(self, at: int | slice) -> Hit | list[Hit]:
        if isinstance(at, slice):
            return [self._hit(position) for position in range(*at.indices(len(self.ids)))]
        return self._hit(range(len(self.ids))[at])

    def __iter__(self) -> Iterator[Hit]:
        return (self._hit(position) for position in range(len(self.ids)))

    def __repr__(self) -> str:
        nearest = f", nearest {self.ids[0]!r} at {self.scores[0]:.4f}" if self.ids else ""
        return f"Hits({len(self.ids)} by {self.strategy}, recall about {self.recall_estimate:.2f}{nearest})"


@dataclass(frozen=True, slots=True)
class Page:
    """Some points in scroll order, and where to go on.

    Attributes
    ----------
    points
        At most as many as were asked for.
    next_cursor
        Opaque; hand it to the next call. ``None`` at the end. It stays valid across writes, flushes and reopening.
    """

    points: Sequence[Point]
    next_cursor: bytes | None


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of one write batch.

    Attributes
    ----------
    seq
        Its place in the total order of the collection's writes; for a write that changed nothing, the last one.
    durable_seq
        Every batch at or below this seq survives a power loss.
    upserted, deleted
        Points written; points that existed and were removed.
    slowed_s
        Seconds that the write was held back because index building lags behind.
    """

    seq: int
    durable_seq: int
    upserted: int = 0
    deleted: int = 0
    slowed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class CompactionReport:
    """What a compaction did, or would do.

    Attributes
    ----------
    segments_before, segments_after
        Number of segments.
    size_bytes_before, size_bytes_after
        Bytes of their files; those of a forecast are estimates.
    rows_dropped
        Rows of deleted or replaced points whose space was reclaimed.
    """

    segments_before: int
    segments_after: int
    size_bytes_before: int
    size_bytes_after: int
    rows_dropped: int


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A named snapshot.

    Attributes
    ----------
    created_s
        When it was taken, seconds since 1970-01-01 UTC.
    seq
        The last write that it holds.
    """

    name: str
    created_s: float
    seq: int


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
class WarmReport:
    """What ``warm`` did.

    Attributes
    ----------
    segments
        Segments that were opened and verified.
    resident_bytes
        Bytes of their files that were brought into memory, or were there.
    left_out_bytes
        Bytes of files for which the memory budget had no room; they are read when they are needed.
    kernels
        Kernels that are ready to run; ``kernels_compiled`` of them were compiled by this call.
    compile_s, verify_s, read_s
        Seconds: for the kernels, for opening and verifying files, for bringing them into memory.
    """

    segments: int = 0
    resident_bytes: int = 0
    left_out_bytes: int = 0
    kernels: int = 0
    kernels_compiled: int = 0
    compile_s: float = 0.0
    verify_s: float = 0.0
    read_s: float = 0.0

    @classmethod
    def of_all(cls, reports: Iterable[WarmReport]) -> WarmReport:
        """What several collections of one database report, together: they share their kernels."""
        each = list(reports)
        return cls(
            segments=sum(report.segments for report in each),
            resident_bytes=sum(report.resident_bytes for report in each),
            left_out_bytes=sum(report.left_out_bytes for report in each),
            kernels=max((report.kernels for report in each), default=0),
            kernels_compiled=sum(report.kernels_compiled for report in each),
            compile_s=sum(report.compile_s for report in each),
            verify_s=sum(report.verify_s for report in each),
            read_s=sum(report.read_s for report in each),
        )


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


@dataclass(frozen=True, slots=True)
class CollectionBackup:
    """One collection in a backup.

    Attributes
    ----------
    collection_id
        What it was known by when the backup was taken; a restored collection has another.
    taken_us
        When, in microseconds since 1970-01-01 UTC.
    seq
        The last write that the backup holds: this one and every one before, none after.
    points
        Live points as of it.
    """

    name: str
    collection_id: str
    taken_us: int
    seq: int
    points: int


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a backup holds.

    Attributes
    ----------
    created_us
        When it was begun, in microseconds since 1970-01-01 UTC.
    collections
        Each as of one write; they were taken one after the other.
    files, stored_files
        Files that a restore makes; those of them that this backup holds itself. The rest is in ``needs``.
    size_bytes
        Of the backup itself.
    manifest_sha256
        What later backups know it by.
    needs
        The same of the earlier backups without which it cannot be restored; empty for a full one.
    """

    created_us: int
    collections: Sequence[CollectionBackup]
    files: int
    stored_files: int
    size_bytes: int
    manifest_sha256: str
    needs: Sequence[str]


@dataclass(frozen=True, slots=True)
class RestoredCollection:
    """One collection of a restored database.

    Attributes
    ----------
    seq
        The last write that it holds.
    replayed
        Writes that came from archived log files, on top of the backup.
    """

    name: str
    seq: int
    points: int
    replayed: int = 0


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore made.

    Attributes
    ----------
    path
        The directory.
    files, size_bytes
        Files of segments that were written and verified.
    """

    path: str
    collections: Sequence[RestoredCollection]
    files: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PrunedCollection:
    """What was removed from a log archive of one collection, or would be.

    Attributes
    ----------
    seq
        The write as of which the backup has the collection.
    files, size_bytes
        The removed files.
    kept_seq
        The first write that is still in the archive; 0 where it has none of this collection.
    """

    name: str
    seq: int
    files: int
    size_bytes: int
    kept_seq: int


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What was removed from a log archive, or would be.

    Attributes
    ----------
    path
        The archive.
    collections
        Those of the backup.
    files, size_bytes
        All removed files.
    others
        Collections of the archive that are not in the backup: newer ones, dropped ones and those of other databases.
        Nothing of them was removed.
    """

    path: str
    collections: Sequence[PrunedCollection]
    files: int
    size_bytes: int
    others: int
