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
from vecdb.norms import is_ordinary
from vecdb.requests import SearchRequest
from vecdb.results import Hits
from vecdb.service.costs import SearchCosts
from vecdb.service.deadlines import Deadline
from vecdb.v1 import vecdb_pb2
from vecdb.wire.replies import encode_hits
from vecdb.wire.requests import decode_search

Encode: TypeAlias = Callable[[vecdb_pb2.SearchReply], bytes]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A search that waits for its batch; ``until`` is the end of its time by the loop's clock."""

    message: vecdb_pb2.SearchRequest
    search: SearchRequest
    encode: Encode
    reply: asyncio.Future[bytes | None]
    deadline: Deadline
    until: float

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
            # A query that may be refused, or that needs more careful arithmetic, goes alone.
            None if is_ordinary(self.search.queries) else id(self),
        )

    def settle(self, outcome: Outcome, now: float) -> None:
        """Give the outcome to whoever waits; a result that comes too late is none."""
        if self.reply.done():
            return
        if isinstance(outcome, Exception):
            self.reply.set_exception(outcome)
        elif now > self.until:
            self.reply.set_exception(self.deadline.error("Search"))
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
        """The reply to a search as ``encode`` makes bytes of it, or what the search or ``encode`` raises.

        ``None`` where the engine cannot answer at once; DeadlineExceeded where the answer comes too late.
        """
        loop = asyncio.get_running_loop()
        search = decode_search(message)
        waiting = _Waiting(message, search, encode, loop.create_future(), deadline, loop.time() + deadline.seconds)
        if not self._waiting:
            loop.call_soon(self._answer_next, loop)
        self._waiting.setdefault(waiting.kind(), collections.deque()).append(waiting)
        return waiting.reply

    def _answer_next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer a batch of the kind that has waited longest; what is left of the kind goes behind the others."""
        kind = next(iter(self._waiting))
        queue = self._waiting.pop(kind)
        message = queue[0].message
        group_max = self._costs.group_max(message)
        now = loop.time()
        group: list[_Waiting] = []
        while queue and len(group) < group_max:
            waiting = queue.popleft()
            if now > waiting.until:
                waiting.settle(None, now)
            elif not waiting.reply.done():
                group.append(waiting)
        if queue:
            self._waiting[kind] = queue
        if self._waiting:
            loop.call_soon(self._answer_next, loop)
        if not group:
            return
        try:
            started = time.perf_counter()
            outcomes = self._outcomes(group)
            seconds = time.perf_counter() - started
            now = loop.time()
            for waiting, outcome in zip(group, outcomes, strict=True):
                waiting.settle(outcome, now)
            if any(isinstance(each, Exception) and not isinstance(each, InvalidArgument) for each in outcomes):
                self._costs.forget(message)
            elif all(isinstance(each, bytes) for each in outcomes):
                self._costs.record(message, seconds, len(group))
        finally:
            # Whatever happened, nobody waits for ever.
            for waiting in group:
                waiting.settle(RuntimeError("a batch of searches was not finished"), now)

    def _outcomes(self, group: Sequence[_Waiting]) -> list[Outcome]:
        first = group[0]
        search = first.search
        if len(group) > 1:
            search = dataclasses.replace(search, queries=np.concatenate([each.search.queries for each in group]))
        try:
            rankings = self._database.run_search_at_once(first.message.collection, first.message.collection_id, search)
        except Exception as error:  # noqa: BLE001 (it belongs to whoever waits)
            if len(group) == 1:
                return [error]
            # Each alone, so that only those fail that have to.
            return [outcome for each in group for outcome in self._outcomes([each])]
        if rankings is None:
            return [None] * len(group)
        return [_encoded(each, hits) for each, hits in zip(group, rankings, strict=True)]


def _encoded(waiting: _Waiting, hits: Hits) -> Outcome:
    search = waiting.search
    try:
        ranking = encode_hits(hits, with_payloads=search.with_payloads, with_vectors=search.with_vectors)
        return waiting.encode(vecdb_pb2.SearchReply(rankings=[ranking]))
    except Exception as error:  # noqa: BLE001 (it belongs to whoever waits)
        return error
