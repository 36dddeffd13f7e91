"""Short searches: in the event loop, in batches of what has arrived.

A search is answered in the turn of the loop after the one it arrived in, together with whatever came by then. While the
loop searches, more arrives, and what differs only in the query goes to the engine together: a batch costs much less
than as many single queries, so throughput grows with load, as with group commit. No other thread is woken and none
contends for the interpreter; what is not short must not come here. Each search gets the answer it would get alone, and
one that fails does not fail the others.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from vecdb.api import Collection, Database
from vecdb.requests import SearchRequest
from vecdb.service.deadlines import Deadline
from vecdb.service.methods import named_collection
from vecdb.v1 import vecdb_pb2
from vecdb.wire.replies import encode_hits
from vecdb.wire.requests import decode_search

GROUP_MAX = 16
"""Searches of one batch: more would save little, make the first wait for the last, and hold up all other requests."""

Answered: TypeAlias = Callable[[vecdb_pb2.SearchRequest, float, int], None]
Encode: TypeAlias = Callable[[vecdb_pb2.SearchReply], bytes]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A search that waits until its batch comes, but no longer than ``until`` (by the loop's clock)."""

    message: vecdb_pb2.SearchRequest
    search: SearchRequest
    encode: Encode
    reply: asyncio.Future[bytes]
    deadline: Deadline
    until: float

    def kind(self) -> tuple[object, ...]:
        """Equal for searches that differ only in the query."""
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
        )


Outcome: TypeAlias = tuple[_Waiting, "bytes | Exception"]


class SearchGroups:
    """Answers searches of one query, without a filter. For one event loop.

    Parameters
    ----------
    database
        Where they go.
    on_answered
        Told of each batch: one of its requests, the seconds that it held the loop, how many queries it had.
    """

    def __init__(self, database: Database, on_answered: Answered) -> None:
        self._database = database
        self._on_answered = on_answered
        self._waiting: collections.deque[_Waiting] = collections.deque()

    def answer(self, message: vecdb_pb2.SearchRequest, encode: Encode, deadline: Deadline) -> asyncio.Future[bytes]:
        """The reply to a search as ``encode`` makes bytes of it, or what the search or ``encode`` raises.

        DeadlineExceeded where its turn comes too late.
        """
        loop = asyncio.get_running_loop()
        search = decode_search(message)
        if not self._waiting:
            loop.call_soon(self._answer_some, loop)
        waiting = _Waiting(message, search, encode, loop.create_future(), deadline, loop.time() + deadline.seconds)
        self._waiting.append(waiting)
        return waiting.reply

    def _answer_some(self, loop: asyncio.AbstractEventLoop) -> None:
        groups: dict[tuple[object, ...], list[_Waiting]] = {}
        count = 0
        while self._waiting and count < GROUP_MAX:
            waiting = self._waiting.popleft()
            if waiting.reply.done():
                continue
            if loop.time() > waiting.until:
                waiting.reply.set_exception(waiting.deadline.error("Search"))
                continue
            groups.setdefault(waiting.kind(), []).append(waiting)
            count += 1
        if self._waiting:
            # Not at once: the loop first sends what is ready and reads what has come.
            loop.call_soon(self._answer_some, loop)
        for group in groups.values():
            started = time.perf_counter()
            outcomes = self._outcomes(group)
            self._deliver(outcomes, time.perf_counter() - started)

    def _outcomes(self, group: list[_Waiting]) -> list[Outcome]:
        try:
            collection = named_collection(self._database, group[0].message)
            replies = _answered(collection, [each.search for each in group])
            return [(each, each.encode(reply)) for each, reply in zip(group, replies, strict=True)]
        except Exception as error:  # noqa: BLE001 (it belongs to whoever waits)
            if len(group) == 1:
                return [(group[0], error)]
            # Each alone, so that only those fail that have to.
            return [outcome for each in group for outcome in self._outcomes([each])]

    def _deliver(self, outcomes: list[Outcome], seconds: float) -> None:
        failed = False
        for waiting, outcome in outcomes:
            if isinstance(outcome, Exception):
                failed = True
                waiting.reply.set_exception(outcome)
            else:
                waiting.reply.set_result(outcome)
        if not failed:
            self._on_answered(outcomes[0][0].message, seconds, len(outcomes))


def _answered(collection: Collection, searches: list[SearchRequest]) -> Iterable[vecdb_pb2.SearchReply]:
    search = searches[0]
    if len(searches) > 1:
        search = dataclasses.replace(search, queries=np.concatenate([each.queries for each in searches]))
    return [
        vecdb_pb2.SearchReply(
            rankings=[encode_hits(hits, with_payloads=search.with_payloads, with_vectors=search.with_vectors)]
        )
        for hits in collection.run_search(search)
    ]
