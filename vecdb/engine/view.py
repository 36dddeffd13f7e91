"""A view: what one reader sees of a collection, fixed for as long as it is held.

Views are values. The writer publishes a new one after each group of writes; a search takes the newest and never waits.
An id has at most one live row in a view, so search never compares seqs and never removes duplicates.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vecdb.bitmap import Bitmap, LiveRows
from vecdb.query.execute import PlannedPart
from vecdb.segment.memtable import Memtable, MemtableView
from vecdb.segment.reader import SegmentReader
from vecdb.types import I64Array, PointId, U64Array


@dataclass(frozen=True, slots=True)
class SegmentView:
    """A segment and which of its rows are live."""

    reader: SegmentReader
    live: LiveRows

    @property
    def rows(self) -> int:
        """Rows in the segment, dead ones included."""
        return self.reader.rows

    def id_getter(self) -> Callable[[int], PointId]:
        """What gives the id of a row."""
        return self.reader.keys.packed.id_at

    def payload_getter(self) -> Callable[[int], bytes]:
        """What gives the payload of a row that was verified."""
        payload_of = self.reader.payloads.packed.__getitem__
        room = self.reader.room
        if room is None:
            return payload_of

        def within_room(row: int) -> bytes:
            room.settle()
            return payload_of(row)

        return within_room

    def id_at(self, row: int) -> PointId:
        """The id of a row."""
        return self.reader.keys.packed.id_at(row)

    def ids_at(self, rows: I64Array) -> list[PointId]:
        """The ids of (n,) rows, in their order."""
        return self.reader.keys.packed.ids_at(rows)

    def with_live(self, live: LiveRows) -> SegmentView:
        """The same segment with another set of live rows."""
        return SegmentView(self.reader, live)


PartView = SegmentView | MemtableView


@dataclass(frozen=True, slots=True)
class View:
    """Segments, then memtables from the oldest to the one that is being filled.

    Attributes
    ----------
    seq
        The newest write that is visible.
    plans
        How it is searched without a filter, by what a plan depends on besides; filled by ``vecdb.engine.search``.
    """

    seq: int
    segments: tuple[SegmentView, ...]
    memtables: tuple[MemtableView, ...]
    plans: dict[Hashable, tuple[Sequence[PartView], Sequence[PlannedPart]]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    @property
    def parts(self) -> tuple[PartView, ...]:
        """Segments and memtables; hits name a part by its place here."""
        return (*self.segments, *self.memtables)

    @property
    def live_rows(self) -> int:
        """Number of live points."""
        return sum(part.live.count() for part in self.parts)

    def locate(self, ids: Sequence[PointId], keys: Sequence[bytes], hashes: U64Array) -> tuple[I64Array, I64Array]:
        """The part and row of each id that is live, ((n,), (n,)) int64, -1 where it is not."""
        parts = np.full(len(ids), -1, np.int64)
        rows = np.full(len(ids), -1, np.int64)
        for number, segment in enumerate(self.segments):
            found = segment.reader.keys.locate(keys, hashes)
            at = np.flatnonzero(found >= 0)
            if at.shape[0]:
                at = at[segment.live.bitmap().contains(found[at])]
                parts[at] = number
                rows[at] = found[at]
        for number, memtable in enumerate(self.memtables, len(self.segments)):
            for position, row in memtable.locate_many(ids) if memtable.rows else ():
                parts[position] = number
                rows[position] = row
        return parts, rows

    def with_memtables(self, memtables: tuple[MemtableView, ...], seq: int | None = None) -> View:
        """The view with other memtables."""
        return View(self.seq if seq is None else seq, self.segments, memtables)

    def killed(self, dead: Mapping[int, Sequence[int]]) -> View:
        """The view without these rows, by part."""
        if not dead:
            return self
        parts = list(self.parts)
        for number, rows in dead.items():
            parts[number] = parts[number].with_live(parts[number].live.without(rows))
        count = len(self.segments)
        segments = tuple(part for part in parts[:count] if isinstance(part, SegmentView))
        memtables = tuple(part for part in parts[count:] if isinstance(part, MemtableView))
        return View(self.seq, segments, memtables)

    def flushed(self, memtable: Memtable, reader: SegmentReader, kept: I64Array) -> View:
        """The view with a memtable replaced by the segment that was written from it.

        Parameters
        ----------
        kept
            (rows,) int64: the memtable's row of each row of the segment, ascending. Of these, the ones that died after
            the segment was written are dead in it too.
        """
        for number, held in enumerate(self.memtables):
            if held.memtable is memtable:
                alive = held.live.bitmap().contains(kept)
                live = LiveRows.full(reader.rows).without(np.flatnonzero(~alive).tolist())
                memtables = (*self.memtables[:number], *self.memtables[number + 1 :])
                return replace(self, segments=_with(self.segments, SegmentView(reader, live)), memtables=memtables)
        return self

    def merged(self, kept: Mapping[int, I64Array], reader: SegmentReader | None) -> View:
        """The view with several segments replaced by the one that was merged from them.

        Parameters
        ----------
        kept
            By number of the segment, in ascending order, (n,) int64: the rows that are in the merged one, in its order.
            Of these, the ones that are dead in this view are dead in it too.
        reader
            The merged segment; ``None`` where no row was kept.
        """
        sources = {each.reader.segment_id: each for each in self.segments if each.reader.segment_id in kept}
        assert list(sources) == list(kept), (list(sources), list(kept))
        left = tuple(each for each in self.segments if each.reader.segment_id not in kept)
        if reader is None:
            return replace(self, segments=left)
        alive = [sources[number].live.bitmap().contains(rows) for number, rows in kept.items()]
        live = LiveRows.from_bitmap(Bitmap.from_bools(np.concatenate(alive)))
        return replace(self, segments=_with(left, SegmentView(reader, live)))


def _with(segments: tuple[SegmentView, ...], added: SegmentView) -> tuple[SegmentView, ...]:
    """In the order of their numbers, as the manifest has them: ties of a search break the same after reopening."""
    return tuple(sorted((*segments, added), key=lambda each: each.reader.segment_id))
