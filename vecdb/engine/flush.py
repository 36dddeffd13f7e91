"""Flushes: a full memtable becomes a segment, in the background, while writes and searches go on.

What is committed is the state as of the memtable's last write: its rows that were live then, and the live rows of all
other segments as they were then. What died later comes back by replaying the log, which is trimmed only afterwards.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from vecdb.bitmap import LiveRows
from vecdb.engine.log_record import AppliedRequest
from vecdb.engine.manifest import Manifest, request_key
from vecdb.engine.state import CollectionState
from vecdb.engine.writer import Writer
from vecdb.errors import Unavailable
from vecdb.segment.memtable import Memtable
from vecdb.segment.writer import SegmentWriter


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

    def schedule(self) -> None:
        """Flush what is sealed, soon."""
        self._pool.submit(self._flush_in_background)

    def _flush_in_background(self) -> None:
        try:
            self.flush_sealed()
        except BaseException as error:  # noqa: BLE001 - kept for the writer and reported; the log still holds the rows
            self._state.events.report("flush_failed", level=logging.ERROR, error=f"{type(error).__name__}: {error}")

    def flush_sealed(self) -> None:
        """Flush every sealed memtable; return when they are committed.

        Raises
        ------
        ResourceExhausted
            No disk space; the rows stay in memory and in the log, and the flush is tried again later.
        """
        with self._lock:
            while len(self._state.view.memtables) > 1 and not self._stopped:
                if isinstance(self._state.flush_failure, Unavailable):
                    # The device failed in the middle of a commit: files that it may have named must stay as they are.
                    raise self._state.flush_failure
                memtable = self._state.view.memtables[0].memtable
                try:
                    self._flush(memtable)
                except BaseException as error:
                    self._state.flush_failure = error
                    raise
                self._state.flush_failure = None

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
        entry = writer.write_memtable(held, state.kernels)
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
            return replace(manifest.with_segment(entry), flushed_seq=memtable.seq_last)

        manifest = state.commit(change, live, puts, expired_keys)
        state.applied.forget(expired)
        reader = state.open_segment(entry)

        def swap() -> None:
            del state.sealed_views[memtable]
            for waiting, view in state.sealed_views.items():
                state.sealed_views[waiting] = view.flushed(memtable, reader, kept)
            state.publish(state.view.flushed(memtable, reader, kept))

        self._writer.run(swap).result()
        state.sweep_files()
        if not state.mirror_behind:
            state.trim_log(manifest.flushed_seq)
        state.events.count("flushes")
        self._on_flushed()
