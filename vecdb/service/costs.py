"""What searches are expected to cost, learnt from those that ran: whether one is short enough for the event loop.

A search in the event loop saves two changes of thread, and needs no other that contends for the interpreter, but it
holds up every other request. So only a kind of search that has proved short runs there: one query, of a kind that was
seen, without a filter (whose first evaluation may read every payload), without vectors in the answer, and that waits
for no write.
"""

from __future__ import annotations

from typing import TypeAlias

from vecdb.v1 import vecdb_pb2

KINDS_MAX = 10_000
_WEIGHT_OF_NEW = 0.2
_OUTLIER = 4.0

GROUP_MAX = 16
"""Searches of one batch in the event loop: more would save little, and make the first wait for the last."""
HELD_S_MAX = 0.005
"""A batch that is expected to hold the event loop for longer has fewer searches."""
HELD_S_OUTRAGEOUS = 0.05
"""Where one held the loop for longer, what was known of its kind is not true any more."""

_SHORT_K_MAX = 100
"""A longer ranking is never answered in the event loop: its payloads may be long to read and to encode."""

Kind: TypeAlias = tuple[str, str, float, int, int, bool, bool]


class SearchCosts:
    """Seconds a query by kind of search: collection, field and effort. For one thread at a time.

    Parameters
    ----------
    short_search_s
        Longest expected time of a search that may run in the event loop.
    """

    def __init__(self, short_search_s: float) -> None:
        self._short_search_s = short_search_s
        self._query_s: dict[Kind, float] = {}

    def is_short(self, request: vecdb_pb2.SearchRequest) -> bool:
        """Whether the search may run in the event loop."""
        if request.query_count != 1 or request.k > _SHORT_K_MAX or request.with_vectors:
            return False
        if request.HasField("where") or request.read_after_seq:
            return False
        return self._query_s.get(_kind(request), self._short_search_s) < self._short_search_s

    def group_max(self, request: vecdb_pb2.SearchRequest) -> int:
        """How many searches of this kind may make one batch in the event loop."""
        query_s = self._query_s.get(_kind(request), self._short_search_s)
        return max(1, min(GROUP_MAX, int(HELD_S_MAX / max(query_s, 1e-9))))

    def forget(self, request: vecdb_pb2.SearchRequest) -> None:
        """Forget a kind: until another search has told in a thread what it costs, none is short."""
        self._query_s.pop(_kind(request), None)

    def record(self, request: vecdb_pb2.SearchRequest, seconds: float, queries: int) -> None:
        """Note what ``queries`` queries took together: time of the thread, or of the event loop that they held up."""
        if request.HasField("where") or queries == 0:
            return
        kind = _kind(request)
        query_s = seconds / queries
        known_s = self._query_s.get(kind, query_s)
        # One that was merely interrupted must not make its kind look long; if they stay long, a few say so.
        query_s = min(query_s, _OUTLIER * known_s)
        if len(self._query_s) >= KINDS_MAX:
            # Kinds are the callers' to invent: forget them all rather than grow.
            self._query_s.clear()
        self._query_s[kind] = known_s + _WEIGHT_OF_NEW * (query_s - known_s)


def _kind(request: vecdb_pb2.SearchRequest) -> Kind:
    return (
        request.collection,
        request.queries.field,
        request.recall,
        request.ef,
        request.k.bit_length(),
        request.with_payloads,
        request.with_vectors,
    )
