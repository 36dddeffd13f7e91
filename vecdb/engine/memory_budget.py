"""The memory that searching takes, of all open collections of one database, and how it is kept within a budget.

What counts: the pages of segment files that are mapped in this process, what was computed from files and is kept, and
rows that are not yet in a segment. ``settle`` compares it with the budget in microseconds: the system tells how many
pages of files the process has, and which of them are others' was measured a moment ago. Only where that says too much
is anything measured again or given back, and nothing is given back that could not be read or computed again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from vecdb.engine.events import Events, logger
from vecdb.engine.view import View
from vecdb.errors import FailedPrecondition, ResourceExhausted, VecdbError
from vecdb.query.matching import Matchers
from vecdb.results.stats import MemoryUse
from vecdb.segment.layout import Role
from vecdb.segment.reader import SegmentReader
from vecdb.segment.room import Room
from vecdb.storage.array_file import ArrayFile
from vecdb.storage.io import FileSystem

WINDOW_BYTES_MAX: Final = 8 * 2**20
"""Where the files do not fit, float32 vectors are read so much at a time, or a sixteenth of the budget."""

_TICK_S: Final = 0.1
"""So often the budget is looked at while nobody searches: merges, index builds and readers of payloads take memory."""

_MEASURED_FOR_S: Final = 1.0
"""So long a measurement of who has which pages is trusted."""

_KEPT_SHARE: Final = 7 / 8
"""Where the budget is exceeded, memory is given back down to this share, so as not to do it at every search."""

_FIRST: Final = frozenset({Role.VECTORS, Role.PAYLOAD, Role.SEQS, Role.JOURNAL})
_LAST: Final = frozenset({Role.CODES, Role.GRAPH, Role.IDS})


class CollectionMemory:
    """One open collection, as the budget sees it.

    Parameters
    ----------
    views
        Gives the present view, and those of snapshots that are open.
    """

    def __init__(self, views: Callable[[], Iterable[View]], matchers: Matchers, events: Events) -> None:
        self._views = views
        self.matchers = matchers
        self.events = events

    def readers(self) -> Collection[SegmentReader]:
        """The segments that are open, each once."""
        return dict.fromkeys(each.reader for view in self._views() for each in view.segments)

    def rows_bytes(self) -> int:
        """Bytes of the rows that are in no segment."""
        memtables = {id(each.memtable): each.memtable for view in self._views() for each in view.memtables}
        return sum(each.size_bytes for each in memtables.values())

    def derived_bytes(self) -> int:
        """Bytes of what was computed from files and is kept."""
        graphs = sum(reader.derived_bytes for reader in self.readers())
        return graphs + sum(each.size_bytes for each in self.matchers.remembered())

    def file_bytes(self) -> int:
        """Bytes of all files of the segments."""
        return sum(file.ref.size_bytes for reader in self.readers() for file in reader.entry.files)


class MemoryBudget:
    """The budget of one database. Safe to use from many threads; as ``Room`` for its segments.

    Parameters
    ----------
    budget_bytes
        ``None``: no budget; memory is measured, and nothing is given back.

    Raises
    ------
    FailedPrecondition
        A budget is wanted, and the system does not tell what memory the process has.
    """

    def __init__(self, budget_bytes: int | None, fs: FileSystem) -> None:
        self.budget_bytes = budget_bytes
        self.window_bytes = 0 if budget_bytes is None else min(WINDOW_BYTES_MAX, budget_bytes // 16)
        self.fits = budget_bytes is None
        self._fs = fs
        self._sharing: dict[CollectionMemory, None] = {}
        self._lock = threading.Lock()
        self._releasing = threading.Lock()
        self._reading = threading.Lock()
        """Held while the process's pages are read, so that nothing else is read in the place of what was closed."""
        self._built = True
        self._computed_bytes = 0
        """Memory that is in no file, when it was last counted."""
        self._others_bytes = 0
        """Pages of files that are not ours, when that was last measured."""
        self._measured_s = -_MEASURED_FOR_S
        self._exceeded = False
        self._releases = 0
        self._told = ""
        self._closed = threading.Event()
        self._ticking: threading.Thread | None = None
        self._pages_fd = -1
        if budget_bytes is not None:
            try:
                fs.mapped_bytes_by_address()
            except OSError as error:
                raise FailedPrecondition(
                    f"this system does not tell what memory the process has ({error}), which a budget needs",
                    field="memory_budget_bytes",
                    value=budget_bytes,
                ) from error

    def join(self, collection: CollectionMemory) -> None:
        """Count a collection.

        Raises
        ------
        ResourceExhausted
            The first one, where the system has no descriptor or no memory for what looks after a budget.
        """
        with self._lock:
            if self.budget_bytes is not None and self._ticking is None:
                self._begin()
            self._sharing[collection] = None
        self._count()

    def _begin(self) -> None:
        """Begin to look after the budget."""
        try:
            with self._reading:
                if self._pages_fd < 0:
                    self._pages_fd = self._fs.open_process_pages()
            ticking = threading.Thread(target=self._tick, name="vecdb-memory", daemon=True)
            ticking.start()
        except (OSError, RuntimeError) as error:
            raise ResourceExhausted(f"the memory budget cannot be looked after: {error}", field="threads") from error
        self._ticking = ticking

    def leave(self, collection: CollectionMemory) -> None:
        """Count a collection no more."""
        with self._lock:
            self._sharing.pop(collection, None)
        self._built = True

    def note_built(self) -> None:
        """Hear that something was computed from files and is kept."""
        self._built = True

    def settle(self) -> None:
        """Give memory back if more is taken than the budget allows; microseconds where it is not."""
        if self.budget_bytes is None or self._pages_fd < 0:
            return
        try:
            if self._built:
                self._count()
            if self._taken_bytes() > self.budget_bytes and self._releasing.acquire(blocking=False):
                # Somebody else who is at it does it for all.
                try:
                    self._release(self.budget_bytes)
                finally:
                    self._releasing.release()
        except OSError as error:
            # No answer fails for it; hits are also read when the database is being closed.
            if not self._closed.is_set():
                self._tell(error)

    @property
    def room(self) -> Room | None:
        """What segments ask while there is a budget."""
        return None if self.budget_bytes is None else self

    def admits(self, file: ArrayFile) -> bool:
        """Whether all of a file may be in memory, beside what is there now."""
        if self.budget_bytes is None:
            return True
        self._count()
        self._measure()
        there_bytes = self._fs.mapped_bytes_by_address().get(file.address, 0)
        return self._taken_bytes() - there_bytes + file.ref.size_bytes <= self.budget_bytes

    def use(self) -> MemoryUse:
        """What is taken now, measured."""
        sharing = self._collections()
        try:
            by_address = self._fs.mapped_bytes_by_address()
        except OSError:
            by_address = {}  # Told as 0.
        return MemoryUse(
            self.budget_bytes or 0,
            sum(_mapped_bytes(each.readers(), by_address) for each in sharing),
            sum(each.derived_bytes() for each in sharing),
            sum(each.rows_bytes() for each in sharing),
            self._releases,
        )

    def close(self) -> None:
        """End the thread that looks after it."""
        self._closed.set()
        if self._ticking is not None:
            self._ticking.join()
        with self._reading:
            if self._pages_fd >= 0:
                fd, self._pages_fd = self._pages_fd, -1
                self._fs.close(fd)

    def _collections(self) -> list[CollectionMemory]:
        with self._lock:
            return list(self._sharing)

    def _tick(self) -> None:
        while not self._closed.wait(_TICK_S):
            # Rows come and go without telling.
            self._built = True
            try:
                if time.monotonic() - self._measured_s > _MEASURED_FOR_S:
                    self._measure()
                self.settle()
            except (OSError, VecdbError, MemoryError) as error:
                self._tell(error)

    def _count(self) -> None:
        """Count what is in no file, and whether all the rest may be in memory beside it."""
        self._built = False
        sharing = self._collections()
        self._computed_bytes = sum(each.derived_bytes() + each.rows_bytes() for each in sharing)
        if self.budget_bytes is not None:
            files_bytes = sum(each.file_bytes() for each in sharing)
            self.fits = files_bytes + self._computed_bytes <= _KEPT_SHARE * self.budget_bytes

    def _taken_bytes(self) -> int:
        """What is taken, by the last measurement and count: pages that others mapped since are counted too."""
        return self._all_bytes() - self._others_bytes + self._computed_bytes

    def _all_bytes(self) -> int:
        """Pages of files that the process has; none after closing."""
        with self._reading:
            return 0 if self._pages_fd < 0 else self._fs.mapped_bytes(self._pages_fd)

    def _measure(self) -> int:
        """Find out how many pages of files are not ours; what is taken."""
        # In this order: pages that come meanwhile count as ours.
        all_bytes = self._all_bytes()
        self._measured_s = time.monotonic()
        try:
            by_address = self._fs.mapped_bytes_by_address()
        except OSError as error:
            # What was measured before holds a little longer.
            self._tell(error)
            return self._taken_bytes()
        ours_bytes = sum(_mapped_bytes(each.readers(), by_address) for each in self._collections())
        self._others_bytes = max(0, all_bytes - ours_bytes)
        return ours_bytes + self._computed_bytes

    def _exceeds(self, size_bytes: int) -> bool:
        """Whether more than so much is taken; measured, where it seems so: others may be mapping files just now."""
        return self._taken_bytes() > size_bytes and self._measure() > size_bytes

    def _tell(self, error: BaseException) -> None:
        """Log why the budget could not be looked after, once for a row of failures of one kind."""
        told = repr(error)
        if told != self._told:
            self._told = told
            logger.warning("memory_budget_not_kept error=%s", told)

    def _release(self, budget_bytes: int) -> None:
        """Give memory back, in the order in which it is missed least, until enough is left."""
        if not self._exceeds(budget_bytes):
            return
        self._releases += 1
        enough_bytes = int(_KEPT_SHARE * budget_bytes)
        sharing = self._collections()
        owners = {reader: each for each in sharing for reader in each.readers()}
        longest_ago = sorted(owners, key=lambda reader: reader.searched_s)
        self._release_pages(longest_ago, owners, _FIRST, "memory_released_vectors", enough_bytes)
        self._forget_filters(sharing, enough_bytes)
        self._release_pages(longest_ago, owners, _LAST, "memory_released_graphs", enough_bytes)
        for reader in longest_ago:
            if not self._exceeds(enough_bytes):
                break
            if reader.derived_bytes:
                reader.forget_derived()
                owners[reader].events.count("memory_released_sketches")
                self._count()
        exceeded = self._exceeds(budget_bytes)
        if exceeded and not self._exceeded:
            for each in sharing[:1]:
                each.events.report("memory_budget_exceeded", budget=budget_bytes, taken=self._taken_bytes())
        self._exceeded = exceeded

    def _release_pages(
        self,
        readers: Iterable[SegmentReader],
        owners: dict[SegmentReader, CollectionMemory],
        roles: Collection[Role],
        event: str,
        enough_bytes: int,
    ) -> None:
        for reader in readers:
            if not self._exceeds(enough_bytes):
                return
            before_bytes = self._taken_bytes()
            for role, file in reader.files.mapped():
                if role in roles:
                    file.release()
            if self._taken_bytes() < before_bytes:
                owners[reader].events.count(event)

    def _forget_filters(self, sharing: Iterable[CollectionMemory], enough_bytes: int) -> None:
        if not self._exceeds(enough_bytes):
            return
        remembered = [(each, owner) for owner in sharing for each in owner.matchers.remembered()]
        for each, owner in sorted(remembered, key=lambda pair: pair[0].used_s):
            if not self._exceeds(enough_bytes):
                return
            each.drop()
            self._computed_bytes -= each.size_bytes
            owner.events.count("memory_released_filters")


def _mapped_bytes(readers: Iterable[SegmentReader], by_address: Mapping[int, int]) -> int:
    return sum(by_address.get(file.address, 0) for reader in readers for _, file in reader.files.mapped())
