"""An open collection: its state, its writer and its background work, put together.

Everything a caller asks for passes through here on the way to the module that does it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

from vecdb.engine.backup import FrozenCollection
from vecdb.engine.calibrations import calibrations
from vecdb.engine.compaction import Compactor
from vecdb.engine.cost_measurement import CostMeasurement
from vecdb.engine.decide import prepare_write
from vecdb.engine.explain import explain_search
from vecdb.engine.flush import Flusher
from vecdb.engine.indexing import Indexer
from vecdb.engine.matching import bind, count_matching
from vecdb.engine.memory_budget import CollectionMemory
from vecdb.engine.read import run_get, run_scroll
from vecdb.engine.recall_check import RecallCheck
from vecdb.engine.replay import replay_log, tell_replayed
from vecdb.engine.search import Search, plan_at_once, plan_search, run_search
from vecdb.engine.snapshot import Snapshots
from vecdb.engine.state import CollectionState
from vecdb.engine.threads import Threads
from vecdb.engine.uninterrupted import uninterrupted
from vecdb.engine.verifying import Verifier
from vecdb.engine.view import View
from vecdb.engine.warming import warm
from vecdb.engine.writer import Writer
from vecdb.errors import Corruption, DeadlineExceeded, ResourceExhausted
from vecdb.explanation import Explanation
from vecdb.requests import (
    CountRequest,
    GetRequest,
    ScrollRequest,
    SearchRequest,
    UpsertRequest,
    WriteRequest,
    check_against_schema,
    check_batch,
    check_explain,
    check_scroll,
    check_search,
)
from vecdb.results.compaction import CompactionReport
from vecdb.results.hits import Hits
from vecdb.results.points import Page, Point
from vecdb.results.snapshot import SnapshotInfo
from vecdb.results.stats import CollectionStats
from vecdb.results.warming import WarmReport
from vecdb.results.write import WriteResult
from vecdb.schema import CollectionSchema

READ_AFTER_TIMEOUT_S = 30.0


class OpenCollection:
    """One collection while it is open.

    Parameters
    ----------
    state
        As its files and its log tell it.
    threads
        Do its background work, once ``start`` was called.
    """

    def __init__(self, state: CollectionState, threads: Threads) -> None:
        self._state = state
        self._writer = Writer(self._state, threads.writers, lambda: self._flusher.schedule())
        self._indexer = Indexer(
            self._state,
            threads.indexing,
            threads.crew,
            is_merged=lambda number: self._compactor.takes(number),
            merge=lambda: self._compactor.schedule(),
        )
        self._compactor = Compactor(self._state, threads, self._writer, lambda: self.flush(), self._indexer.schedule)
        self._flusher = Flusher(self._state, threads.flushing, self._writer, self._look_after_flushed)
        self._verifier = Verifier(self._state, threads.verifying)
        self._recall_check = RecallCheck(self._state, threads.checking)
        self._costs = CostMeasurement(self._state, threads.verifying)
        self._snapshots = Snapshots(self._state, self.flush)
        self._budget = state.resources.budget
        self._memory = CollectionMemory(lambda: (state.view, *self._snapshots.views()), state.matchers, state.events)

    def start(self) -> None:
        """Bring back what is only in the log, and begin the background work that the state calls for.

        Raises
        ------
        Corruption
            The log is damaged; the collection is closed then.
        """
        state = self._state
        state.resources.memory.join(state.manifest.collection_id, self._writer.seal)
        try:
            self._budget.join(self._memory)
            self._replay()
        except BaseException:
            self._release()
            raise
        self._look_after()

    def _look_after(self) -> None:
        """Begin the background work that the segments call for."""
        self._state.sweep_files()
        self._compactor.schedule()
        self._indexer.schedule()

    def _look_after_flushed(self) -> None:
        # A flush that succeeded is a reason to think that there is space again.
        self._indexer.retry(ResourceExhausted)
        self._look_after()

    def _replay(self) -> None:
        state = self._state
        with self._writer.replaying() as make_room:
            tell_replayed(state, replay_log(state, make_room))
        if not state.mirror_behind:
            state.trim_log(state.manifest.flushed_seq)
        if len(state.view.memtables) > 1:
            self._flusher.schedule()

    @property
    def schema(self) -> CollectionSchema:
        """The collection's vector fields."""
        return self._state.manifest.schema

    def write(self, request: WriteRequest) -> WriteResult:
        """Apply one batch; return when it is durable."""
        state = self._state
        check_batch(request)
        where = None
        if isinstance(request, UpsertRequest):
            check_against_schema(request, state.manifest.schema)
        else:
            where = bind(request.where)
        slowed_s = self._slow_down() if isinstance(request, UpsertRequest) else 0.0
        result = self._writer.submit(prepare_write(request, where, state)).result()
        self._compactor.note_replaced(result.upserted + result.deleted)
        return replace(result, slowed_s=slowed_s) if slowed_s else result

    def _slow_down(self) -> float:
        """Hold a write back while more rows of segments wait for a graph than allowed; the seconds it waited.

        Rows in memory do not count: they are bounded by the memtables that may wait.
        """
        state = self._state
        limit = state.options.unindexed_rows_max
        if self._indexer.waiting_rows() <= limit:
            return 0.0
        state.events.count("writes_slowed")
        self._indexer.schedule()
        return self._indexer.wait_below(limit, state.options.slow_down_s_max)

    def search(self, request: SearchRequest) -> list[Hits]:
        """One ranking a query."""
        check_search(request)
        self._verifier.schedule()
        search = plan_search(self._state, self._view_after(request.read_after_seq, request.at), request)
        if request.where is not None:
            self._costs.schedule(search.declared)
        return self._run(search, request)

    def explain(self, request: SearchRequest) -> Explanation:
        """Run a search and tell what it did."""
        check_explain(request)
        self._verifier.schedule()
        view = self._view_after(request.read_after_seq, request.at)
        return explain_search(self._state, view, request, self._indexer.unindexed_rows())

    def search_at_once(self, request: SearchRequest) -> list[Hits] | None:
        """The same where nothing has to be waited for, opened or verified; otherwise ``None``, at once."""
        check_search(request)
        view = self._state.view
        waits = bool(request.at) or view.seq < request.read_after_seq
        search = None if waits else plan_at_once(self._state, view, request)
        return None if search is None else self._run(search, request)

    def _run(self, search: Search, request: SearchRequest) -> list[Hits]:
        hits = run_search(self._state, search, request, self._indexer.unindexed_rows())
        self._budget.settle()
        self._recall_check.note(request, search)
        return hits

    def _view_at(self, at: str) -> View:
        """The present view, or the one that a snapshot keeps."""
        return self._snapshots.view(at) if at else self._state.view

    def _view_after(self, seq: int, at: str) -> View:
        state = self._state
        if at:
            return self._view_at(at)
        if state.view.seq < seq:
            self._wait_visible(seq)
        return state.view

    @uninterrupted
    def _wait_visible(self, seq: int) -> None:
        state = self._state
        with state.published:
            if not state.published.wait_for(
                lambda: state.view.seq >= seq or state.closing.is_set(), READ_AFTER_TIMEOUT_S
            ):
                raise not_visible(seq, state.view.seq)
        state.check_not_closing()

    def get(self, request: GetRequest) -> list[Point]:
        """The points that exist."""
        return run_get(self._state, self._view_at(request.at), request)

    def count(self, request: CountRequest) -> int:
        """The number of points that match."""
        bound = bind(request.where)
        view = self._view_at(request.at)
        return view.live_rows if bound is None else count_matching(self._state, view, bound)

    def scroll(self, request: ScrollRequest) -> Page:
        """One page of points."""
        check_scroll(request)
        return run_scroll(self._state, self._view_at(request.at), request)

    @uninterrupted
    def flush(self) -> int:
        """Write all rows into segments; return the seq up to which they are."""
        self._writer.seal().result()
        self._flusher.flush_sealed()
        return self._state.manifest.flushed_seq

    @contextmanager
    def frozen(self) -> Iterator[FrozenCollection]:
        """All that was acknowledged by now, in segments whose files stay for the length of the block."""
        state = self._state
        self.flush()
        with state.freeze() as frozen:
            requests = state.applied.up_to(frozen.manifest.flushed_seq)
            yield FrozenCollection(state.directory, frozen.manifest, frozen.live, requests, state.check_not_closing)

    def wait_indexed(self, timeout_s: float) -> None:
        """Flush, then return when no segment waits for a graph."""
        deadline = time.monotonic() + timeout_s
        self.flush()
        self._indexer.retry()
        self._indexer.schedule()
        self._indexer.wait_idle(max(0.0, deadline - time.monotonic()))

    def wait_recall_checked(self, timeout_s: float) -> bool:
        """Return when no search waits to be run again for its recall; whether that was before the time was up."""
        return self._recall_check.wait_idle(timeout_s)

    def compact(self, timeout_s: float, *, dry_run: bool = False) -> CompactionReport:
        """Merge the segments into as few as there can be, without dead rows; or say what that would do."""
        deadline = time.monotonic() + timeout_s
        if dry_run:
            return self._compactor.expected()
        self.flush()
        return self._compactor.compact(max(0.0, deadline - time.monotonic()))

    def purge(self, timeout_s: float) -> CompactionReport:
        """See to it that no live file holds what was deleted before the call."""
        deadline = time.monotonic() + timeout_s
        self.flush()
        return self._compactor.purge(max(0.0, deadline - time.monotonic()))

    def create_snapshot(self, name: str) -> SnapshotInfo:
        """Keep what the collection holds now under a name."""
        return self._snapshots.create(name)

    def drop_snapshot(self, name: str) -> None:
        """Forget a snapshot."""
        self._snapshots.drop(name)

    def snapshots(self) -> list[SnapshotInfo]:
        """The snapshots, by name."""
        return self._snapshots.list()

    def stats(self) -> CollectionStats:
        """What the collection holds."""
        state = self._state
        view = state.view
        role_bytes: dict[str, int] = {}
        for entry in state.manifest.segments:
            for file in entry.files:
                role_bytes[file.role.value] = role_bytes.get(file.role.value, 0) + file.ref.size_bytes
        segment_rows = sum(segment.rows for segment in view.segments)
        return CollectionStats(
            points=view.live_rows,
            deleted_rows=segment_rows - sum(segment.live.count() for segment in view.segments),
            unindexed_rows=self._indexer.unindexed_rows(),
            memtable_rows=sum(memtable.rows for memtable in view.memtables),
            segments=len(view.segments),
            last_seq=view.seq,
            flushed_seq=state.manifest.flushed_seq,
            disk_bytes=state.directory.tree_size_bytes(),
            log_bytes=state.log.size_bytes,
            role_bytes=role_bytes,
            events=state.events.counts(),
            memory=self._budget.use(),
            calibration=calibrations(view, self.schema),
            live_recall=state.recall.live(),
        )

    def warm(self, *, with_vectors: bool) -> WarmReport:
        """Make the next search fast."""
        self._verifier.schedule()
        report = warm(self._state, self._budget, with_vectors=with_vectors)
        self._costs.measure()
        return report

    def tell_failure(self, error: BaseException) -> None:
        """Count and log what a call failed for, where that is not the caller's doing.

        Raises
        ------
        ResourceExhausted
            In place of a MemoryError.
        """
        if isinstance(error, Corruption):
            self._state.tell_damage(error)
        elif isinstance(error, MemoryError):
            self._state.events.report("call_refused_memory")
            raise ResourceExhausted("there is no memory for this call", field="memory") from error

    def begin_close(self) -> None:
        """Make every call that only waits give up."""
        self._state.begin_close()
        self._compactor.cancel_waiting()

    def close(self, *, keep: bool = True) -> None:
        """Finish accepted writes, stop background work, leave at most a short log behind, release the files.

        Parameters
        ----------
        keep
            False for a collection that was dropped: nothing more is written out.
        """
        state = self._state
        self.begin_close()
        self._compactor.stop()
        self._indexer.stop()
        self._verifier.stop()
        self._recall_check.stop()
        self._costs.stop()
        with ExitStack() as closing:
            closing.callback(self._release)
            long = keep and state.log.size_bytes > state.options.log_kept_bytes
            if long and state.stopped_by is None and _filled(state.view):
                with suppress(
                    ResourceExhausted, MemoryError
                ):  # Told by then; the log keeps the rows, and the next open is longer.
                    self.flush()

    def _release(self) -> None:
        """Stop what writes and give everything back."""
        state = self._state
        with ExitStack() as closing:
            # Last in, first out; each is done, whatever becomes of the others.
            closing.callback(state.metadata.close)
            closing.callback(lambda: state.spending_reserve(state.log.close))
            closing.callback(state.sweep_files, closing=True)
            closing.callback(self._writer.close)
            closing.callback(self._flusher.stop)
            closing.callback(state.resources.memory.leave, state.manifest.collection_id)
            closing.callback(self._budget.leave, self._memory)


def not_visible(seq: int, last_seq: int) -> DeadlineExceeded:
    """What a search is told that waited for a write in vain."""
    return DeadlineExceeded(
        f"write {seq} is not visible after {READ_AFTER_TIMEOUT_S} s; the last one is {last_seq}",
        field="read_after_seq",
        limit=f"{READ_AFTER_TIMEOUT_S} s",
        value=seq,
    )


def _filled(view: View) -> bool:
    return any(each.memtable.seq_last >= each.memtable.seq_first for each in view.memtables)
