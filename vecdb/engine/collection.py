"""The collection that a user of the embedded engine holds: a name for an open collection, opened when it is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeAlias

from vecdb.api import Collection
from vecdb.arguments import as_timeout_s
from vecdb.engine.store import OpenCollection
from vecdb.requests import CountRequest, GetRequest, ScrollRequest, SearchRequest, WriteRequest
from vecdb.results import CollectionStats, CompactionReport, Hits, Page, Point, SnapshotInfo, WriteResult
from vecdb.schema import CollectionSchema

Lease: TypeAlias = Callable[[], AbstractContextManager[OpenCollection]]


class EmbeddedCollection(Collection):
    """A collection of a directory opened in this process. Only delegates.

    Parameters
    ----------
    lease
        Keeps the collection open for the length of a ``with`` block.
    """

    def __init__(self, name: str, collection_id: str, schema: CollectionSchema, lease: Lease) -> None:
        self.name = name
        self.collection_id = collection_id
        self.schema = schema
        self._lease = lease

    def run_write(self, request: WriteRequest) -> WriteResult:
        """Apply one batch; return when it is durable."""
        with self._lease() as opened:
            return opened.write(request)

    def run_search(self, request: SearchRequest) -> list[Hits]:
        """One ranking a query."""
        with self._lease() as opened:
            return opened.search(request)

    def run_get(self, request: GetRequest) -> list[Point]:
        """The points that exist."""
        with self._lease() as opened:
            return opened.get(request)

    def run_count(self, request: CountRequest) -> int:
        """The number of points that match."""
        with self._lease() as opened:
            return opened.count(request)

    def run_scroll(self, request: ScrollRequest) -> Page:
        """One page of points."""
        with self._lease() as opened:
            return opened.scroll(request)

    def stats(self) -> CollectionStats:
        """What the collection holds and what happened to it."""
        with self._lease() as opened:
            return opened.stats()

    def flush(self) -> None:
        """Write what is in memory into segments; return when it is committed."""
        with self._lease() as opened:
            opened.flush()

    def wait_indexed(self, timeout_s: float = 600.0) -> None:
        """Flush, then return when no row waits for an index."""
        with self._lease() as opened:
            opened.wait_indexed(as_timeout_s(timeout_s))

    def compact(self, timeout_s: float = 600.0, *, dry_run: bool = False) -> CompactionReport:
        """Merge the segments into as few as there can be, without dead rows."""
        with self._lease() as opened:
            return opened.compact(as_timeout_s(timeout_s), dry_run=bool(dry_run))

    def purge(self, timeout_s: float = 600.0) -> CompactionReport:
        """Return when nothing that was deleted is left in any file."""
        with self._lease() as opened:
            return opened.purge(as_timeout_s(timeout_s))

    def create_snapshot(self, name: str) -> SnapshotInfo:
        """Keep what the collection holds now under a name."""
        with self._lease() as opened:
            return opened.create_snapshot(name)

    def drop_snapshot(self, name: str) -> None:
        """Forget a snapshot."""
        with self._lease() as opened:
            opened.drop_snapshot(name)

    def snapshots(self) -> Sequence[SnapshotInfo]:
        """The snapshots, by name."""
        with self._lease() as opened:
            return opened.snapshots()
