"""Short searches: one at a time in the event loop while nobody else searches, in batches by a thread while others do.

While the thread searches, whatever arrives waits, and what then differs only in the query goes to the engine together:
a batch costs much less than as many single queries, so throughput grows with load, as with group commit. Where searches
never meet, the event loop answers them and saves two changes of thread. Each search gets the answer it would get alone,
and one that fails does not fail the others.
"""

from __future__ import annotations

import asyncio
import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from vecdb.api import Collection, Database
from vecdb.requests import SearchRequest
from vecdb.service.methods import named_collection
from vecdb.v1 import vecdb_pb2
from vecdb.wire.replies import encode_hits
from vecdb.wire.requests import decode_search

GROUP_MAX = 16
"""Searches of one batch: more would save little and make the first wait for the last."""
MEMORY = 64
"""After two searches have met, so many go to the thread; while none meet, each so many-th does, to see whether any do.
(In the event loop none can: it does nothing else while it searches.)"""

Answered: TypeAlias = Callable[[vecdb_pb2.SearchRequest, float, int], None]
Encode: TypeAlias = Callable[[vecdb_pb2.SearchReply], bytes]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A search that waits, and what it turns into: a reply or an error, given to its future by the event loop."""

    message: vecdb_pb2.SearchRequest
    search: SearchRequest
    encode: Encode
    reply: asyncio.Future[bytes]

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
    """Answers searches of one query, without a filter.

    Parameters
    ----------
    database
        Where they go.
    on_answered
        Told in the event loop of each batch: one of its requests, the seconds it took, how many queries it had.
    """

    def __init__(self, database: Database, on_answered: Answered) -> None:
        self._database = database
        self._on_answered = on_answered
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._in_thread = 0
        self._for_thread = 0
        self._until_probe = MEMORY

    def answer(self, message: vecdb_pb2.SearchRequest, encode: Encode) -> asyncio.Future[bytes]:
        """The reply to a search as ``encode`` makes bytes of it, or what the search or ``encode`` raises.

        It is there at once where the search ran in the event loop.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(message, decode_search(message), encode, loop.create_future())
        if self._meets_others():
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, args=(loop,), name="vecdb-search", daemon=True)
                self._thread.start()
            self._in_thread += 1
            self._waiting.put(waiting)
        else:
            started = time.perf_counter()
            outcomes = self._outcomes([waiting])
            self._deliver(outcomes, time.perf_counter() - started)
        return waiting.reply

    def _meets_others(self) -> bool:
        """Whether a search that arrives now is for the thread."""
        if self._in_thread:
            self._for_thread = MEMORY
            return True
        if self._for_thread:
            self._for_thread -= 1
            return True
        self._until_probe -= 1
        if self._until_probe:
            return False
        self._until_probe = MEMORY
        return True

    def close(self) -> None:
        """Let the thread end once it has answered what waits."""
        self._waiting.put(None)

    def join(self) -> None:
        """Wait for the thread."""
        if self._thread is not None:
            self._thread.join()

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        ended = False
        while not ended:
            taken = [self._waiting.get()]
            while len(taken) < GROUP_MAX and not self._waiting.empty():
                taken.append(self._waiting.get())
            ended = None in taken
            groups: dict[tuple[object, ...], list[_Waiting]] = {}
            for each in taken:
                if each is not None:
                    groups.setdefault(each.kind(), []).append(each)
            for group in groups.values():
                started = time.thread_time()
                outcomes = self._outcomes(group)
                loop.call_soon_threadsafe(self._leave, outcomes, time.thread_time() - started)

    def _leave(self, outcomes: list[Outcome], seconds: float) -> None:
        self._in_thread -= len(outcomes)
        self._deliver(outcomes, seconds)

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
                if not waiting.reply.done():
                    waiting.reply.set_exception(outcome)
            elif not waiting.reply.done():
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
