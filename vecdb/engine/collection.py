"""The collection that a user of the embedded engine holds: a name for an open collection, opened when it is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from vecdb.api import Collection
from vecdb.arguments import as_timeout_s
from vecdb.engine.store import OpenCollection
from vecdb.engine.uninterrupted import in_order, uninterrupted
from vecdb.explanation import Explanation
from vecdb.requests import CountRequest, GetRequest, ScrollRequest, SearchRequest, WriteRequest
from vecdb.results.compaction import CompactionReport
from vecdb.results.hits import Hits
from vecdb.results.points import Page, Point
from vecdb.results.snapshot import SnapshotInfo
from vecdb.results.stats import CollectionStats
from vecdb.results.warming import WarmReport
from vecdb.results.write import WriteResult
from vecdb.schema import CollectionSchema

Result = TypeVar("Result")


class Lease(Protocol):
    """The use of an open collection."""

    def use(self, use: Callable[[OpenCollection], Result], /) -> Result:
        """What ``use`` makes of the collection, which is kept open meanwhile."""


class EmbeddedCollection(Collection):
    """A collection of a directory opened in this process. Only delegates.

    Parameters
    ----------
    lease
        Gives a use of the open collection.
    """

    def __init__(self, name: str, collection_id: str, schema: CollectionSchema, lease: Callable[[], Lease]) -> None:
        self.name = name
        self.collection_id = collection_id
        self.schema = schema
        self._lease = lease

    @in_order
    def run_write(self, request: WriteRequest) -> WriteResult:
        """Apply one batch; return when it is durable."""
        return self._lease().use(lambda opened: opened.write(request))

    def run_search(self, request: SearchRequest) -> list[Hits]:
        """One ranking a query."""
        return self._lease().use(lambda opened: opened.search(request))

    def run_explain(self, request: SearchRequest) -> Explanation:
        """What a search did."""
        return self._lease().use(lambda opened: opened.explain(request))

    def run_get(self, request: GetRequest) -> list[Point]:
        """The points that exist."""
        return self._lease().use(lambda opened: opened.get(request))

    def run_count(self, request: CountRequest) -> int:
        """The number of points that match."""
        return self._lease().use(lambda opened: opened.count(request))

    def run_scroll(self, request: ScrollRequest) -> Page:
        """One page of points."""
        return self._lease().use(lambda opened: opened.scroll(request))

    def warm(self, *, with_vectors: bool = False) -> WarmReport:
        """Make the next search fast."""
        return self._lease().use(lambda opened: opened.warm(with_vectors=bool(with_vectors)))

    def stats(self) -> CollectionStats:
        """What the collection holds and what happened to it."""
        return self._lease().use(lambda opened: opened.stats())

    @uninterrupted
    def flush(self) -> None:
        """Write what is in memory into segments; return when it is committed."""
        self._lease().use(lambda opened: opened.flush())

    @uninterrupted
    def wait_indexed(self, timeout_s: float = 600.0) -> None:
        """Flush, then return when no row waits for an index."""
        self._lease().use(lambda opened: opened.wait_indexed(as_timeout_s(timeout_s)))

    @uninterrupted
    def compact(self, timeout_s: float = 600.0, *, dry_run: bool = False) -> CompactionReport:
        """Merge the segments into as few as there can be, without dead rows."""
        return self._lease().use(lambda opened: opened.compact(as_timeout_s(timeout_s), dry_run=bool(dry_run)))

    @uninterrupted
    def purge(self, timeout_s: float = 600.0) -> CompactionReport:
        """Return when nothing that was deleted is left in any file."""
        return self._lease().use(lambda opened: opened.purge(as_timeout_s(timeout_s)))

    @in_order
    def create_snapshot(self, name: str) -> SnapshotInfo:
        """Keep what the collection holds now under a name."""
        return self._lease().use(lambda opened: opened.create_snapshot(name))

    @in_order
    def drop_snapshot(self, name: str) -> None:
        """Forget a snapshot."""
        self._lease().use(lambda opened: opened.drop_snapshot(name))

    def snapshots(self) -> Sequence[SnapshotInfo]:
        """The snapshots, by name."""
        return self._lease().use(lambda opened: opened.snapshots())
