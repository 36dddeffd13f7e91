"""What searches are expected to cost, learnt from those that ran: whether one is short enough for the event loop.

A search in the event loop saves two changes of thread but holds up every other request, so only a kind of search that
has proved short runs there: one that was seen, without a filter (whose first evaluation may read every payload), and
that waits for no write.
"""

from __future__ import annotations

from typing import TypeAlias

from vecdb.v1 import vecdb_pb2

KINDS_MAX = 10_000
_WEIGHT_OF_NEW = 0.2

Kind: TypeAlias = tuple[str, str, float, int]


class SearchCosts:
    """Seconds a query by kind of search: collection, field and effort. For one thread at a time.

    Parameters
    ----------
    inline_s_max
        Longest expected time of a search that may run in the event loop.
    """

    def __init__(self, inline_s_max: float) -> None:
        self._inline_s_max = inline_s_max
        self._query_s: dict[Kind, float] = {}

    def is_short(self, request: vecdb_pb2.SearchRequest) -> bool:
        """Whether the search may run in the event loop."""
        if request.HasField("where") or request.read_after_seq:
            return False
        query_s = self._query_s.get(_kind(request))
        return query_s is not None and query_s * request.query_count < self._inline_s_max

    def record(self, request: vecdb_pb2.SearchRequest, seconds: float) -> None:
        """Note what a search took; ``seconds`` without waiting for a thread."""
        if request.HasField("where") or request.query_count == 0:
            return
        kind = _kind(request)
        query_s = seconds / request.query_count
        known_s = self._query_s.get(kind, query_s)
        if len(self._query_s) >= KINDS_MAX:
            # Kinds are the callers' to invent: forget them all rather than grow.
            self._query_s.clear()
        self._query_s[kind] = known_s + _WEIGHT_OF_NEW * (query_s - known_s)


def _kind(request: vecdb_pb2.SearchRequest) -> Kind:
    return request.collection, request.queries.field, request.recall, request.ef
