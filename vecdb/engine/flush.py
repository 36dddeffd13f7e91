"""Flushes: a full memtable becomes a segment, in the background, while writes and searches go on.

What is committed is the state as of the memtable's last write: its rows that were live then, and the live rows of all
other segments as they were then. What died later comes back by replaying the log, which is trimmed only afterwards.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from vecdb.bitmap import LiveRows
from vecdb.engine.log_record import AppliedRequest
from vecdb.engine.manifest import Manifest, request_key
from vecdb.engine.state import CollectionState
from vecdb.engine.writer import Writer
from vecdb.errors import ResourceExhausted, Unavailable, VecdbError
from vecdb.segment.layout import SegmentEntry
from vecdb.segment.memtable import Memtable
from vecdb.segment.writer import SegmentWriter
from vecdb.storage.io import DiskFull
from vecdb.types import I64Array


class Flusher:
    """Flushes the sealed memtables of one collection, oldest first, one at a time."""

    def __init__(
        self, state: CollectionState, pool: ThreadPoolExecutor, writer: Writer, on_flushed: Callable[[], None]
    ) -> None:
        self._state = state
        self._pool = pool
        self._writer = writer
        self._on_flushed = on_flushed
        self._lock = threading.Lock()
        self._stopped = False

    def schedule(self) -> Future[None]:
        """Flush what is sealed, soon; done when that was tried. What becomes of it is in ``state.flush_failure``."""
        try:
            tried = self._pool.submit(self._flush_in_background)
        except ResourceExhausted as error:
            self._tell(error, self._state.view.memtables[0].memtable)
            failed: Future[None] = Future()
            failed.set_exception(error)
            return failed
        tried.add_done_callback(lambda _: self._writer.wake())
        return tried

    def _flush_in_background(self) -> None:
        try:
            self.flush_sealed()
        except Exception as error:  # noqa: BLE001 - told by then, and kept for the writer; the log still holds the rows
            self._state.flush_failure = error

    def flush_sealed(self) -> None:
        """Flush the memtables that are sealed by now; return when they are committed.

        Raises
        ------
        ResourceExhausted
            No disk space; the rows stay in memory and in the log, and the flush is tried again later.
        Unavailable
            The device failed; the writer is stopped.
        """
        state = self._state
        waiting = state.view.memtables[:-1]
        while waiting:
            # One at a time, so that others have their turn; whoever flushes what is waited for will do.
            with self._lock:
                memtables = state.view.memtables
                done = len(memtables) < 2 or memtables[0].memtable.seq_first > waiting[-1].memtable.seq_first
                if done or self._stopped:
                    return
                # After a failure in the middle of a commit, files that it may have named must stay as they are.
                state.check_not_stopped()
                memtable = state.view.memtables[0].memtable
                try:
                    with self._state.replacing:
                        self._flush(memtable)
                except BaseException as error:
                    self._tell(error, memtable)
                    raise
                if state.flush_failure is not None:
                    state.flush_failure = None
                    state.note_memory()

    def _tell(self, error: BaseException, memtable: Memtable) -> None:
        """Keep the reason, and log it once for all attempts that fail one after the other."""
        state = self._state
        state.events.count("flush_failed")
        if state.flush_failure is None:
            file = error.field if isinstance(error, VecdbError) else None
            state.events.log(
                "flush_failed", logging.ERROR, error=type(error).__name__, file=file, seq=memtable.seq_last
            )
        state.flush_failure = error
        if isinstance(error, Unavailable):
            state.stop_writing(error)
        state.note_memory()

    def stop(self) -> None:
        """Wait for the flush that runs and begin no other: after this no file is written."""
        self._stopped = True
        with self._lock:
            pass

    def _flush(self, memtable: Memtable) -> None:
        state = self._state
        at_seal = state.sealed_views[memtable]
        held = at_seal.memtables[0]
        assert held.memtable is memtable
        directory = state.directory
        writer = SegmentWriter(directory, state.take_segment_id(), state.manifest.schema)
        try:
            entry = writer.write_memtable(held, state.kernels)
        except BaseException:
            writer.abandon()
            raise
        kept = held.live.bitmap().rows()

        live = {segment.reader.segment_id: segment.live for segment in at_seal.segments}
        live[entry.segment_id] = LiveRows.full(entry.rows)
        puts: dict[bytes, bytes] = {}
        for encoded in memtable.requests:
            puts[request_key(AppliedRequest.decode(encoded).seq)] = encoded
        expired = state.applied.expired(time.time_ns() // 1000)
        # One that changed nothing was never stored and has the seq of another; it only leaves memory.
        expired_keys = [request_key(each.seq) for each in expired if each.upserted or each.deleted]
        # A request can be applied and expire between two flushes.
        for key in expired_keys:
            puts.pop(key, None)

        def change(manifest: Manifest) -> Manifest:
            log_file_id = state.log.file_id_of(memtable.seq_last)
            return replace(manifest.with_segment(entry), flushed_seq=memtable.seq_last, log_file_id=log_file_id)

        try:
            manifest = state.commit(change, live, puts, expired_keys)
            state.applied.forget(expired)
            self._swap(memtable, entry, kept)
        except BaseException as error:
            if isinstance(error, ResourceExhausted | MemoryError) and state.manifest.segment(entry.segment_id) is None:
                writer.abandon()  # Nothing changed.
            else:
                # It is committed, or may be, and must not be a second time.
                state.stop_writing(error)
            raise
        state.sweep_files()
        if not state.mirror_behind:
            state.trim_log(manifest.flushed_seq)
        with suppress(DiskFull):  # Trimming may have freed what was lacking; if not, the next flush tries again.
            state.take_reserve()
        state.events.count("flushes")
        self._on_flushed()

    def _swap(self, memtable: Memtable, entry: SegmentEntry, kept: I64Array) -> None:
        """Let the segment take the place of the memtable in all views."""
        state = self._state
        reader = state.open_segment(entry)

        def swap() -> None:
            del state.sealed_views[memtable]
            for waiting, view in state.sealed_views.items():
                state.sealed_views[waiting] = view.flushed(memtable, reader, kept)
            state.publish(state.view.flushed(memtable, reader, kept))

        self._writer.run(swap).result()
