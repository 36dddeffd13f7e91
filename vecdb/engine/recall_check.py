"""Live recall: some searches are run once more in the background, and exactly, to see what they miss.

The caller of a search waits for none of it: at most its queries are copied. A check looks at the view of its own
moment, both by the plan of that moment and exactly, and holds it no longer than it takes; what waits to be checked
holds none. It runs on a niced thread in steps of a few milliseconds, and pauses after each check, so that it takes no
more than its share of a core. With few samples of a kind, or after a surprise, one query in ``EAGER_EVERY`` is checked.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vecdb.engine.background import BackgroundWork
from vecdb.engine.recall_ledger import Kind, kind_of
from vecdb.engine.search import Search, plan_search
from vecdb.engine.state import CollectionState
from vecdb.engine.threads import Pool
from vecdb.errors import Cancelled, Corruption, ResourceExhausted, VecdbError
from vecdb.index.steps import finished, scan_in_steps
from vecdb.query.execute import PlannedPart, search_parts
from vecdb.query.plan import Strategy
from vecdb.requests import SearchRequest
from vecdb.types import F32Array

EAGER_EVERY = 4
_OF_ONE_CALL = 8
_WAITING_MAX = 256
_WAITING_BYTES_MAX = 4 * 2**20


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A search of one query that is to be checked."""

    kind: Kind
    request: SearchRequest


class RecallCheck:
    """Checks searches of one collection."""

    def __init__(self, state: CollectionState, pool: Pool) -> None:
        options = state.options
        self._state = state
        self._every = round(1 / options.recall_checked_share) if options.recall_checked_share else 0
        self._pause = 1 / options.recall_check_busy_share_max - 1
        self._work = BackgroundWork(pool, self._check_what_waits)
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._checking = False
        self._searched = 0

    def note(self, request: SearchRequest, search: Search) -> None:
        """Hear of a search that was run."""
        if not self._every:
            return
        # Threads may count at once and lose some: it is only about how often.
        before = self._searched
        after = self._searched = before + search.queries.shape[0]
        if after // EAGER_EVERY == before // EAGER_EVERY or request.at:
            return
        walked = [each for each in search.planned if each.plan.strategy is Strategy.GRAPH]
        if not walked:
            return
        largest = max(walked, key=lambda each: each.count)
        share = largest.count / largest.part.slots
        kind = kind_of(search.declared.name, request.recall, request.ef, share)
        every = EAGER_EVERY if self._state.recall.is_eager(kind) else self._every
        due = after // every - before // every
        if due:
            self._take(kind, request, min(due, _OF_ONE_CALL))

    def _take(self, kind: Kind, request: SearchRequest, count: int) -> None:
        """Let some queries of a search be checked."""
        room = min(_WAITING_MAX, _WAITING_BYTES_MAX // max(1, request.queries[:1].nbytes)) - len(self._waiting)
        step = max(1, request.queries.shape[0] // count)
        for at in range(0, step * min(count, room), step):
            query = request.queries[at : at + 1].copy()
            alone = replace(request, queries=query, read_after_seq=0, with_payloads=False, with_vectors=False)
            self._waiting.append(_Waiting(kind, alone))
        if self._waiting:
            try:
                self._work.schedule()
            except ResourceExhausted:
                # There is no thread; a later search asks again.
                self._state.events.count("recall_checks_failed")

    def wait_idle(self, timeout_s: float) -> bool:
        """Return when nothing waits to be checked; whether that was before the time was up."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._checking, timeout_s)

    def stop(self) -> None:
        """Wait until the running check has noticed that the collection is closing."""
        self._work.stop()
        self._waiting.clear()

    def _check_what_waits(self) -> None:
        state = self._state
        self._checking = True
        try:
            while self._waiting and not state.closing.is_set():
                self._check_or_count(self._waiting.popleft())
        finally:
            with self._changed:
                self._checking = False
                self._changed.notify_all()

    def _check_or_count(self, waiting: _Waiting) -> None:
        state = self._state
        begun_s = time.thread_time()
        try:
            self._check(waiting)
        except Cancelled:
            return
        except Corruption as error:
            # Whoever needs what is damaged is told by its own search.
            state.tell_damage(error)
        except (VecdbError, MemoryError):
            state.events.count("recall_checks_failed")
        state.closing.wait(self._pause * (time.thread_time() - begun_s))

    def _check(self, waiting: _Waiting) -> None:
        state = self._state
        request = waiting.request
        search = plan_search(state, state.view, request)
        if not any(each.plan.strategy is Strategy.GRAPH for each in search.planned):
            return
        found = search_parts(search.planned, search.queries, request.k, state.kernels).distances[0]
        state.check_not_closing()
        nearest = [self._nearest(each, search.queries, request.k) for each in search.planned]
        right = np.sort(np.concatenate(nearest))[: request.k]
        wanted = int(np.isfinite(right).sum())
        # By distance: of rows that are equally near any will do.
        hits = min(int((np.isfinite(found) & (found <= right[-1])).sum()), wanted)
        state.recall.record(waiting.kind, 1 - hits / wanted, _expected_miss(search.planned))
        state.events.count("recall_checks")

    def _nearest(self, planned: PlannedPart, queries: F32Array, k: int) -> F32Array:
        """Distances of the nearest allowed rows of a part, (k,) float32, by their vectors."""
        part = planned.part
        # Not by codes: what they cannot tell apart is what a search may miss.
        part.ensure(None if planned.allowed is None else planned.allowed.rows())
        steps = scan_in_steps(self._state.kernels, part.exact, queries, k, planned.allowed)
        distances: F32Array = finished(steps, self._state.check_not_closing).distances[0]
        return distances


def _expected_miss(planned: Sequence[PlannedPart]) -> float:
    """What the calibration expects a search to miss, each part by its number of allowed rows."""
    return sum(each.count * (1 - each.plan.recall_calibrated) for each in planned) / sum(each.count for each in planned)
