"""Index building: graphs of flushed segments, built in the background and attached by a commit of their own.

Until its graph is attached a segment is scanned. A build works in steps of at most 20 ms, on several threads, and looks
between them whether the collection is closing; an abandoned build leaves nothing behind and is begun again at the next
open.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

from vecdb.engine.background import BackgroundWork
from vecdb.engine.manifest import Manifest
from vecdb.engine.options import EngineOptions
from vecdb.engine.state import CollectionState
from vecdb.engine.threads import Pool
from vecdb.errors import Cancelled, Corruption, DeadlineExceeded, ResourceExhausted, Unavailable, VecdbError
from vecdb.index.hnsw import Calibration, Crew, HnswBuilder, HnswParams, LentGraph
from vecdb.schema import CollectionSchema, IndexKind, VectorField
from vecdb.segment.layout import Role, SegmentEntry, SegmentFile
from vecdb.segment.reader import SegmentReader
from vecdb.segment.writer import SegmentWriter


def lacking_graphs(entry: SegmentEntry, schema: CollectionSchema, options: EngineOptions) -> list[VectorField]:
    """The fields of a segment that wait for a graph, told from the manifest alone: nothing is opened for it."""
    if entry.rows < options.graph_rows_min:
        return []
    return [
        declared
        for declared in schema.vectors
        if declared.index.kind is not IndexKind.FLAT and entry.file(Role.GRAPH, declared.name) is None
    ]


def build_graph(
    state: CollectionState,
    reader: SegmentReader,
    declared: VectorField,
    writer: SegmentWriter,
    go_on: Callable[[], None],
    crew: Crew,
    lent: LentGraph | None = None,
) -> SegmentFile:
    """Build the graph of a field, calibrate it, and write both.

    Vectors that are damaged leave it uncalibrated, and are told of: it comes from codes alone.

    Parameters
    ----------
    go_on
        Called every few milliseconds; whatever it raises ends the build, of which nothing was written.
    lent
        A graph to go on from; ``None`` to build it from nothing.
    """

    def stopped() -> bool:
        go_on()
        return False

    spec = declared.index
    params = HnswParams(m=spec.m, ef_construction=spec.ef_construction, seed=spec.seed)
    field = reader.field(declared.name)
    kernels = state.kernels
    builder = HnswBuilder(kernels, field.codes, params, crew, lent)
    builder.run(stopped)
    graph = builder.arrays()
    calibration = Calibration(kernels, field.codes, field.vectors.vectors, graph, params, ensure=field.ensure)
    try:
        calibration.run(stopped)
        curves = calibration.arrays()
    except Corruption as error:
        # Whoever needs these vectors is told once more, by its own search.
        state.tell_damage(error)
        state.events.report("graph_not_calibrated", segment=reader.segment_id, file=error.field)
        curves = {}
    return writer.write(Role.GRAPH, {**graph, **curves}, declared.name)


class Indexer:
    """Builds what a collection's segments lack.

    Parameters
    ----------
    is_merged
        Whether a segment that waits for its graph, by its number, is to be merged with one that has one instead.
    merge
        Asks for the merges that are due. More may be once a graph is built.
    """

    def __init__(
        self,
        state: CollectionState,
        pool: Pool,
        crew: Crew,
        is_merged: Callable[[int], bool],
        merge: Callable[[], None],
    ) -> None:
        self._state = state
        self._crew = crew
        self._is_merged = is_merged
        self._merge = merge
        self._work = BackgroundWork(pool, self._build_what_lacks)
        self._changed = threading.Condition()
        self._failed: dict[tuple[int, str], BaseException] = {}
        self._counted: tuple[Manifest | None, int] = (None, 0)

    def schedule(self) -> None:
        """Build what is missing, soon."""
        if self.waiting_rows():
            try:
                self._work.schedule()
            except ResourceExhausted as error:
                self._state.events.report("index_build_failed", error=type(error).__name__)
        with self._changed:
            self._changed.notify_all()

    def retry(self, reason: type[BaseException] = BaseException) -> None:
        """Let the builds that failed for this reason be tried again."""
        with self._changed:
            self._failed = {key: error for key, error in self._failed.items() if not isinstance(error, reason)}

    def unindexed_rows(self) -> int:
        """Rows that no index holds yet: those of segments that wait for their graph, and of memtables."""
        rows = self.waiting_rows()
        for memtable in self._state.view.memtables:
            rows += memtable.rows
        return rows

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
        # A graph is attached after its commit, by who holds this until then.
        if not self._state.replacing.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
            raise DeadlineExceeded(
                f"a graph is written and not in use yet after {timeout_s} s", field="timeout_s", limit=timeout_s
            )
        self._state.replacing.release()

    def stop(self) -> None:
        """Wait until the running build has noticed that the collection is closing."""
        self._work.stop()

    def _waiting(self, manifest: Manifest) -> Iterator[tuple[SegmentEntry, VectorField]]:
        for entry in manifest.segments:
            for declared in lacking_graphs(entry, manifest.schema, self._state.options):
                yield entry, declared

    def _next(self) -> tuple[SegmentReader, VectorField] | None:
        """The next graph to build: of a segment that is in the view, is not to be merged and has not failed."""
        state = self._state
        readers = {segment.reader.segment_id: segment.reader for segment in state.view.segments}
        for entry, declared in self._waiting(state.manifest):
            number = entry.segment_id
            if number not in readers or not self._may_build(number) or (number, declared.name) in self._failed:
                continue
            if not self._is_merged(number):
                return readers[number], declared
            self._merge()
        return None

    def _may_build(self, number: int) -> bool:
        """Whether a segment is there and is not being merged into one that will have a graph of its own."""
        state = self._state
        return not state.closing.is_set() and number not in state.merging and state.manifest.segment(number) is not None

    def _go_on(self, number: int) -> None:
        """Raise Cancelled where the graph of a segment is not wanted any more."""
        self._state.check_not_closing()
        if not self._may_build(number):
            raise Cancelled("the segment is merged into another one", field="segment", value=number)

    def _build_what_lacks(self) -> None:
        while not self._state.closing.is_set() and (wanted := self._next()) is not None:
            self._build_or_report(*wanted)
            with self._changed:
                self._changed.notify_all()

    def _build_or_report(self, reader: SegmentReader, declared: VectorField) -> None:
        try:
            self._build(reader, declared)
        except Cancelled:
            return
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
        number = reader.entry.segment_id
        writer = SegmentWriter(state.directory, number, state.manifest.schema)
        file = build_graph(state, reader, declared, writer, lambda: self._go_on(number), self._crew)
        with state.replacing:
            if state.manifest.segment(reader.segment_id) is None:
                # It was merged into another one meanwhile.
                writer.abandon()
                return

            def change(manifest: Manifest) -> Manifest:
                entry = manifest.segment(reader.segment_id)
                assert entry is not None
                return manifest.with_segment(entry.with_file(file))

            try:
                state.commit(change)
            except ResourceExhausted:
                writer.abandon()
                raise
            reader.attach(file)
        state.events.count("graphs_built")
        self._merge()
