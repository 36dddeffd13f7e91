"""The Collection that a user holds, embedded or served.

The public verbs live here once: they turn arguments into requests and hand these to the few ``run_*`` methods that the
embedded engine and the client each implement. So both accept the same arguments and refuse the same ones.

Every verb spells out its arguments, and hands them on one by one: so editors and ``help`` show each with its type and
default, a wrong one is an error that names the verb, and a search pays nothing for their being gathered and spread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from vecdb.arguments import (
    RecallArgument,
    VectorsArgument,
    WhereArgument,
    count_request,
    delete_request,
    get_request,
    scroll_request,
    search_request,
    upsert_request,
)
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
from vecdb.types import Payload, PointId

SCROLL_PAGE_ROWS = 1_000


class Collection(ABC):
    """Points with vectors and payloads, searchable by nearness and by filter.

    Safe to use from many threads.

    Attributes
    ----------
    name
        The collection's name.
    collection_id
        What tells it from one of the same name before or after it.
    schema
        Its vector fields.
    """

    name: str
    collection_id: str
    schema: CollectionSchema

    def upsert(
        self,
        ids: Iterable[PointId],
        vectors: VectorsArgument,
        payloads: Iterable[Payload] | None = None,
        *,
        request_id: str | None = None,
    ) -> WriteResult:
        """Insert points, or replace those whose id exists: all of them or, on an error, none.

        Returns when the batch is durable.

        Parameters
        ----------
        ids
            n distinct unsigned 64-bit integers or strings of at most 512 UTF-8 bytes; kinds may mix.
        vectors
            (n, dim) real numbers; or by field name, where a list may hold ``None`` for a point without that vector.
        payloads
            n JSON objects; ``None``: all empty. A replaced point keeps nothing of its old payload.
        request_id
            A retry with the same one is applied once (kept 10 minutes or 100,000 requests a collection).

        Raises
        ------
        InvalidArgument
            Naming the field, the limit and the value; nothing was written.
        ResourceExhausted
            No disk space; nothing was written.
        Unavailable
            The writer stopped after an I/O error; reopen the database.
        """
        return self.run_write(upsert_request(ids, vectors, payloads, request_id))

    def delete(
        self,
        ids: Iterable[PointId] | None = None,
        *,
        where: WhereArgument = None,
        params: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> WriteResult:
        """Remove the points with these ids, or those that match a filter; unknown ids are no error.

        Returns when the removal is durable; ``deleted`` of the result counts the points that existed.
        """
        return self.run_write(delete_request(ids, where, params, request_id))

    def get(
        self,
        ids: Iterable[PointId],
        *,
        with_payloads: bool = True,
        with_vectors: bool = False,
        at: str | None = None,
    ) -> list[Point]:
        """The points with these ids that exist, now or in the snapshot ``at``, in the order asked for."""
        return self.run_get(get_request(ids, with_payloads, with_vectors, at))

    def search(
        self,
        query: ArrayLike,
        k: int = 10,
        *,
        field: str | None = None,
        where: WhereArgument = None,
        params: Mapping[str, Any] | None = None,
        recall: RecallArgument = None,
        ef: int | None = None,
        with_payloads: bool = True,
        with_vectors: bool = False,
        read_after_seq: int = 0,
        at: str | None = None,
    ) -> Hits:
        """The ``k`` points nearest to ``query`` ((dim,) real numbers) that match ``where``.

        Parameters
        ----------
        k
            Hits wanted, 1 to 10,000. Fewer come back only where fewer points match.
        field
            The vector field; needed where there are several.
        where, params
            A filter: text with ``:name`` parameters, or an expression of ``Field(...)``.
        recall
            Mean recall to aim at, above 0 and at most 1, or ``"exact"``. Default 0.95.
        ef
            For experts: size of the candidate list of a graph search, instead of ``recall``.
        with_payloads, with_vectors
            What each hit brings along.
        read_after_seq
            Wait until this write (``WriteResult.seq``) is visible.
        at
            The name of a snapshot: search what it holds instead of what the collection holds now.
        """
        return self.run_search(
            search_request(
                query, k, batch=False, field=field, where=where, params=params, recall=recall, ef=ef,
                with_payloads=with_payloads, with_vectors=with_vectors, read_after_seq=read_after_seq, at=at,
            )
        )[0]  # fmt: skip

    def search_batch(
        self,
        queries: ArrayLike,
        k: int = 10,
        *,
        field: str | None = None,
        where: WhereArgument = None,
        params: Mapping[str, Any] | None = None,
        recall: RecallArgument = None,
        ef: int | None = None,
        with_payloads: bool = True,
        with_vectors: bool = False,
        read_after_seq: int = 0,
        at: str | None = None,
    ) -> list[Hits]:
        """``search`` for each row of ``queries`` ((nq, dim) real numbers), faster than one by one."""
        return self.run_search(
            search_request(
                queries, k, batch=True, field=field, where=where, params=params, recall=recall, ef=ef,
                with_payloads=with_payloads, with_vectors=with_vectors, read_after_seq=read_after_seq, at=at,
            )
        )  # fmt: skip

    def explain(
        self,
        query: ArrayLike,
        k: int = 10,
        *,
        field: str | None = None,
        where: WhereArgument = None,
        params: Mapping[str, Any] | None = None,
        recall: RecallArgument = None,
        ef: int | None = None,
        with_payloads: bool = True,
        with_vectors: bool = False,
        read_after_seq: int = 0,
        at: str | None = None,
    ) -> Explanation:
        """Run ``search`` with these arguments once, and tell how: strategy, cost and time of each part, and advice.

        ``print`` shows it as a table. It refuses what ``search`` refuses.
        """
        return self.run_explain(
            search_request(
                query, k, batch=False, field=field, where=where, params=params, recall=recall, ef=ef,
                with_payloads=with_payloads, with_vectors=with_vectors, read_after_seq=read_after_seq, at=at,
            )
        )  # fmt: skip

    def count(
        self, where: WhereArgument = None, *, params: Mapping[str, Any] | None = None, at: str | None = None
    ) -> int:
        """Number of points, or of those that match, now or in the snapshot ``at``."""
        return self.run_count(count_request(where, params, at))

    def scroll(
        self,
        where: WhereArgument = None,
        *,
        params: Mapping[str, Any] | None = None,
        with_payloads: bool = True,
        with_vectors: bool = False,
        page_rows: int = SCROLL_PAGE_ROWS,
        at: str | None = None,
    ) -> Iterator[Point]:
        """Every point that matches, in a stable order, fetched ``page_rows`` at a time.

        A point that is there from the beginning to the end of the scroll comes exactly once.
        """
        cursor: bytes | None = None
        while True:
            page = self.scroll_page(
                page_rows, cursor, where=where, params=params, with_payloads=with_payloads, with_vectors=with_vectors,
                at=at,
            )  # fmt: skip
            yield from page.points
            cursor = page.next_cursor
            if cursor is None:
                return

    def scroll_page(
        self,
        limit: int = SCROLL_PAGE_ROWS,
        cursor: bytes | None = None,
        *,
        where: WhereArgument = None,
        params: Mapping[str, Any] | None = None,
        with_payloads: bool = True,
        with_vectors: bool = False,
        at: str | None = None,
    ) -> Page:
        """One page of at most ``limit`` points (1 to 10,000), and the cursor of the next."""
        return self.run_scroll(scroll_request(limit, cursor, where, params, with_payloads, with_vectors, at))

    @abstractmethod
    def run_write(self, request: WriteRequest) -> WriteResult:
        """Apply one batch; return when it is durable."""

    @abstractmethod
    def run_search(self, request: SearchRequest) -> list[Hits]:
        """One ranking a query."""

    @abstractmethod
    def run_explain(self, request: SearchRequest) -> Explanation:
        """What the search of one query did."""

    @abstractmethod
    def run_get(self, request: GetRequest) -> list[Point]:
        """The points that exist."""

    @abstractmethod
    def run_count(self, request: CountRequest) -> int:
        """The number of points that match."""

    @abstractmethod
    def run_scroll(self, request: ScrollRequest) -> Page:
        """One page of points."""

    @abstractmethod
    def warm(self, *, with_vectors: bool = False) -> WarmReport:
        """Make the next search fast: compile what it runs, and open, verify and read what it looks at.

        That is the ids, codes and graphs of all segments, as far as the memory budget has room for them. Nothing is
        kept from being given back later.

        Parameters
        ----------
        with_vectors
            Verify and read the float32 vectors too, which exact searches read whole and others a few of.

        Raises
        ------
        Corruption
            A file is damaged.
        """

    @abstractmethod
    def stats(self) -> CollectionStats:
        """What the collection holds and what happened to it."""

    @abstractmethod
    def flush(self) -> None:
        """Write what is in memory into segments; return when it is committed. Not needed for durability."""

    @abstractmethod
    def wait_indexed(self, timeout_s: float = 600.0) -> None:
        """Flush, then return when no row waits for an index.

        Raises
        ------
        DeadlineExceeded
            After ``timeout_s`` seconds.
        """

    @abstractmethod
    def compact(self, timeout_s: float = 600.0, *, dry_run: bool = False) -> CompactionReport:
        """Merge the segments into as few as there can be, and drop the rows of deleted and replaced points.

        Done in the background as well, where it is worth it; this does all of it now.

        Parameters
        ----------
        dry_run
            Only say what it would reclaim.

        Raises
        ------
        DeadlineExceeded
            After ``timeout_s`` seconds; the work goes on.
        ResourceExhausted
            No disk space for the new segments; nothing changed.
        """

    @abstractmethod
    def purge(self, timeout_s: float = 600.0) -> CompactionReport:
        """Return when nothing that was deleted before the call is left in any file of the collection.

        Backups, quarantined files and what other processes have mapped are not reached.

        Raises
        ------
        FailedPrecondition
            A snapshot keeps deleted points.
        DeadlineExceeded
            After ``timeout_s`` seconds.
        """

    @abstractmethod
    def create_snapshot(self, name: str) -> SnapshotInfo:
        """Keep what the collection holds now under a name, to be read with ``at=name``; copies nothing.

        Raises
        ------
        AlreadyExists
            There is a snapshot of this name.
        """

    @abstractmethod
    def drop_snapshot(self, name: str) -> None:
        """Forget a snapshot, so that the space of what only it kept is reclaimed; raises NotFound."""

    @abstractmethod
    def snapshots(self) -> Sequence[SnapshotInfo]:
        """The snapshots, by name."""

    def __len__(self) -> int:
        return self.count()

    def __repr__(self) -> str:
        fields = ", ".join(f"{each.name or 'vector'}: {each.dim}-d {each.metric.value}" for each in self.schema.vectors)
        return f"<{type(self).__name__} {self.name!r} ({fields})>"
