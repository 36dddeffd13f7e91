"""Which segments are merged, and when: a pure function of their sizes.

Size tiers, as in log-structured merge trees (O'Neil et al. 1996): segments of about the same size are merged when there
are enough of them, so that a row is copied once a tier. A segment with many dead rows is rewritten by itself. Segments
that wait for a graph join one that has a graph, if that is not much larger: a search walks through one graph then, and
not through two, for which it would take nearly twice as long.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class GraphState(Enum):
    """Whether a segment has the graphs that it is to have."""

    NONE = "none"
    """It needs none: it is small, or no field has such an index."""

    WAITING = "waiting"
    """At least one is to be built."""

    BUILT = "built"
    """All of them, and at least one, are there."""


@dataclass(frozen=True, slots=True)
class SegmentSize:
    """What is known of a segment.

    Attributes
    ----------
    rows, live_rows
        All of them, and those that are live.
    size_bytes
        Of its files.
    graph
        Whether it has a graph.
    """

    segment_id: int
    rows: int
    live_rows: int
    size_bytes: int
    graph: GraphState = GraphState.NONE

    @property
    def live_bytes(self) -> int:
        """About what its live rows would take by themselves."""
        return self.size_bytes * self.live_rows // self.rows if self.rows else 0

    @property
    def dead_share(self) -> float:
        """Share of the rows that are dead."""
        return 1 - self.live_rows / self.rows if self.rows else 0.0


@dataclass(frozen=True, slots=True)
class MergePolicy:
    """When to merge.

    Attributes
    ----------
    fanout
        Segments of one tier that are merged into one of the next.
    dead_share_max
        A segment with a larger share of dead rows is rewritten.
    tier_bytes_first
        Segments up to this size are the first tier; each further tier reaches ``fanout`` times as far.
    size_bytes_max
        Merging makes no segment larger than this.
    """

    fanout: int
    dead_share_max: float
    tier_bytes_first: int
    size_bytes_max: int

    def next_merge(self, segments: Sequence[SegmentSize]) -> tuple[int, ...]:
        """The numbers of the segments that are to become one; empty where nothing is worth it."""
        dead = [each.segment_id for each in segments if each.rows and not each.live_rows]
        if dead:
            return tuple(dead)
        joined = self.next_join(segments)
        if joined:
            return joined
        tiers: defaultdict[int, list[SegmentSize]] = defaultdict(list)
        for each in segments:
            tiers[self._tier(each)].append(each)
        for _, tier in sorted(tiers.items()):
            group = _first_group(tier, self.size_bytes_max)
            if len(group) >= self.fanout:
                return tuple(each.segment_id for each in group)
        worst = max(segments, key=lambda each: each.dead_share, default=None)
        if worst is not None and worst.dead_share > self.dead_share_max:
            return (worst.segment_id,)
        return ()

    def may_join(self, waiting: Sequence[SegmentSize], built: Sequence[SegmentSize]) -> bool:
        """Whether segments that wait for a graph are to be merged with what has, or is going to have, one graph.

        Neither side has more than ``fanout`` times the rows of the other: that is worth copying the rows that are
        there, and their graph is a good part of the one that comes out.
        """
        more, less = (sum(each.live_rows for each in side) for side in (waiting, built))
        if less > more:
            more, less = less, more
        size_bytes = sum(each.live_bytes for each in (*waiting, *built))
        return more <= self.fanout * less and size_bytes <= self.size_bytes_max

    def next_join(self, segments: Sequence[SegmentSize]) -> tuple[int, ...]:
        """The smallest segment whose graph can take the rows of some that wait, and these; empty where none can."""
        waiting = sorted(
            (each for each in segments if each.graph is GraphState.WAITING),
            key=lambda each: (each.live_rows, each.segment_id),
        )
        built = [each for each in segments if each.graph is GraphState.BUILT]
        for host in sorted(built, key=lambda each: (each.live_rows, each.segment_id)):
            for count in range(len(waiting), 0, -1):
                if self.may_join(waiting[:count], [host]):
                    return (host.segment_id, *(each.segment_id for each in waiting[:count]))
        return ()

    def full_merge(self, segments: Sequence[SegmentSize]) -> list[tuple[int, ...]]:
        """Groups that leave as few segments as possible and no dead row."""
        groups: list[tuple[int, ...]] = []
        left = list(segments)
        while left:
            group = _first_group(left, self.size_bytes_max)
            if len(group) > 1 or group[0].live_rows < group[0].rows:
                groups.append(tuple(sorted(each.segment_id for each in group)))
            left = [each for each in left if each not in group]
        return groups

    def _tier(self, segment: SegmentSize) -> int:
        tier, reach = 0, self.tier_bytes_first
        while segment.live_bytes > reach:
            tier, reach = tier + 1, reach * self.fanout
        return tier


def _first_group(segments: Sequence[SegmentSize], size_bytes_max: int) -> list[SegmentSize]:
    """The smallest ones that make one segment together; the smallest alone where no two do."""
    group: list[SegmentSize] = []
    size_bytes = 0
    for each in sorted(segments, key=lambda each: (each.live_bytes, each.segment_id)):
        if group and size_bytes + each.live_bytes > size_bytes_max:
            break
        group.append(each)
        size_bytes += each.live_bytes
    return group
