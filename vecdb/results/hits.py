"""The hits of a search, nearest first.

``Hits`` holds columns; a ``Hit`` and its payload are made when they are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

from vecdb.payload import decode_payload
from vecdb.types import F32Array, Payload, PointId


@dataclass(frozen=True, slots=True)
class Hit:
    """One point of a ranking.

    Attributes
    ----------
    id
        The caller's key.
    score
        Larger is nearer: cosine similarity, dot product, or minus the Euclidean distance.
    distance
        The metric's natural value: 1 - cosine similarity, dot product, or Euclidean distance.
    payload
        Its JSON object; ``None`` where the search was told not to bring payloads.
    vectors
        Its vectors by field name; empty unless asked for.
    """

    id: PointId
    score: float
    distance: float
    payload: Payload | None = None
    vectors: Mapping[str, F32Array] = field(default_factory=dict)


class Hits(Sequence[Hit]):
    """The ranking of one query, nearest first.

    Attributes
    ----------
    ids
        The k keys, in order.
    scores
        (k,) float32, larger is nearer.
    distances
        (k,) float32, the metric's natural value.
    complete
        The ranking holds ``min(k, matching points)`` hits.
    strategy
        What was done: ``"exact"``, ``"graph"``, ``"scan"``, several of them as in ``"exact+graph"``, or ``"nothing"``.
        Queries that are answered together share it.
    recall_estimate
        Mean recall expected of this plan over queries like those seen; 1.0 for an exact search. Not a measurement of
        this one answer.
    unindexed_rows
        Rows that were scanned because no index holds them yet.
    """

    __slots__ = (
        "_payload_of", "_vectors_of", "complete", "distances", "ids", "recall_estimate", "scores", "strategy",
        "unindexed_rows",
    )  # fmt: skip

    def __init__(
        self,
        ids: list[PointId],
        scores: F32Array,
        distances: F32Array,
        *,
        complete: bool,
        strategy: str,
        recall_estimate: float,
        unindexed_rows: int,
        payload_of: Callable[[int], bytes] | None,
        vectors_of: Callable[[int], Mapping[str, F32Array]] | None,
    ) -> None:
        self.ids = ids
        self.scores = scores
        self.distances = distances
        self.complete = complete
        self.strategy = strategy
        self.recall_estimate = recall_estimate
        self.unindexed_rows = unindexed_rows
        self._payload_of = payload_of
        self._vectors_of = vectors_of

    def payload_bytes(self, position: int) -> bytes | None:
        """The payload of the hit at ``position`` as UTF-8 JSON; ``None`` where payloads were not asked for."""
        return None if self._payload_of is None else self._payload_of(position)

    def vectors(self, position: int) -> Mapping[str, F32Array]:
        """The vectors of the hit at ``position`` by field name; empty unless asked for."""
        return {} if self._vectors_of is None else self._vectors_of(position)

    def _hit(self, position: int) -> Hit:
        encoded = self.payload_bytes(position)
        return Hit(
            self.ids[position],
            float(self.scores[position]),
            float(self.distances[position]),
            None if encoded is None else decode_payload(encoded),
            self.vectors(position),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, at: int) -> Hit: ...
    @overload
    def __getitem__(self, at: slice) -> list[Hit]: ...
    def __getitem__(self, at: int | slice) -> Hit | list[Hit]:
        if isinstance(at, slice):
            return [self._hit(position) for position in range(*at.indices(len(self.ids)))]
        return self._hit(range(len(self.ids))[at])

    def __iter__(self) -> Iterator[Hit]:
        return (self._hit(position) for position in range(len(self.ids)))

    def __repr__(self) -> str:
        nearest = f", nearest {self.ids[0]!r} at {self.scores[0]:.4f}" if self.ids else ""
        return f"Hits({len(self.ids)} by {self.strategy}, recall about {self.recall_estimate:.2f}{nearest})"
