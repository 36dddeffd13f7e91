"""Verification ahead of use: reads the files of a collection that is being searched, so that searches need not.

A search verifies what it reads either way. Once a file is verified as a whole that costs nothing more.
"""

from __future__ import annotations

from vecdb.engine.background import BackgroundWork
from vecdb.engine.manifest import Manifest
from vecdb.engine.state import CollectionState
from vecdb.engine.threads import Pool
from vecdb.errors import Corruption, ResourceExhausted, VecdbError
from vecdb.segment.layout import SegmentFile
from vecdb.segment.reader import SegmentReader


class Verifier:
    """Verifies the segments of one collection, each file once, in the background."""

    def __init__(self, state: CollectionState, pool: Pool) -> None:
        self._state = state
        self._work = BackgroundWork(pool, self._verify_what_is_new)
        self._seen: set[str] = set()
        self._scheduled_for: tuple[Manifest | None, int] = (None, 0)

    def schedule(self) -> None:
        """Verify what was not verified before, soon."""
        # A new segment is in the manifest first and in the view a moment later.
        now = (self._state.manifest, len(self._state.view.segments))
        if self._scheduled_for[0] is now[0] and self._scheduled_for[1] == now[1]:
            return
        self._scheduled_for = now
        try:
            self._work.schedule()
        except ResourceExhausted as error:
            # Searches verify what they read themselves.
            self._state.events.report("verification_failed", error=type(error).__name__)

    def stop(self) -> None:
        """Wait until the running verification has noticed that the collection is closing."""
        self._work.stop()

    def _verify_what_is_new(self) -> None:
        state = self._state
        entries = state.manifest.segments
        size_bytes = sum(file.ref.size_bytes for entry in entries for file in entry.files)
        for segment in state.view.segments:
            for file in segment.reader.entry.files:
                if file.ref.name in self._seen or state.closing.is_set():
                    continue
                self._seen.add(file.ref.name)
                if size_bytes <= state.options.verify_ahead_bytes_max:
                    self._verify(segment.reader, file)

    def _verify(self, reader: SegmentReader, file: SegmentFile) -> None:
        try:
            reader.files.array_file(file.role, file.field).verify()
        except Corruption as error:
            # Searches that need the damaged rows fail by themselves; the others go on, and so do the other files.
            self._state.tell_damage(error)
        except (VecdbError, MemoryError) as error:
            # Nothing is known of the file; who needs it verifies it.
            self._state.events.report("verification_failed", file=file.ref.name, error=type(error).__name__)
