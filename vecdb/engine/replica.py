"""A replica: one collection as another process writes it, or as the last one left it. It changes no byte.

Its view is always the whole of what was committed and logged as of some write. A refresh builds the next view beside
the present one and puts it in place when it is whole, so that a search sees all of a refresh or nothing of it.

What it reads is taken in the order in which the owner gives nothing up before it has replaced it:

1. the first pages of the environment, then the manifest and the live rows of one commit, by a copy;
2. every file that the manifest names is mapped, so that it stays readable when the owner unlinks it;
3. the log above ``flushed_seq``, or above what is known already. One of its files found means that all later ones are
   there, for the owner removes them in order; with none found, the first pages must still be the same, for the log is
   trimmed only after the commit that makes it superfluous.

Whatever is gone in between was replaced by a later commit: then it begins again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import NoReturn

from vecdb.bitmap import LiveRows
from vecdb.engine.applied import AppliedRequests
from vecdb.engine.events import Events
from vecdb.engine.manifest import LIVE_PREFIX, Manifest, read_live_rows
from vecdb.engine.memory_budget import MemoryBudget
from vecdb.engine.options import EngineOptions
from vecdb.engine.recovery import read_manifest
from vecdb.engine.replay import grow_memory, replay_log
from vecdb.engine.resources import Resources, RowMemory
from vecdb.engine.state import LOG, CollectionState, check_not_set
from vecdb.engine.store import READ_AFTER_TIMEOUT_S, OpenCollection, not_visible
from vecdb.engine.threads import Threads
from vecdb.engine.view import SegmentView, View
from vecdb.errors import Corruption, FailedPrecondition, Unavailable, VecdbError
from vecdb.kernels.protocol import Kernels
from vecdb.requests import WriteRequest
from vecdb.results.compaction import CompactionReport
from vecdb.results.snapshot import SnapshotInfo
from vecdb.results.write import WriteResult
from vecdb.segment.layout import Role, SegmentEntry
from vecdb.segment.reader import SegmentReader
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.environment import state_pages
from vecdb.storage.lmdb_store import LmdbStore
from vecdb.storage.reserve import Reserve
from vecdb.storage.wal import Log

ATTEMPTS_MAX = 50
_LOOK_AGAIN_S = 0.01


class CollectionReplica(OpenCollection):
    """A collection that is only read.

    Parameters
    ----------
    directory
        The collection's, open for reading only.
    budget
        Of all collections of the database.

    Raises
    ------
    Corruption
        What is there is damaged.
    NotFound
        The collection was dropped.
    Unavailable
        The owner replaced what was being read, again and again; or the device failed.
    """

    def __init__(
        self,
        directory: MmapDirectory,
        collection_id: str,
        options: EngineOptions,
        kernels: Kernels,
        threads: Threads,
        budget: MemoryBudget,
    ) -> None:
        self._source = _Source(directory, collection_id, options, kernels, budget)
        self._refreshing = threading.Lock()
        super().__init__(self._source.latest(None), threads)
        budget.join(self._memory)

    def refresh(self) -> None:
        """Make visible what was acknowledged before this call; raises as opening does, and the view stays as it was."""
        with self._refreshing:
            state = self._state
            try:
                latest = self._source.latest(state)
            except VecdbError:
                state.events.count("refreshes_failed")
                raise
            state.manifest = latest.manifest
            state.stored_live = latest.stored_live
            if latest.view.seq < state.view.seq:
                # Its writer could not end the write that it had begun, and took it back.
                state.events.report("unfinished_write_withdrawn", last_seq=latest.view.seq)
            if latest.view is not state.view:
                state.events.count("refreshes")
                state.publish(latest.view)
            self._snapshots.forget_dropped()

    def write(self, request: WriteRequest) -> WriteResult:
        """Refused."""
        del request
        refuse("write")

    def flush(self) -> int:
        """Refused."""
        refuse("flush")

    def wait_indexed(self, timeout_s: float) -> None:
        """Refused: whoever writes builds the indexes."""
        del timeout_s
        refuse("build indexes")

    def close(self, *, keep: bool = True) -> None:
        """Stop what runs in the background and release the memory."""
        del keep
        super().close(keep=False)

    def compact(self, timeout_s: float, *, dry_run: bool = False) -> CompactionReport:
        """Refused, but for a forecast."""
        return super().compact(timeout_s, dry_run=True) if dry_run else refuse("compact")

    def purge(self, timeout_s: float) -> CompactionReport:
        """Refused."""
        del timeout_s
        refuse("purge")

    def create_snapshot(self, name: str) -> SnapshotInfo:
        """Refused."""
        del name
        refuse("take a snapshot")

    def drop_snapshot(self, name: str) -> None:
        """Refused."""
        del name
        refuse("drop a snapshot")

    def _view_at(self, at: str) -> View:
        """The present view, or the one that a snapshot keeps, unless its owner has dropped it meanwhile."""
        if not at:
            return self._state.view
        damaged = False
        while True:
            snapshot = self._state.manifest.snapshot(at)
            failure: Corruption | None = None
            try:
                view = self._snapshots.view(at, damaged=damaged)
            except Corruption as error:
                failure = error
            else:
                if not damaged:
                    return view
            # What is missing was unlinked when the snapshot was dropped; of one that is still there, it is damaged.
            self.refresh()
            still_there = self._state.manifest.snapshot(at) == snapshot
            if damaged and still_there:
                if failure is not None:
                    raise failure
                return view
            damaged = still_there

    def _view_after(self, seq: int, at: str) -> View:
        """The view with the write ``seq`` in it, refreshed until it is."""
        if at:
            return self._view_at(at)
        state = self._state
        deadline = time.monotonic() + READ_AFTER_TIMEOUT_S
        while state.view.seq < seq:
            self.refresh()
            if state.view.seq < seq:
                if time.monotonic() >= deadline:
                    raise not_visible(seq, state.view.seq)
                state.closing.wait(_LOOK_AGAIN_S)
                state.check_not_closing()
        return state.view


def refuse(what: str) -> NoReturn:
    """Raise FailedPrecondition for what a database that is open for reading does not do."""
    raise FailedPrecondition(f"cannot {what}: the database was opened with read_only=True", field="read_only")


class _Source:
    """Takes the states of a collection from its directory, each from the one before where that is possible."""

    def __init__(
        self,
        directory: MmapDirectory,
        collection_id: str,
        options: EngineOptions,
        kernels: Kernels,
        budget: MemoryBudget,
    ) -> None:
        self._directory = directory
        self._collection_id = collection_id
        self._options = options
        self._kernels = kernels
        self._log = Log(directory.child(LOG, create=False))
        # A reader holds nothing back, and what its rows take is decided by whoever writes.
        self._resources = Resources(Reserve(directory, 0), RowMemory(options.rows_bytes_max), budget)
        self._closing = threading.Event()
        """Of all its states."""
        self._pages = b""
        self._sound = False
        """Whether the last state can be gone on from: no replay into its memtable was broken off."""
        self._given: View | None = None
        """What was replayed into its memtable; it may never have been published."""

    def latest(self, before: CollectionState | None) -> CollectionState:
        """The state as of now; ``before`` is the one that the last call gave, and stays as it is."""
        failed_at = b""
        for _ in range(ATTEMPTS_MAX):
            pages = state_pages(self._directory)
            sound = self._sound and before is not None and before.view is self._given
            going_on, self._sound = before if sound else None, False
            try:
                if going_on is not None and pages == self._pages:
                    state = self._state(going_on.metadata, going_on.manifest, going_on.view, going_on)
                    state.stored_live = going_on.stored_live
                else:
                    state = self._taken(before, going_on, damaged=failed_at == pages)
                replay_log(state, grow_memory(state))
            except (Corruption, Unavailable):
                # Twice while nothing was committed: it is not the owner who removed or replaced what was to be read.
                if failed_at == pages:
                    raise
                failed_at = pages
                continue
            if state.log.size_bytes or state_pages(self._directory) == pages:
                self._pages, self._given = pages, state.view
                self._sound = True
                return state
        raise Unavailable(
            f"the owner of {self._directory.path} committed during each of {ATTEMPTS_MAX} attempts to read it",
            field=str(self._directory.path),
            limit=ATTEMPTS_MAX,
        )

    def _taken(
        self, before: CollectionState | None, going_on: CollectionState | None, *, damaged: bool
    ) -> CollectionState:
        """The state of the last commit, with the log still to be replayed.

        Parameters
        ----------
        before
            Its segments stay open.
        going_on
            Its view is kept too, where the commit only added files, as that of a graph does.
        damaged
            Files that cannot be mapped are an error only where they are needed, as they are to the owner.
        """
        metadata, manifest = read_manifest(self._directory, self._collection_id)
        try:
            chunks = dict(metadata.items(LIVE_PREFIX))
        finally:
            metadata.close()
        where = f"{self._directory.path}/data.mdb"
        live: dict[int, LiveRows] = {
            entry.segment_id: read_live_rows(entry, chunks, where) for entry in manifest.segments
        }
        readers = {} if before is None else {each.reader.segment_id: each.reader for each in before.view.segments}
        segments: list[SegmentView] = []
        for entry in manifest.segments:
            reader = self._reader(readers, entry, manifest)
            reader.take(entry, damaged=damaged)
            segments.append(SegmentView(reader, live[entry.segment_id]))
        if going_on is not None and _rows(manifest) == _rows(going_on.manifest):
            state = self._state(metadata, manifest, going_on.view, before)
        else:
            state = self._state(metadata, manifest, View(manifest.flushed_seq, tuple(segments), ()), before)
            memtable = state.new_memtable(manifest.flushed_seq + 1)
            state.view = state.view.with_memtables((memtable.empty_view(),))
        state.stored_live = live
        return state

    def _reader(self, readers: Mapping[int, SegmentReader], entry: SegmentEntry, manifest: Manifest) -> SegmentReader:
        """The reader of a segment, the same one for as long as there is the segment."""
        known = readers.get(entry.segment_id)
        if known is None or known.entry.file(Role.IDS) != entry.file(Role.IDS):
            room, go_on = self._resources.budget.room, partial(check_not_set, self._closing)
            return SegmentReader(self._directory, entry, manifest.schema, self._kernels, room, go_on)
        return known

    def _state(
        self, metadata: LmdbStore, manifest: Manifest, view: View, before: CollectionState | None
    ) -> CollectionState:
        """A state of the collection. Its metadata are closed: all that a reader needs of them was taken."""
        events = Events(manifest.collection) if before is None else before.events
        # Whatever was applied lately is remembered by the owner, who alone is asked again.
        applied = AppliedRequests()
        state = CollectionState(
            self._directory,
            metadata,
            self._log,
            manifest,
            view,
            applied,
            self._options,
            self._kernels,
            events,
            self._resources,
        )
        state.closing = self._closing
        return state


def _rows(manifest: Manifest) -> object:
    """What two manifests have in common if the rows of their segments are the same."""
    return manifest.flushed_seq, [(each.segment_id, each.file(Role.IDS)) for each in manifest.segments]
