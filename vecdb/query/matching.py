"""Which rows a filter allows, remembered for parts that do not change.

A segment's rows and payloads never change, so the rows that match a filter are the same for ever; only the live rows
differ between views. Entries go away with the segment or memtable they belong to.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from vecdb.bitmap import Bitmap
from vecdb.filter import Filter
from vecdb.query.predicate import PayloadColumns, matches

BITMAPS_PER_PART_MAX = 64
"""Filters remembered for each part, least recently used out first."""


class PartMatcher:
    """Evaluates filters over the payloads of one part."""

    def __init__(self, payloads: Sequence[bytes]) -> None:
        self._columns = PayloadColumns(payloads)
        self._bitmaps: OrderedDict[tuple[Filter, int], Bitmap] = OrderedDict()
        self._lock = threading.Lock()

    def matching(self, where: Filter, rows: int) -> Bitmap:
        """Which of the first ``rows`` rows match."""
        key = (where, rows)
        with self._lock:
            known = self._bitmaps.get(key)
            if known is not None:
                self._bitmaps.move_to_end(key)
                return known
        found = Bitmap.from_bools(matches(where, self._columns.columns(where.paths(), rows), rows))
        with self._lock:
            self._bitmaps[key] = found
            while len(self._bitmaps) > BITMAPS_PER_PART_MAX:
                self._bitmaps.popitem(last=False)
        return found


class Matchers:
    """The matcher of each segment and memtable that was ever filtered and still exists."""

    def __init__(self) -> None:
        self._of_part: WeakKeyDictionary[object, PartMatcher] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def matching(self, part: object, payloads: Sequence[bytes], where: Filter, rows: int) -> Bitmap:
        """Which of the first ``rows`` rows of ``part``, whose payloads are ``payloads``, match."""
        with self._lock:
            matcher = self._of_part.get(part)
            if matcher is None:
                matcher = self._of_part[part] = PartMatcher(payloads)
        return matcher.matching(where, rows)
