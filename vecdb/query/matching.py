"""Which rows a filter allows, remembered for parts that do not change.

A segment's rows and payloads never change, so the rows that match a filter are the same for ever; only the live rows
differ between views. Entries go away with the segment or memtable they belong to, or when their memory is wanted.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from weakref import WeakKeyDictionary

from vecdb.bitmap import Bitmap
from vecdb.filter import Filter
from vecdb.query.predicate import PayloadColumns, matches

BITMAPS_BYTES_MAX = 16 * 2**20
"""Bitmaps remembered for each part, least recently used out first."""

FILTERS_MAX = 256
"""Filters remembered for each part: each also keeps its values, up to some hundred kilobytes."""

ENTRY_BYTES = 512
"""Counted for a remembered filter beside its words."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """A column or a bitmap that is kept.

    Attributes
    ----------
    used_s
        When it was last used, by the monotonic clock.
    drop
        Forgets it; it is made again when it is needed.
    """

    used_s: float
    size_bytes: int
    drop: Callable[[], None]


class PartMatcher:
    """Evaluates filters over the payloads of one part."""

    def __init__(self, payloads: Sequence[bytes]) -> None:
        self._columns = PayloadColumns(payloads)
        self._bitmaps: OrderedDict[tuple[Filter, int], tuple[Bitmap, float]] = OrderedDict()
        """Each with when it was last used."""
        self._taken_bytes = 0
        self._lock = threading.Lock()

    def matching(self, where: Filter, rows: int) -> Bitmap:
        """Which of the first ``rows`` rows match."""
        key = (where, rows)
        with self._lock:
            known = self._bitmaps.get(key)
            if known is not None:
                self._remember(key, known[0])
                return known[0]
        found = Bitmap.from_bools(matches(where, self._columns.columns(where.paths(), rows), rows))
        with self._lock:
            if key not in self._bitmaps:
                self._taken_bytes += _size_bytes(found)
            self._remember(key, found)
            while self._taken_bytes > BITMAPS_BYTES_MAX or len(self._bitmaps) > FILTERS_MAX:
                _, (oldest, _) = self._bitmaps.popitem(last=False)
                self._taken_bytes -= _size_bytes(oldest)
        return found

    def _remember(self, key: tuple[Filter, int], bitmap: Bitmap) -> None:
        self._bitmaps[key] = (bitmap, time.monotonic())
        self._bitmaps.move_to_end(key)

    def remembered(self) -> list[Remembered]:
        """What is kept for the part."""
        with self._lock:
            kept = [
                Remembered(used_s, _size_bytes(bitmap), partial(self._forget, key))
                for key, (bitmap, used_s) in self._bitmaps.items()
            ]
        columns = self._columns
        return kept + [Remembered(used_s, size, partial(columns.drop, path)) for path, used_s, size in columns.kept()]

    def _forget(self, key: tuple[Filter, int]) -> None:
        with self._lock:
            known = self._bitmaps.pop(key, None)
            if known is not None:
                self._taken_bytes -= _size_bytes(known[0])


class Matchers:
    """The matcher of each segment and memtable that was ever filtered and still exists."""

    def __init__(self) -> None:
        self._of_part: WeakKeyDictionary[object, PartMatcher] = WeakKeyDictionary()
        self._taken_bytes = 0
        self._lock = threading.Lock()

    def matching(self, part: object, payloads: Sequence[bytes], where: Filter, rows: int) -> Bitmap:
        """Which of the first ``rows`` rows of ``part``, whose payloads are ``payloads``, match."""
        with self._lock:
            matcher = self._of_part.get(part)
            if matcher is None:
                matcher = self._of_part[part] = PartMatcher(payloads)
        return matcher.matching(where, rows)

    def remembered(self) -> list[Remembered]:
        """What is kept for all parts."""
        with self._lock:
            matchers = list(self._of_part.values())
        return [each for matcher in matchers for each in matcher.remembered()]


def _size_bytes(bitmap: Bitmap) -> int:
    return int(bitmap.words.nbytes) + ENTRY_BYTES
