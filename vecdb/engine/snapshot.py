"""Named snapshots of one collection: taken, dropped, and looked into.

A snapshot is an entry in the manifest. It names the segments as of one commit and the file of their live rows, so it
costs a flush and no copy; compaction leaves the files that it names alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from vecdb.engine.manifest import LIVE_ROLE, Manifest, SnapshotEntry
from vecdb.engine.snapshot_file import read_live, write_live
from vecdb.engine.state import CollectionState
from vecdb.engine.view import SegmentView, View
from vecdb.errors import AlreadyExists, NotFound, ResourceExhausted, Unavailable
from vecdb.results.snapshot import SnapshotInfo
from vecdb.schema import check_name
from vecdb.segment.layout import SegmentEntry
from vecdb.segment.reader import SegmentReader
from vecdb.storage.array_format import FileRef

SNAPSHOTS_MAX = 1_000
MANIFEST_BYTES_MAX = 32 << 20
"""A snapshot is refused where the manifest would be larger: every commit writes all of it, twice."""
_WIDEST = 2**63
"""A number that takes as many bytes as any."""


class Snapshots:
    """The named snapshots of one collection.

    Parameters
    ----------
    flush
        Writes all rows into segments.
    """

    def __init__(self, state: CollectionState, flush: Callable[[], object]) -> None:
        self._state = state
        self._flush = flush
        self._lock = threading.Lock()
        self._views: dict[str, tuple[SnapshotEntry, View]] = {}

    def create(self, name: str) -> SnapshotInfo:
        """Keep what the collection holds now under a name; durable on return.

        Raises
        ------
        AlreadyExists
            There is a snapshot of this name.
        ResourceExhausted
            No disk space, too many snapshots, or too many files in them.
        Unavailable
            The device failed; the writer is stopped.
        """
        check_name(name, "snapshot")
        state = self._state
        self._refuse_taken(name)
        self._refuse_large(name)
        self._flush()
        number = state.take_segment_id()
        file_name = f"{number:010d}.{LIVE_ROLE}.0"
        # No flush and no compaction meanwhile: the file is to say what the commit says.
        with state.replacing:
            self._refuse_taken(name)
            self._refuse_large(name)
            seq = state.manifest.flushed_seq
            live = dict(state.stored_live)
            try:
                ref = write_live(state.directory, file_name, live)
            except Unavailable as error:
                state.stop_writing(error)
                raise
            snapshot = SnapshotEntry(name, time.time_ns() // 1000, seq, state.manifest.segments, ref)
            try:
                state.commit(lambda manifest: manifest.with_snapshot(snapshot))
            except ResourceExhausted:
                state.directory.unlink(file_name)
                raise
        state.events.count("snapshots_created")
        return self._info(snapshot)

    def drop(self, name: str) -> None:
        """Forget a snapshot; files that only it kept are removed once nobody reads them.

        Raises
        ------
        NotFound
            There is none of this name.
        """
        check_name(name, "snapshot")

        def change(manifest: Manifest) -> Manifest:
            if manifest.snapshot(name) is None:
                raise _not_found(name)
            return manifest.without_snapshot(name)

        self._state.commit(change)
        self.forget_dropped()
        self._state.sweep_files()
        self._state.events.count("snapshots_dropped")

    def list(self) -> list[SnapshotInfo]:
        """All of them, by name."""
        return [self._info(each) for each in self._state.manifest.snapshots]

    def view(self, name: str, *, damaged: bool = False) -> View:
        """What a snapshot holds; its files stay for as long as the view is held, or are mapped by who only reads.

        Parameters
        ----------
        damaged
            Where this process only reads: files may be missing or damaged, which is then an error where one is needed.

        Raises
        ------
        NotFound
            There is none of this name.
        Corruption
            The file of its live rows is damaged. Where this process only reads: any file of it is damaged, or was
            unlinked because the snapshot was dropped.
        """
        with self._lock:
            self._forget_dropped()
            known = self._views.get(name)
            if known is None:
                # Dropped at the same moment, it is found whole or not at all.
                with self._state.freeze() as frozen:
                    snapshot = frozen.manifest.snapshot(name)
                    if snapshot is None:
                        raise _not_found(name)
                    known = self._views[name] = (snapshot, self._opened(snapshot, damaged=damaged))
            return known[1]

    def views(self) -> tuple[View, ...]:
        """Those that were looked into and are still open."""
        return tuple(view for _, view in tuple(self._views.values()))

    def forget_dropped(self) -> None:
        """Let go of what was dropped, by this process or, where it only reads, by another."""
        with self._lock:
            self._forget_dropped()

    def _forget_dropped(self) -> None:
        named = self._state.manifest.snapshots
        self._views = {name: held for name, held in self._views.items() if held[0] in named}

    def _opened(self, snapshot: SnapshotEntry, *, damaged: bool) -> View:
        state = self._state
        live = read_live(state.directory, snapshot.live, snapshot.segments)
        current = {each.reader.segment_id: each.reader for each in state.view.segments}
        segments = tuple(
            SegmentView(self._reader(each, current.get(each.segment_id), damaged=damaged), live[each.segment_id])
            for each in snapshot.segments
        )
        return View(snapshot.seq, segments, ())

    def _reader(self, entry: SegmentEntry, current: SegmentReader | None, *, damaged: bool) -> SegmentReader:
        """The reader that searches of today use, if it has the same rows; a graph may have been added to it."""
        if current is not None and entry.file_names() <= current.entry.file_names():
            return current
        reader = self._state.open_segment(entry)
        if self._state.directory.read_only:
            # Its owner unlinks the files whenever the snapshot is dropped: what is mapped stays readable.
            reader.take(entry, damaged=damaged)
        return reader

    def _refuse_taken(self, name: str) -> None:
        snapshots = self._state.manifest.snapshots
        if any(each.name == name for each in snapshots):
            raise AlreadyExists(f"snapshot {name!r} exists", field="snapshot", value=name)
        if len(snapshots) >= SNAPSHOTS_MAX:
            raise ResourceExhausted(
                f"a collection has at most {SNAPSHOTS_MAX} snapshots; drop some",
                field="snapshot",
                limit=SNAPSHOTS_MAX,
                value=len(snapshots),
            )

    def _refuse_large(self, name: str) -> None:
        """Refuse a snapshot that makes the manifest too large; what is written without one always finds its room."""
        manifest = self._state.manifest
        snapshot = SnapshotEntry(name, _WIDEST, _WIDEST, manifest.segments, FileRef("", _WIDEST, _WIDEST, _WIDEST))
        size_bytes = len(manifest.with_snapshot(snapshot).encode())
        if size_bytes > MANIFEST_BYTES_MAX:
            raise ResourceExhausted(
                f"with snapshot {name!r} the manifest of the collection has {size_bytes} bytes, more than "
                f"{MANIFEST_BYTES_MAX}: drop snapshots, or compact before taking one",
                field="snapshot",
                limit=MANIFEST_BYTES_MAX,
                value=size_bytes,
            )

    def _info(self, snapshot: SnapshotEntry) -> SnapshotInfo:
        return SnapshotInfo(snapshot.name, snapshot.created_us / 1e6, snapshot.seq)


def _not_found(name: str) -> NotFound:
    return NotFound(f"no snapshot {name!r}", field="snapshot", value=name)
