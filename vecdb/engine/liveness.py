"""Which rows are live, told from the segments alone: of all rows and deletes of an id, the one of the highest seq wins.

The metadata says the same; this is how it is proven by a check, and rebuilt when it is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vecdb.bitmap import Bitmap, LiveRows
from vecdb.segment.ids import hash_keys
from vecdb.types import AnyArray, I64Array, U64Array


@dataclass(frozen=True, slots=True)
class History:
    """What one segment tells about ids.

    Attributes
    ----------
    size
        Rows of the segment, those that cannot be read included.
    rows, hashes, seqs
        (n,) int64, uint64, uint64: the rows that can be read, the hash of each one's id and its write batch.
    key_at
        The encoded id of a row that can be read.
    deleted_keys, deleted_seqs
        What its journal holds: encoded ids that were deleted, and by which write batch.
    """

    segment_id: int
    size: int
    rows: I64Array
    hashes: U64Array
    seqs: U64Array
    key_at: Callable[[int], bytes]
    deleted_keys: Sequence[bytes]
    deleted_seqs: U64Array


def live_rows(histories: Sequence[History], hash_key: bytes, seq_max: int) -> dict[int, LiveRows]:
    """The live rows of each segment, by its number, as of the write ``seq_max``.

    A delete beats a row of its own batch. Rows of one id and one batch, which no writer makes, are told apart by
    segment and row.
    """
    table = _Table(histories, hash_key, seq_max)
    live = {each.segment_id: np.zeros(each.size, np.bool_) for each in histories}
    for part, row in table.winners():
        live[histories[part].segment_id][row] = True
    return {number: LiveRows.from_bitmap(Bitmap.from_bools(rows)) for number, rows in live.items()}


class _Table:
    """Rows and deletes of all segments, ordered by the hash of their id, then by what wins."""

    def __init__(self, histories: Sequence[History], hash_key: bytes, seq_max: int) -> None:
        self._histories = histories
        none = [np.zeros(0, np.uint64)]
        deleted = [hash_keys(each.deleted_keys, hash_key) for each in histories]
        hashes = np.concatenate([*none, *(each.hashes for each in histories), *deleted])
        seqs = np.concatenate([*none, *(each.seqs for each in histories), *(each.deleted_seqs for each in histories)])
        counts = [each.rows.shape[0] for each in histories]
        deletes = [each.shape[0] for each in deleted]
        numbers = np.arange(len(histories))
        parts = np.concatenate([np.repeat(numbers, counts), np.repeat(numbers, deletes)]).astype(np.int64)
        items = np.concatenate(
            [np.zeros(0, np.int64), *(each.rows for each in histories), *(np.arange(count) for count in deletes)]
        )
        kinds = np.concatenate([np.zeros(sum(counts), np.bool_), np.ones(sum(deletes), np.bool_)])
        order = np.lexsort((items, parts, kinds, seqs, hashes))
        order = order[seqs[order] <= np.uint64(seq_max)]
        self._hashes, self._parts, self._items, self._kinds = hashes[order], parts[order], items[order], kinds[order]

    def winners(self) -> Iterator[tuple[int, int]]:
        """(part, row) of each id whose last entry is a row."""
        count = self._hashes.shape[0]
        if count == 0:
            return
        begins = np.flatnonzero(np.append(True, self._hashes[1:] != self._hashes[:-1]))
        ends = np.append(begins[1:], count)
        single = ends - begins == 1
        last = ends[single] - 1
        last = last[~self._kinds[last]]
        yield from zip(self._parts[last].tolist(), self._items[last].tolist(), strict=True)
        for begin, end in zip(begins[~single].tolist(), ends[~single].tolist(), strict=True):
            # Equal hashes are of equal ids, but for a collision: the ids decide.
            by_key = {self._key(at): at for at in range(begin, end)}
            for at in by_key.values():
                if not self._kinds[at]:
                    yield int(self._parts[at]), int(self._items[at])

    def _key(self, at: int) -> bytes:
        history: History = self._histories[int(self._parts[at])]
        item = int(self._items[at])
        return history.deleted_keys[item] if self._kinds[at] else history.key_at(item)


def row_hashes(hashes: U64Array, hash_rows: AnyArray, rows: int) -> U64Array:
    """(rows,) uint64: the hash of each row's id, from the index of a segment."""
    found = np.zeros(rows, np.uint64)
    found[hash_rows] = hashes
    return found
