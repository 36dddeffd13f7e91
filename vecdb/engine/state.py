"""The state of one open collection, shared by its writer, its background work and its readers.

Readers take ``view`` and hold it; it is replaced as a whole, by the writer only. ``manifest`` changes only inside
``commit``, which is the one place where a change of metadata becomes durable.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePath
from typing import TypeAlias, TypeVar

from vecdb.bitmap import LiveRows
from vecdb.engine.applied import AppliedRequests
from vecdb.engine.events import Events
from vecdb.engine.files import CollectionFiles
from vecdb.engine.log_archive import LogArchive
from vecdb.engine.manifest import MANIFEST_KEY, Manifest, changed_live_chunks, live_keys
from vecdb.engine.options import EngineOptions
from vecdb.engine.recall_ledger import RecallLedger
from vecdb.engine.resources import Resources
from vecdb.engine.view import View
from vecdb.errors import Cancelled, Corruption, Unavailable, VecdbError
from vecdb.kernels.protocol import Kernels
from vecdb.query.matching import Matchers
from vecdb.segment.layout import SegmentEntry
from vecdb.segment.memtable import ROW_OVERHEAD_BYTES, ROWS_FIRST, Memtable
from vecdb.segment.reader import SegmentReader
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.lmdb_store import LmdbStore
from vecdb.storage.mirror import write_mirror
from vecdb.storage.wal import Log
from vecdb.types import SegmentId

MIRROR = "mirror"
LOG = "log"
_ROWS_MAX = 2**20

ManifestChange: TypeAlias = Callable[[Manifest], Manifest]
Result = TypeVar("Result")


def check_not_set(closing: threading.Event) -> None:
    """Raise Cancelled once closing has begun."""
    if closing.is_set():
        raise Cancelled("the collection is closing", field="collection")


@dataclass(frozen=True, slots=True)
class Frozen:
    """What a collection consisted of as of one commit; its files stay for as long as it is held.

    Attributes
    ----------
    live
        The live rows of each segment, by its number, as of ``manifest.flushed_seq``.
    """

    manifest: Manifest
    live: Mapping[int, LiveRows]


class CollectionState:
    """What is open of a collection."""

    def __init__(
        self,
        directory: MmapDirectory,
        metadata: LmdbStore,
        log: Log,
        manifest: Manifest,
        view: View,
        applied: AppliedRequests,
        options: EngineOptions,
        kernels: Kernels,
        events: Events,
        resources: Resources,
        log_archive: LogArchive | None = None,
    ) -> None:
        self.directory = directory
        self.metadata = metadata
        self.log = log
        self.manifest = manifest
        self.view = view
        self.applied = applied
        self.options = options
        self.kernels = kernels
        self.events = events
        self.resources = resources
        self.log_archive = log_archive
        self.files = CollectionFiles(directory)
        self.matchers = Matchers()
        self.recall = RecallLedger(corrects=options.recall_correction)
        self.closing = threading.Event()
        self.published = threading.Condition()
        self.sealed_views: dict[Memtable, View] = {}
        """The view at the moment at which each waiting memtable was sealed: what its flush makes durable."""
        self.stored_live: Mapping[int, LiveRows] = {}
        """The live rows of each segment as the metadata holds them: those as of ``manifest.flushed_seq``."""
        self.flush_failure: BaseException | None = None
        """Why the last flush failed; ``None`` after one that did not."""
        self.mirror_behind = False
        """Whether the mirror could not be written at the last commit; the log is then kept."""
        self.replacing = threading.Lock()
        """Held while segments of the view are replaced or added, from the commit until they are published."""
        self.merging: frozenset[int] = frozenset()
        """Numbers of the segments that are being merged: nothing else is begun on them."""
        self.stopped_by: BaseException | None = None
        """The failure that stopped the writer for good."""
        self._damaged: set[str] = set()
        self._superseded: set[str] = set()
        self._telling = threading.Lock()
        self._commit_lock = threading.Lock()
        self._next_segment_id = manifest.next_segment_id

    def publish(self, view: View) -> None:
        """Let readers see ``view`` from now on."""
        with self.published:
            self.view = view
            self.published.notify_all()
        self.note_memory()

    def note_memory(self) -> None:
        """Tell what the rows in memory take, and whether they can be written out."""
        *waiting, filling = (each.memtable.size_bytes for each in self.view.memtables)
        failing = self.stopped_by is not None or self.flush_failure is not None
        self.resources.memory.note(self.manifest.collection_id, filling, sum(waiting), failing=failing)

    def stop_writing(self, error: BaseException) -> None:
        """Stop the writer for good, after a failure of which nobody can tell what is durable; told once."""
        with self._telling:
            if self.stopped_by is not None:
                return
            self.stopped_by = error
        file = error.field if isinstance(error, VecdbError) else None
        self.events.report(
            "writer_stopped", level=logging.ERROR, error=type(error).__name__, file=file, seq=self.view.seq
        )
        self.note_memory()

    def check_not_stopped(self) -> None:
        """Raise Unavailable once the writer has stopped."""
        if self.stopped_by is not None:
            raise Unavailable(
                f"the writer of this collection stopped: {self.stopped_by}; reopen the database", field="collection"
            ) from self.stopped_by

    def tell_damage(self, error: Corruption) -> None:
        """Count and log a file that is damaged or cannot be read, however often that is met."""
        file = error.field or "unknown"
        with self._telling:
            if PurePath(file).name in self._damaged:
                return
            self._damaged.add(PurePath(file).name)
        self.events.report("file_damaged", level=logging.ERROR, file=file, error=error.message)

    def check_trimmed(self) -> None:
        """Raise Unavailable where files or log records that nothing needs any more are still there."""
        if self.mirror_behind or self._superseded or self.log.trimmable(self.manifest.flushed_seq):
            raise Unavailable(
                "files that are not needed any more could not be removed; stats() tells why", field="collection"
            )

    def take_reserve(self) -> None:
        """Hold the reserve back again, if it was given up; DiskFull where there is no space for it."""
        self.resources.reserve.take(self.events.report)

    def spending_reserve(self, attempt: Callable[[], Result]) -> Result:
        """What ``attempt`` gives; on a full disk it may have the reserve. For what must go on, or frees space.

        The attempt is made again then, so it leaves nothing behind when it raises DiskFull.
        """
        return self.resources.reserve.spent_on(attempt, self.events.report)

    def begin_close(self) -> None:
        """Wake everything that waits, to find that the collection is closing."""
        self.closing.set()
        with self.published:
            self.published.notify_all()

    def check_not_closing(self) -> None:
        """Raise Cancelled once closing has begun."""
        check_not_set(self.closing)

    def new_memtable(self, seq_first: int, rows: int = 0, rows_expected: int = ROWS_FIRST) -> Memtable:
        """An empty memtable that can take at least ``rows`` rows."""
        row_bytes = ROW_OVERHEAD_BYTES + sum(4 * each.dim for each in self.manifest.schema.vectors)
        capacity = max(1, min(self.options.memtable_size_bytes // row_bytes, _ROWS_MAX))
        return Memtable(self.manifest.schema, max(capacity, rows), seq_first, rows_expected)

    def open_segment(self, entry: SegmentEntry) -> SegmentReader:
        """A reader of a segment, whose files stay for as long as there is one."""
        room = self.resources.budget.room
        # A reader must not hold what holds readers, or it would be gone only by way of the garbage collector.
        go_on = partial(check_not_set, self.closing)
        return self.files.reading(SegmentReader(self.directory, entry, self.manifest.schema, self.kernels, room, go_on))

    def sweep_files(self, *, closing: bool = False) -> bool:
        """Unlink the files that nobody holds any more, or all at the end; whether nothing is left to be unlinked."""
        try:
            if closing:
                self.files.close()
                return True
            return self.files.sweep()
        except VecdbError as error:
            # They are only in the way; the next sweep tries again, and the next open.
            self.events.report("file_not_removed", file=error.field, error=type(error).__name__)
            return False

    def trim_log(self, flushed_seq: int) -> None:
        """Unlink the log files that nothing needs any more, once they are kept where they are to be."""
        if self.log_archive is not None:
            log = self.directory.child(LOG, create=False)
            try:
                self.log_archive.keep(self.manifest.collection_id, log, self.log.trimmable(flushed_seq))
            except VecdbError as error:
                # The log keeps them, and grows; the next flush tries again.
                self.events.report("log_not_archived", level=logging.ERROR, file=error.field, error=error.message)
                return
        try:
            self.log.trim(flushed_seq)
        except VecdbError as error:
            self.events.report("file_not_removed", file=error.field, error=type(error).__name__)

    def take_segment_id(self) -> SegmentId:
        """A number for a segment or snapshot that nothing else has, nor will have."""
        with self._commit_lock:
            taken = max(self._next_segment_id, self.manifest.next_segment_id)
            self._next_segment_id = taken + 1
            return SegmentId(taken)

    @contextmanager
    def freeze(self) -> Iterator[Frozen]:
        """The last commit, with its files kept for the length of the block. What is not flushed is not in it."""
        with self._commit_lock:
            frozen = Frozen(self.manifest, self.stored_live)
            held = frozen.manifest.file_names()
            self.files.pin(held)
        try:
            yield frozen
        finally:
            self.files.unpin(held)
            self.sweep_files()

    def commit(
        self,
        change: ManifestChange,
        live: Mapping[int, LiveRows] | None = None,
        puts: Mapping[bytes, bytes] | None = None,
        deletes: Iterable[bytes] = (),
    ) -> Manifest:
        """Make a changed manifest durable: files first (they are, by now), then metadata, then its mirror.

        Parameters
        ----------
        change
            From the present manifest to the next; called with the lock held.
        live
            The live rows, by number of the segment, where they are others than before.
        puts, deletes
            What else changes in the metadata.

        Raises
        ------
        ResourceExhausted
            No space; nothing changed.
        Unavailable
            The writer is stopped. Or the device failed, or something else interrupted it: the writer is stopped now,
            and only reopening tells whether the change is durable.
        """
        try:
            return self._commit(change, live or {}, puts or {}, deletes)
        except Unavailable as error:
            self.stop_writing(error)
            raise

    def _commit(
        self,
        change: ManifestChange,
        live: Mapping[int, LiveRows],
        puts: Mapping[bytes, bytes],
        deletes: Iterable[bytes],
    ) -> Manifest:
        with self._commit_lock:
            # What stopped the writer may have been a commit of which nobody knows whether it is durable.
            self.check_not_stopped()
            before = self.manifest
            changed = change(before)
            # No number is taken twice, by a snapshot neither: files are named by it.
            manifest = replace(changed, next_segment_id=max(changed.next_segment_id, self._next_segment_id))
            self.directory.sync()
            encoded = manifest.encode()
            stored = {MANIFEST_KEY: encoded, **puts}
            for segment_id, rows in live.items():
                stored.update(changed_live_chunks(segment_id, self.stored_live.get(segment_id), rows))
            kept = {each.segment_id for each in manifest.segments}
            gone = [key for each in before.segments if each.segment_id not in kept for key in live_keys(each)]
            removed = [*deletes, *gone]
            known = {**self.stored_live, **live}
            stored_live = {number: rows for number, rows in known.items() if number in kept}
            superseded = self._superseded | (before.file_names() - manifest.file_names())
            try:
                self.spending_reserve(lambda: self.metadata.commit(stored, removed))
                # From here the change is durable, whatever happens to the mirror.
                self.manifest, self.stored_live, self._superseded = manifest, stored_live, superseded
                self._write_mirror(encoded)
            except VecdbError:
                raise
            except BaseException as error:
                # Whoever made the change must neither take it for failed, nor make it again.
                raise Unavailable(f"a commit was interrupted by {type(error).__name__}", field="collection") from error
            return manifest

    def _write_mirror(self, encoded: bytes) -> None:
        """Follow a commit that is durable."""
        try:
            fingerprint = self.metadata.fingerprint()
            self.spending_reserve(lambda: write_mirror(self.directory, MIRROR, encoded, fingerprint))
        except (VecdbError, MemoryError) as error:
            # No reason to fail, or the caller would make the change a second time. The next commit or the next open
            # writes the mirror.
            self.mirror_behind = True
            file = error.field if isinstance(error, VecdbError) else None
            self.events.report("mirror_not_written", error=type(error).__name__, file=file)
            if isinstance(error, Unavailable):
                self.stop_writing(error)
            return
        # What a mirror on the disk names must stay until there is another: from it the metadata might be rebuilt.
        self.mirror_behind = False
        self.files.retire(self._superseded)
        self._superseded = set()
