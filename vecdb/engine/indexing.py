"""Index building: graphs of flushed segments, built in the background and attached by a commit of their own.

Until its graph is attached a segment is scanned. A build works in steps of at most 20 ms and looks between them whether
the collection is closing; an abandoned build leaves nothing behind and is begun again at the next open.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from vecdb.engine.manifest import Manifest
from vecdb.engine.state import CollectionState
from vecdb.errors import Corruption, DeadlineExceeded, ResourceExhausted, Unavailable, VecdbError
from vecdb.index.hnsw import HnswBuilder, HnswParams
from vecdb.schema import IndexKind, VectorField
from vecdb.segment.layout import Role, SegmentEntry
from vecdb.segment.reader import SegmentReader
from vecdb.segment.writer import SegmentWriter


class Indexer:
    """Builds what a collection's segments lack."""

    def __init__(self, state: CollectionState, pool: ThreadPoolExecutor) -> None:
        self._state = state
        self._pool = pool
        self._changed = threading.Condition()
        self._scheduled = False
        self._failed: dict[tuple[int, str], BaseException] = {}
        self._counted: tuple[Manifest | None, int] = (None, 0)

    def schedule(self) -> None:
        """Build what is missing, soon."""
        with self._changed:
            if self._scheduled or self.waiting_rows() == 0:
                return
            self._scheduled = True
        try:
            self._pool.submit(self._run)
        except ResourceExhausted as error:
            self._state.events.report("index_build_failed", error=type(error).__name__)
            self._end()

    def retry(self, reason: type[BaseException] = BaseException) -> None:
        """Let the builds that failed for this reason be tried again."""
        with self._changed:
            self._failed = {key: error for key, error in self._failed.items() if not isinstance(error, reason)}

    def unindexed_rows(self) -> int:
        """Rows that no index holds yet: those of segments that wait for their graph, and of memtables."""
        return self.waiting_rows() + sum(memtable.rows for memtable in self._state.view.memtables)

    def waiting_rows(self) -> int:
        """Rows of segments that wait for their graph."""
        manifest = self._state.manifest
        counted, rows = self._counted
        if counted is not manifest:
            rows = sum(entry.rows for entry, _ in self._waiting(manifest))
            self._counted = (manifest, rows)
        return rows

    def wait_below(self, rows: int, timeout_s: float) -> float:
        """Wait until at most ``rows`` rows wait for their graph, or the time is up; return the seconds waited."""
        begun = time.monotonic()
        with self._changed:
            while self.waiting_rows() > rows:
                left_s = timeout_s - (time.monotonic() - begun)
                if left_s <= 0 or self._state.closing.is_set():
                    break
                self._changed.wait(min(left_s, 0.1))
        return time.monotonic() - begun

    def wait_idle(self, timeout_s: float) -> None:
        """Return when no segment waits for a graph.

        Raises
        ------
        DeadlineExceeded
            After ``timeout_s`` seconds.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self.waiting_rows():
                self._state.check_not_closing()
                for error in self._failed.values():
                    raise error
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise DeadlineExceeded(
                        f"{self.unindexed_rows()} rows are still not indexed after {timeout_s} s",
                        field="timeout_s",
                        limit=timeout_s,
                        value=self.unindexed_rows(),
                    )
                self._changed.wait(min(left_s, 0.1))

    def stop(self) -> None:
        """Wait until the running build has noticed that the collection is closing."""
        with self._changed:
            while self._scheduled:
                self._changed.wait()

    def _waiting(self, manifest: Manifest) -> Iterator[tuple[SegmentEntry, VectorField]]:
        """What lacks a graph, told from the manifest alone: nothing is opened for it."""
        for entry in manifest.segments:
            if entry.rows < self._state.options.graph_rows_min:
                continue
            for declared in manifest.schema.vectors:
                if declared.index.kind is not IndexKind.FLAT and entry.file(Role.GRAPH, declared.name) is None:
                    yield entry, declared

    def _next(self) -> tuple[SegmentReader, VectorField] | None:
        """The next graph to build: of a segment that is in the view and has not failed."""
        readers = {segment.reader.segment_id: segment.reader for segment in self._state.view.segments}
        for entry, declared in self._waiting(self._state.manifest):
            if entry.segment_id in readers and (entry.segment_id, declared.name) not in self._failed:
                return readers[entry.segment_id], declared
        return None

    def _run(self) -> None:
        try:
            while (wanted := self._next_or_end()) is not None:
                self._build_or_report(*wanted)
                with self._changed:
                    self._changed.notify_all()
        except BaseException:
            self._end()
            raise

    def _next_or_end(self) -> tuple[SegmentReader, VectorField] | None:
        """What to build next. Where there is nothing the run ends at once: what is flushed later needs another."""
        with self._changed:
            wanted = None if self._state.closing.is_set() else self._next()
            if wanted is None:
                self._end()
            return wanted

    def _end(self) -> None:
        with self._changed:
            self._scheduled = False
            self._changed.notify_all()

    def _build_or_report(self, reader: SegmentReader, declared: VectorField) -> None:
        try:
            self._build(reader, declared)
        except BaseException as error:  # noqa: BLE001 - kept for whoever waits, who would wait for ever otherwise
            # The segment goes on being scanned; the error comes out of wait_indexed and of the log.
            state = self._state
            with self._changed:
                self._failed[(reader.segment_id, declared.name)] = error
            state.events.report(
                "index_build_failed",
                level=logging.ERROR,
                segment=reader.segment_id,
                seq=reader.entry.seq_last,
                error=type(error).__name__,
                file=error.field if isinstance(error, VecdbError) else None,
            )
            if isinstance(error, Corruption):
                state.tell_damage(error)
            elif isinstance(error, Unavailable):
                state.stop_writing(error)

    def _build(self, reader: SegmentReader, declared: VectorField) -> None:
        state = self._state
        spec = declared.index
        builder = HnswBuilder(
            state.kernels,
            reader.field(declared.name).codes,
            HnswParams(m=spec.m, ef_construction=spec.ef_construction, seed=spec.seed),
        )
        if not builder.run(cancelled=state.closing.is_set):
            return
        writer = SegmentWriter(state.directory, reader.entry.segment_id, state.manifest.schema)
        file = writer.write(Role.GRAPH, builder.arrays(), declared.name)

        def change(manifest: Manifest) -> Manifest:
            entry = next(each for each in manifest.segments if each.segment_id == reader.entry.segment_id)
            return manifest.with_segment(entry.with_file(file))

        try:
            state.commit(change)
        except ResourceExhausted:
            writer.abandon()
            raise
        reader.attach(file)
        state.events.count("graphs_built")
