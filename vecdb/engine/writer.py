"""The writer: turns waiting writes into groups, makes each group durable with one sync, and publishes the new view.

The order of a write is: check, reserve room, locate ids, decide, append, sync, apply, publish, acknowledge. What can
fail, fails before the append. A failure after it stops the writer for good: nothing is retried and nothing is
acknowledged, readers go on, and reopening recovers from what the log holds.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

from vecdb.engine.apply import Decided, apply_group
from vecdb.engine.decide import PendingWrite, decide
from vecdb.engine.outcome import Outcome
from vecdb.engine.replay import Room
from vecdb.engine.state import CollectionState
from vecdb.errors import FailedPrecondition, ResourceExhausted, Unavailable
from vecdb.requests import BATCH_ROWS_MAX
from vecdb.results.write import WriteResult
from vecdb.segment.memtable import ROWS_FIRST
from vecdb.storage.io import DiskFull

GROUP_ROWS_MAX = BATCH_ROWS_MAX


class Writer:
    """Commits the writes of one collection, one group at a time, on a thread of a shared pool."""

    def __init__(
        self, state: CollectionState, pool: ThreadPoolExecutor, flush_soon: Callable[[], Future[None]]
    ) -> None:
        self._state = state
        self._pool = pool
        self._flush_soon = flush_soon
        self._changed = threading.Condition()
        self._writes: deque[PendingWrite] = deque()
        self._tasks: deque[tuple[Callable[[], object], Future[None]]] = deque()
        self._scheduled = False
        self._running = False
        self._closed = False
        self._refused = False

    def submit(self, write: PendingWrite) -> Outcome[WriteResult]:
        """Queue a write; its outcome is told when it is durable and visible."""
        with self._changed:
            self._refuse()
            if not self._scheduled:
                self._pool.submit(self._drain)
                self._scheduled = True
            self._writes.append(write)
        return write.outcome

    def run(self, task: Callable[[], object]) -> Future[None]:
        """Run ``task`` between groups, where the view does not change; also while the writer waits for room.

        Where no group is being written it runs in the caller's thread. It never waits for a thread of the pool: all of
        them may be held by writers of other collections that wait for a flush, which is what the caller may be.
        """
        future: Future[None] = Future()
        mine = False
        try:
            with self._changed:
                if self._closed:
                    raise FailedPrecondition("the collection is closed", field="collection")
                self._tasks.append((task, future))
                self._changed.notify_all()
                if self._running:
                    return future
                self._running = mine = True
            self._let_go()
        except BaseException:
            # A signal's exception may come at any moment; nobody must wait for this thread then.
            if mine:
                self._cease()
            raise
        return future

    @contextmanager
    def replaying(self) -> Iterator[Room]:
        """Make the caller's thread the writer for the length of the block, to bring back what the log holds."""
        with self._changed:
            assert not self._running, "a replay comes before all writes"
            self._running = True
        try:
            yield self._make_room_for_replay
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Run the tasks that wait and cease to be the writer."""
        while True:
            self._run_tasks()
            with self._changed:
                if not self._tasks:
                    self._running = False
                    self._changed.notify_all()
                    return

    def _cease(self) -> None:
        with self._changed:
            self._running = False
            self._changed.notify_all()

    def wake(self) -> None:
        """Let a write that waits for room look again: a flush was tried."""
        with self._changed:
            self._changed.notify_all()

    def seal(self) -> Future[None]:
        """Close the memtable that is being filled, if it holds anything, so that it can be flushed."""
        return self.run(lambda: self._seal(0))

    def close(self) -> None:
        """Refuse further writes and wait for those that were accepted."""
        with self._changed:
            self._closed = True
            while self._scheduled or self._running:
                self._changed.wait()

    def _refuse(self) -> None:
        if self._closed:
            raise FailedPrecondition("the collection is closed", field="collection")
        self._state.check_not_stopped()

    def _drain(self) -> None:
        with self._changed:
            while self._running:
                self._changed.wait()
            self._running = True
        group: list[PendingWrite] = []
        while True:
            try:
                self._run_tasks()
                with self._changed:
                    self._next_group(group)
                    if not group and not self._tasks:
                        self._scheduled = self._running = False
                        self._changed.notify_all()
                        return
                if group:
                    self._write(group)
            except BaseException as error:  # noqa: BLE001 - without memory anything may fail, and all writes wait for this thread
                _fail(group, error)
            group.clear()

    def _run_tasks(self) -> None:
        while True:
            with self._changed:
                if not self._tasks:
                    return
                task, future = self._tasks.popleft()
            try:
                task()
            except BaseException as error:  # noqa: BLE001 - whoever waits for the task gets it
                future.set_exception(error)
            else:
                future.set_result(None)

    def _next_group(self, group: list[PendingWrite]) -> None:
        """Move writes from the front of the queue into a group. A delete by filter is a group of its own."""
        rows = 0
        while self._writes:
            write = self._writes[0]
            if group and (write.where is not None or rows + write.rows > GROUP_ROWS_MAX):
                break
            group.append(write)
            self._writes.popleft()
            rows += write.rows
            if write.where is not None:
                break

    def _write(self, group: list[PendingWrite]) -> None:
        """Make one group durable and visible, and acknowledge it.

        Where disk or memory is short its upserts are refused; its deletes, which need little, go on without them.
        """
        state = self._state
        try:
            state.check_not_stopped()
            deletes = group
            if any(write.batch is not None for write in group):
                try:
                    state.take_reserve()
                    self._write_group(group)
                except ResourceExhausted as error:
                    self._refuse_upserts(group, error)
                    deletes = [write for write in group if not write.outcome.done]
                else:
                    self._refused = False
                    return
            if deletes:
                state.spending_reserve(lambda: self._write_group(deletes))
                with suppress(DiskFull):  # There is no space yet.
                    state.take_reserve()
        except BaseException as error:  # noqa: BLE001 - every waiting caller gets it; what was appended stops the writer
            _fail(group, error)
        finally:
            self._seal_if_full()

    def _write_group(self, group: list[PendingWrite]) -> None:
        """The same; raises ResourceExhausted where nothing changed and nobody was told anything."""
        try:
            # Room first: sealing and waiting move rows between parts, and deciding says in which part an id is.
            self._make_room(group)
            decided, answered = decide(self._state, group)
            if decided:
                self._commit(decided)
        except MemoryError as error:
            self._state.check_not_stopped()
            raise ResourceExhausted("there is no memory for this write", field="memory") from error
        try:
            for each in answered:
                if each.changed_nothing:
                    # So nothing of it is logged; a retry of it must change nothing either.
                    self._state.applied.add(each.applied)
                each.write.outcome.set_result(each.result)
        except BaseException as error:  # noqa: BLE001 - it is written, and nobody may be told that it is not
            self._state.stop_writing(error)
            self._state.check_not_stopped()

    def _refuse_upserts(self, group: list[PendingWrite], error: ResourceExhausted) -> None:
        """Refuse what needs the room that there is not; logged once for all that are refused one after the other."""
        refused = [write for write in group if write.batch is not None and not write.outcome.done]
        name = "write_refused_disk_full" if isinstance(error, DiskFull) else "write_refused_memory"
        events = self._state.events
        events.count(name, len(refused))
        if not self._refused:
            events.log(name, logging.WARNING, file=error.field, seq=self._state.view.seq)
        self._refused = True
        _fail(refused, error)

    def _make_room(self, group: list[PendingWrite]) -> None:
        """See to it that the memtable can take a group, before anything is written."""
        state = self._state
        rows = sum(write.rows for write in group)
        size_bytes = sum(write.batch.size_bytes for write in group if write.batch is not None)
        memory = state.resources.memory
        if size_bytes > memory.size_bytes_max:
            raise ResourceExhausted(
                f"the rows of this write take {size_bytes} bytes; all rows in memory may take {memory.size_bytes_max}",
                field="memory_size_bytes_max",
                limit=memory.size_bytes_max,
                value=size_bytes,
            )
        active = state.view.memtables[-1].memtable
        # What frees memory is let through where what takes it has to wait.
        limit = state.options.memtable_size_bytes * (1 if rows else 2)
        if not active.fits(rows) or active.size_bytes >= limit:
            self._wait(lambda: len(state.view.memtables) <= state.options.memtables_waiting_max, lambda: True)
            self._seal(rows)
        if rows and not memory.fits(size_bytes):
            self._wait(lambda: memory.fits(size_bytes), memory.shrink)
            # What was being filled may have been written out, and the next one is as large as any.
            if not state.view.memtables[-1].memtable.fits(rows):
                self._seal(rows)

    def _make_room_for_replay(self, rows: int) -> None:
        """The same for what is in the log already and cannot be refused: where nothing is written out memory grows."""
        state = self._state
        memory = state.resources.memory
        self._run_tasks()
        if not memory.fits(0):
            with suppress(ResourceExhausted, Unavailable):
                self._wait(lambda: memory.fits(0), memory.shrink)
        active = state.view.memtables[-1].memtable
        if not active.fits(rows) or active.size_bytes >= state.options.memtable_size_bytes:
            with suppress(ResourceExhausted, Unavailable):
                self._wait(lambda: len(state.view.memtables) <= state.options.memtables_waiting_max, lambda: True)
            self._seal(rows)

    def _wait(self, room: Callable[[], bool], promised: Callable[[], bool]) -> None:
        """Wait for what is being written out until there is ``room``, or none is ``promised``.

        Raises
        ------
        ResourceExhausted
            There will be none: what is in memory cannot be written out, and that was tried again just now.
        """
        state = self._state
        attempt: Future[None] | None = None
        while not room():
            state.check_not_stopped()
            self._run_tasks()
            if state.flush_failure is not None and attempt is None:
                # Tried again at each write, so that writes resume by themselves once there is space.
                attempt = self._flush_soon()
            elif attempt is not None and attempt.done() and (failure := state.flush_failure) is not None:
                raise _no_room(failure) from failure
            elif (attempt is None or attempt.done()) and not promised():
                raise ResourceExhausted(
                    "rows in memory have reached their limit, and none of them can be written out",
                    field="memory_size_bytes_max",
                    limit=state.resources.memory.size_bytes_max,
                    value=state.resources.memory.size_bytes,
                )
            with self._changed:
                failed = state.flush_failure is not None and (attempt is None or attempt.done())
                if not failed and not self._tasks and not room():
                    state.events.count("writes_waited_for_flush")
                    self._changed.wait(timeout=0.1)

    def _seal(self, rows: int) -> None:
        """Start another memtable with room for ``rows`` rows; the old one waits for its flush."""
        state = self._state
        view = state.view
        sealed = view.memtables[-1]
        if sealed.memtable.seq_last < sealed.memtable.seq_first:
            if not sealed.memtable.fits(rows):
                fresh = state.new_memtable(view.seq + 1, rows)
                state.publish(view.with_memtables((*view.memtables[:-1], fresh.empty_view())))
            return
        try:
            if state.log.replayed:
                state.log.rotate()
        except BaseException as error:
            if state.log.poisoned:
                state.stop_writing(error)
            raise
        filled = sealed.memtable.size_bytes >= state.options.memtable_size_bytes
        # Where one was filled, so will be the next.
        fresh = state.new_memtable(view.seq + 1, rows, max(sealed.rows, ROWS_FIRST) if filled else ROWS_FIRST)
        state.sealed_views[sealed.memtable] = view
        state.publish(view.with_memtables((*view.memtables, fresh.empty_view())))
        self._flush_soon()

    def _commit(self, decided: list[Decided]) -> None:
        """Append, sync, apply and publish. From the append on, any failure stops the writer."""
        state = self._state
        state.view.memtables[-1].memtable.reserve([each.batch for each in decided if each.batch is not None])
        try:
            state.log.append([(each.seq, each.record) for each in decided])
        except (ResourceExhausted, MemoryError):
            raise  # Room is made before anything is written, so the log is as it was.
        except BaseException as error:
            state.stop_writing(error)
            raise
        try:
            state.log.sync()
            state.publish(apply_group(state, decided))
        except BaseException as error:
            state.stop_writing(error)
            raise

    def _seal_if_full(self) -> None:
        """Seal a full memtable. If that fails, what was written is acknowledged all the same; the next write seals."""
        state = self._state
        full = state.view.memtables[-1].memtable.size_bytes >= state.options.memtable_size_bytes
        if state.stopped_by is None and full and len(state.view.memtables) <= state.options.memtables_waiting_max:
            try:
                self._seal(0)
            except BaseException as error:  # noqa: BLE001 - an error from here would end the thread that all writes wait for
                state.events.report("seal_failed", error=type(error).__name__)


def _fail(writes: list[PendingWrite], error: BaseException) -> None:
    """Tell whoever waits and was told nothing yet."""
    for write in writes:
        if not write.outcome.done:
            write.outcome.set_exception(error)


def _no_room(failure: BaseException) -> ResourceExhausted:
    """The refusal of a write for which memory cannot be freed."""
    kind = DiskFull if isinstance(failure, DiskFull) else ResourceExhausted
    return kind(f"memory is full and cannot be written out: {failure}", field="memtable_size_bytes")
