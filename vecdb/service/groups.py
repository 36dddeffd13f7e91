"""Short searches: in the event loop, in batches of what has arrived.

A search is answered in a turn of the loop after the one it arrived in, together with whatever came by then. While the
loop searches, more arrives, and what differs only in the query goes to the engine together: a batch costs much less
than as many single queries, so throughput grows with load, as with group commit. A turn makes one batch, so that the
loop sends and reads in between. Nothing here opens a file or waits for one: where the engine would have to, the search
is handed back. Each search gets the hits it would get alone, and one that fails does not fail the others.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from vecdb.api import Database
from vecdb.errors import InvalidArgument
from vecdb.norms import ordinary_length
from vecdb.requests import SearchRequest
from vecdb.results.hits import Hits
from vecdb.service.costs import HELD_S_OUTRAGEOUS, SearchCosts
from vecdb.service.deadlines import Deadline
from vecdb.v1 import vecdb_pb2
from vecdb.wire.replies import encode_hits
from vecdb.wire.requests import decode_search

Encode: TypeAlias = Callable[[vecdb_pb2.SearchReply], bytes]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A search that waits for its batch."""

    message: vecdb_pb2.SearchRequest
    search: SearchRequest
    encode: Encode
    reply: asyncio.Future[bytes | None]
    deadline: Deadline
    goes_alone: bool
    """Its query may be refused, or needs more careful arithmetic than others."""

    def kind(self) -> Hashable:
        """Equal for searches that may go together: they differ only in the query."""
        message, queries = self.message, self.message.queries
        return (
            message.collection,
            message.collection_id,
            queries.field,
            queries.dim,
            message.only_field,
            message.k,
            message.recall,
            message.ef,
            message.with_payloads,
            message.with_vectors,
            message.at,
            self.goes_alone,
        )

    def settle(self, outcome: Outcome, now: float) -> None:
        """Give the outcome to whoever waits; a result that comes too late is none."""
        if self.reply.done():
            return
        if now > self.deadline.at:
            self.reply.set_exception(self.deadline.error("Search"))
        elif isinstance(outcome, Exception):
            self.reply.set_exception(outcome)
        else:
            self.reply.set_result(outcome)


Outcome: TypeAlias = "bytes | Exception | None"


class SearchGroups:
    """Answers searches of one query, without a filter. For one event loop.

    Parameters
    ----------
    database
        Where they go.
    costs
        Says how many may go together, and is told what they cost.
    """

    def __init__(self, database: Database, costs: SearchCosts) -> None:
        self._database = database
        self._costs = costs
        self._waiting: dict[Hashable, collections.deque[_Waiting]] = {}

    def answer(
        self, message: vecdb_pb2.SearchRequest, encode: Encode, deadline: Deadline
    ) -> asyncio.Future[bytes | None]:
        """The reply to a search as ``encode`` makes bytes of it, or what ``encode`` raises.

        ``None`` where the search cannot be answered here, or fails here: it is to be made in a thread, which tells.
        DeadlineExceeded where the answer comes too late.
        """
        loop = asyncio.get_running_loop()
        search = decode_search(message)
        alone = not ordinary_length(search.queries)
        waiting = _Waiting(message, search, encode, loop.create_future(), deadline, alone)
        kind = waiting.kind()
        if not self._waiting:
            loop.call_soon(self._answer_next, loop)
        self._waiting.setdefault(kind, collections.deque()).append(waiting)
        return waiting.reply

    def _answer_next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer a batch of the kind that has waited longest; what is left of the kind goes behind the others."""
        kind = next(iter(self._waiting))
        queue = self._waiting.pop(kind)
        group = self._group(queue, loop.time())
        if queue:
            self._waiting[kind] = queue
        if self._waiting:
            loop.call_soon(self._answer_next, loop)
        if not group:
            return
        started = time.perf_counter()
        outcomes = self._outcomes(group)
        seconds = time.perf_counter() - started
        now = loop.time()
        for waiting, outcome in zip(group, outcomes, strict=True):
            waiting.settle(outcome, now)
        if seconds > HELD_S_OUTRAGEOUS or any(isinstance(each, Exception) for each in outcomes):
            self._costs.forget(group[0].message)
        elif None not in outcomes:
            self._costs.record(group[0].message, seconds, len(group))

    def _group(self, queue: collections.deque[_Waiting], now: float) -> list[_Waiting]:
        """The next batch of a queue, without those who gave up or whose time is up."""
        group_max = 1 if queue[0].goes_alone else self._costs.group_max(queue[0].message)
        group: list[_Waiting] = []
        while queue and len(group) < group_max:
            waiting = queue.popleft()
            if now > waiting.deadline.at:
                waiting.settle(None, now)
            elif not waiting.reply.done():
                group.append(waiting)
        return group

    def _outcomes(self, group: Sequence[_Waiting]) -> list[Outcome]:
        first = group[0]
        search = first.search
        if len(group) > 1:
            search = dataclasses.replace(search, queries=np.concatenate([each.search.queries for each in group]))
        try:
            rankings = self._database.run_search_at_once(first.message.collection, first.message.collection_id, search)
        except Exception as error:  # noqa: BLE001 (a thread makes each search again, alone, and tells what it raises)
            if not isinstance(error, InvalidArgument):
                self._costs.forget(first.message)
            rankings = None
        if rankings is None:
            return [None] * len(group)
        return [_encoded(each, hits) for each, hits in zip(group, rankings, strict=True)]


def _encoded(waiting: _Waiting, hits: Hits) -> Outcome:
    search = waiting.search
    try:
        ranking = encode_hits(hits, with_payloads=search.with_payloads, with_vectors=search.with_vectors)
        return waiting.encode(vecdb_pb2.SearchReply(rankings=[ranking]))
    except Exception as error:  # noqa: BLE001 (it belongs to whoever waits)
        # No future takes a StopIteration.
        return RuntimeError(repr(error)) if isinstance(error, StopIteration) else error
