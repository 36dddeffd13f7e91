"""Compaction: segments are merged in the background, and their dead rows dropped, while writes and searches go on.

What was asked for comes first, then what the policy finds due; ``Merger`` makes one merge, and the files of the old
segments go once nobody reads them.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass

from vecdb.bitmap import LiveRows
from vecdb.engine.alarm import Alarm
from vecdb.engine.background import BackgroundWork
from vecdb.engine.indexing import lacking_graphs
from vecdb.engine.merge_policy import GraphState, MergePolicy, SegmentSize
from vecdb.engine.merge_room import has_room
from vecdb.engine.merger import Merger
from vecdb.engine.postponed import Postponed
from vecdb.engine.state import CollectionState
from vecdb.engine.threads import Threads
from vecdb.engine.writer import Writer
from vecdb.errors import (
    Cancelled,
    Corruption,
    DeadlineExceeded,
    FailedPrecondition,
    ResourceExhausted,
    Unavailable,
)
from vecdb.results.compaction import CompactionReport
from vecdb.segment.journal import deletes_of
from vecdb.segment.layout import Role
from vecdb.segment.reader import SegmentReader
from vecdb.storage.io import DiskFull

_DIED_CHECKED = 4_096
_FLUSH_SHARE = 4
_SWEEP_S = 1.0
_SWEEP_STEP_S = 0.02


@dataclass(frozen=True, slots=True)
class _Request:
    """Somebody waits for ``groups_of`` to be merged."""

    groups_of: Callable[[], Iterable[tuple[int, ...]]]
    future: Future[CompactionReport]


class Compactor:
    """Merges the segments of one collection, one merge at a time."""

    def __init__(
        self,
        state: CollectionState,
        threads: Threads,
        writer: Writer,
        flush: Callable[[], object],
        on_merged: Callable[[], None],
    ) -> None:
        self._state = state
        self._flush = flush
        self._on_merged = on_merged
        options = state.options
        self._policy = MergePolicy(
            options.compaction_fanout,
            options.compaction_dead_share_max,
            options.memtable_size_bytes,
            options.segment_size_bytes_max,
        )
        self._work = BackgroundWork(threads.compacting, self._merge_what_is_due)
        self._requests: deque[_Request] = deque()
        self._postponed = Postponed(state)
        self._merger = Merger(state, writer, self._postponed.damaged, threads.crew)
        self._alarm = Alarm(self.schedule)
        self._died = 0
        self._promises = True
        """Whether what is due is made, or put off."""

    def schedule(self) -> None:
        """Merge what is due, soon."""
        if not self._state.options.compaction:
            return
        try:
            self._work.schedule()
        except ResourceExhausted as error:
            self._state.events.report("compaction_failed", error=type(error).__name__)

    def note_replaced(self, rows: int) -> None:
        """Look again once many rows were deleted or replaced: without a flush nobody else would ask."""
        self._died += rows
        if self._died > _DIED_CHECKED:
            self._died = 0
            self.schedule()

    def takes(self, number: int) -> bool:
        """Whether a segment that waits for a graph is to join one that has one, or what is being merged now."""
        state = self._state
        if not state.options.compaction or not self._promises or state.stopped_by is not None:
            return False
        # By the sizes that merges go by: whoever waits for a merge that is never due would wait for ever.
        sizes = {each.segment_id: each for each in self._sizes()}
        left_out = self._postponed.left_out()
        if number not in sizes or number in left_out:
            return False
        merging = [sizes[each] for each in state.merging if each in sizes]
        if merging and self._policy.may_join([sizes[number]], merging):
            return True
        return number in self._policy.next_join([each for each in sizes.values() if each.segment_id not in left_out])

    def compact(self, timeout_s: float) -> CompactionReport:
        """Merge into as few segments as there can be, without dead rows; return when it is done.

        Raises
        ------
        Corruption
            A segment is damaged; the others are merged.
        DiskFull
            There is no room for a merge; what was merged before stays so.
        DeadlineExceeded
            It goes on after ``timeout_s`` seconds.
        """
        return self._request(lambda: self._policy.full_merge(self._whole()), timeout_s)

    def expected(self) -> CompactionReport:
        """What ``compact`` would do now."""
        sizes = {each.segment_id: each for each in self._sizes_now()}
        groups = self._policy.full_merge(list(sizes.values()))
        merged = [sizes[number] for group in groups for number in group]
        before = sum(each.size_bytes for each in sizes.values())
        reclaimed = sum(each.size_bytes - each.live_bytes for each in merged)
        made = sum(any(sizes[number].live_rows for number in group) for group in groups)
        return CompactionReport(
            segments_before=len(sizes),
            segments_after=len(sizes) - len(merged) + made,
            size_bytes_before=before,
            size_bytes_after=before - reclaimed,
            rows_dropped=sum(each.rows - each.live_rows for each in merged),
        )

    def purge(self, timeout_s: float) -> CompactionReport:
        """Rewrite every segment that holds a dead row or tells of a delete; return when their files are gone.

        Raises
        ------
        FailedPrecondition
            A snapshot keeps such a segment, or a log archive all that is written.
        Unavailable
            Something could not be removed.
        DeadlineExceeded
            Somebody still reads the old files after ``timeout_s`` seconds.
        """
        deadline = time.monotonic() + timeout_s
        last_seq = self._state.manifest.flushed_seq
        self._refuse_archived()
        self._refuse_pinned()
        before = self._totals()
        # A segment may have to tell of a delete until the row that was deleted is gone: then it has its turn.
        rows_dropped = self._request(self._with_dead_rows, timeout_s).rows_dropped
        self._request(lambda: self._with_deletes(last_seq), max(0.0, deadline - time.monotonic()))
        if not self._state.sweep_files():
            # What the traceback of an exception holds is freed by the collector only.
            gc.collect()
        while not self._state.sweep_files():
            if time.monotonic() >= deadline:
                raise DeadlineExceeded(
                    f"files of rewritten segments are still read after {timeout_s:.1f} s, by searches or a backup",
                    field="timeout_s",
                    limit=timeout_s,
                )
            self._state.check_not_closing()
            time.sleep(_SWEEP_STEP_S)
        self._refuse_pinned()
        self._state.check_trimmed()
        return _report(before, self._totals(), rows_dropped)

    def cancel_waiting(self) -> None:
        """Answer those who wait for a merge that has not begun, once the collection is closing.

        Whoever closes it waits for them, and the thread that merges may be busy with another collection.
        """
        self._answer_waiting(Cancelled("the collection is closing", field="collection"))

    def stop(self) -> None:
        """Wait until the running merge has noticed that the collection is closing."""
        self._alarm.stop()
        self._work.stop()

    def _request(self, groups_of: Callable[[], Iterable[tuple[int, ...]]], timeout_s: float) -> CompactionReport:
        request = _Request(groups_of, Future())
        self._requests.append(request)
        # After it was appended: whoever begins to close later finds it, and cancels it.
        self._state.check_not_closing()
        self._work.schedule()
        try:
            return request.future.result(timeout_s)
        except FutureTimeoutError as error:
            raise DeadlineExceeded(
                f"the segments are not merged after {timeout_s} s; it goes on in the background",
                field="timeout_s",
                limit=timeout_s,
            ) from error

    def _sizes(self) -> list[SegmentSize]:
        """Of the segments, with what was live as of the last flush."""
        state = self._state
        with state.replacing:
            return [self._size(each.reader, state.stored_live[each.reader.segment_id]) for each in state.view.segments]

    def _sizes_now(self) -> list[SegmentSize]:
        """The same with what is live now."""
        return [self._size(segment.reader, segment.live) for segment in self._state.view.segments]

    def _size(self, reader: SegmentReader, live: LiveRows) -> SegmentSize:
        entry = reader.entry
        graph = GraphState.NONE
        if lacking_graphs(entry, self._state.manifest.schema, self._state.options):
            graph = GraphState.WAITING
        elif any(file.role is Role.GRAPH for file in entry.files):
            graph = GraphState.BUILT
        size_bytes = sum(file.ref.size_bytes for file in entry.files)
        return SegmentSize(reader.segment_id, reader.rows, live.count(), size_bytes, graph)

    def _totals(self) -> tuple[int, int]:
        """Number of segments and their bytes."""
        sizes = self._sizes()
        return len(sizes), sum(each.size_bytes for each in sizes)

    def _whole(self) -> list[SegmentSize]:
        """Of the segments, without those that are known to be damaged."""
        return [each for each in self._sizes() if each.segment_id not in self._postponed.damaged]

    def _with_dead_rows(self) -> list[tuple[int, ...]]:
        """Each segment with dead rows by itself."""
        return [(each.segment_id,) for each in self._whole() if each.live_rows < each.rows]

    def _with_deletes(self, last_seq: int) -> list[tuple[int, ...]]:
        """Each segment that tells of a delete up to ``last_seq``."""
        whole = {each.segment_id for each in self._whole()}
        readers = [each.reader for each in self._state.view.segments if each.reader.segment_id in whole]
        return [(each.segment_id,) for each in readers if (deletes_of(each).seqs <= last_seq).any()]

    def _refuse_archived(self) -> None:
        """Trim the log; raise FailedPrecondition where it is kept elsewhere, Unavailable where it has to be kept."""
        state = self._state
        if state.log_archive is not None:
            raise FailedPrecondition(
                f"the log archive {state.log_archive.path} keeps what was written and deleted; purge without one",
                field="log_archive",
                value=state.log_archive.path,
            )
        if state.mirror_behind:
            raise Unavailable("the log is kept until the mirror of the last commit can be written", field="log")
        state.log.rotate()
        state.trim_log(state.manifest.flushed_seq)

    def _refuse_pinned(self) -> None:
        """Raise FailedPrecondition where a snapshot keeps rows that are dead by now."""
        clean = {each.segment_id for each in self._sizes() if each.live_rows == each.rows}
        for snapshot in self._state.manifest.snapshots:
            if any(entry.segment_id not in clean for entry in snapshot.segments):
                raise FailedPrecondition(
                    f"snapshot {snapshot.name!r} keeps segments that were rewritten since, or points of which were "
                    "deleted; drop it first",
                    field="snapshot",
                    value=snapshot.name,
                )

    def _merge_what_is_due(self) -> None:
        try:
            self._merge_in_turn()
        except BaseException as error:
            # Nothing was put off, and what is due may never be made: nobody may wait for it.
            self._promises = False
            self._answer_waiting(error)
            self._on_merged()
            raise

    def _merge_in_turn(self) -> None:
        """First what was asked for, then what is due, until there is neither."""
        state = self._state
        while not state.closing.is_set():
            request = self._next_request()
            if request is not None:
                self._answer(request)
                continue
            # After a failure in the middle of a commit, files that it may have named must stay as they are.
            if state.stopped_by is not None:
                return
            due: tuple[int, ...] = ()
            try:
                due = self._due()
                if due:
                    self._merge(due)
                    continue
            except Cancelled:
                return
            except Exception as error:  # noqa: BLE001 - told here, and nobody else is there to be told
                self._postponed.put_off(due, error)
                # What was to join may get its own graph.
                self._on_merged()
                if due:
                    continue
            self._look_again_later()
            return

    def _look_again_later(self) -> None:
        """See to it that what was put off is tried again, also where nothing is written meanwhile."""
        pause_s = self._postponed.next_try_s()
        if pause_s is not None:
            with suppress(ResourceExhausted):  # Without a thread to wait on, the next flush looks again.
                self._alarm.set(pause_s)

    def _due(self) -> tuple[int, ...]:
        if not self._state.options.compaction:
            return ()
        due = self._next_merge(self._sizes())
        if not due and not self._postponed.flush_waits() and self._worth_a_flush():
            self._flush()
            self._postponed.flushed()
            due = self._next_merge(self._sizes())
        # Where all of them do not fit on the disk, the smallest may.
        while len(due) > self._policy.fanout and not has_room(self._state, self._merger.parts(due)):
            due = due[:-1]
        return due

    def _worth_a_flush(self) -> bool:
        """Whether a merge would be due, and give much back, if what died since the last flush were flushed."""
        now = self._sizes_now()
        died = sum(each.live_bytes for each in self._sizes()) - sum(each.live_bytes for each in now)
        return died > self._policy.tier_bytes_first // _FLUSH_SHARE and bool(self._next_merge(now))

    def _next_merge(self, sizes: Iterable[SegmentSize]) -> tuple[int, ...]:
        waiting = self._postponed.waiting()
        return self._policy.next_merge([each for each in sizes if each.segment_id not in waiting])

    def _next_request(self) -> _Request | None:
        """Whoever takes a request answers it: the thread that merges, or the one that begins to close."""
        try:
            return self._requests.popleft()
        except IndexError:
            return None

    def _answer_waiting(self, error: BaseException) -> None:
        while (request := self._next_request()) is not None:
            request.future.set_exception(error)

    def _answer(self, request: _Request) -> None:
        # Whoever asks wants another look at what was left out: a device may fail to read only once.
        self._postponed.damaged.clear()
        rows_dropped = 0
        damage: Corruption | None = None
        try:
            before = self._totals()
            while True:
                try:
                    for group in request.groups_of():
                        rows_dropped += self._merge(group)
                    break
                except Corruption as error:
                    # The others are merged all the same.
                    if self._postponed.leave_out(error) is None:
                        raise
                    damage = damage or error
            if damage is not None:
                raise damage
        except BaseException as error:  # noqa: BLE001 - whoever asked gets it
            request.future.set_exception(error)
        else:
            request.future.set_result(_report(before, self._totals(), rows_dropped))

    def _merge(self, group: Collection[int]) -> int:
        """Put one segment in the place of several; the number of dead rows that are gone."""
        state = self._state
        state.merging = frozenset(group)
        try:
            rows_dropped = self._merger.merge(group)
        except Unavailable as error:
            # Whatever was being synced: what a device did not write once, it may not have written before.
            state.stop_writing(error)
            raise
        finally:
            state.merging = frozenset()
            self._on_merged()
        self._postponed.merged(group)
        state.events.count("compactions")
        state.events.count("rows_dropped", rows_dropped)
        self._sweep()
        with suppress(DiskFull):  # If there is still no space, the next flush tries again.
            state.take_reserve()
        return rows_dropped

    def _sweep(self) -> None:
        """Unlink the old files as soon as the searches that read them are done, which they soon are."""
        end = time.monotonic() + _SWEEP_S
        while not self._state.sweep_files() and time.monotonic() < end and not self._state.closing.is_set():
            time.sleep(_SWEEP_STEP_S)


def _report(before: tuple[int, int], after: tuple[int, int], rows_dropped: int) -> CompactionReport:
    """A report of what was done; before and after are (segments, bytes)."""
    return CompactionReport(before[0], after[0], before[1], after[1], rows_dropped)
