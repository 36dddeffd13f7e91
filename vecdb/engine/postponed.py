"""Segments that are left out of merges for now: damaged ones, and those of a merge that failed.

A merge that failed would fail again at once, so its segments wait, twice as long after each failure in a row. A damaged
segment waits until somebody asks for a merge, or the collection is opened again; it does not keep others from it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from vecdb.engine.state import CollectionState
from vecdb.errors import Corruption, VecdbError
from vecdb.storage.io import DiskFull

PAUSE_S_FIRST = 1.0
PAUSE_S_MAX = 120.0

_FLUSH: Final = 0
"""Stands for the flush that comes before a merge; segments are numbered from 1."""


@dataclass(frozen=True, slots=True)
class _Pause:
    """How long a segment waits, until when on the monotonic clock, and what for."""

    length_s: float
    ends_at: float
    reason: str


class Postponed:
    """The segments of one collection that are left out of merges; all but ``left_out`` for the thread that merges."""

    def __init__(self, state: CollectionState) -> None:
        self._state = state
        self.damaged: set[int] = set()
        self._pauses: dict[int, _Pause] = {}
        self._looked_at = 0.0

    def waiting(self) -> set[int]:
        """The segments that are left out now."""
        self._looked_at = time.monotonic()
        return self.left_out()

    def left_out(self) -> set[int]:
        """The same for whoever does not merge them, on any thread."""
        now = time.monotonic()
        return self.damaged | {number for number, pause in list(self._pauses.items()) if pause.ends_at > now}

    def flush_waits(self) -> bool:
        """Whether a flush on behalf of a merge failed a moment ago."""
        return _FLUSH in self._pauses and self._pauses[_FLUSH].ends_at > time.monotonic()

    def put_off(self, group: tuple[int, ...], error: Exception) -> None:
        """Leave out what made a merge fail, the flush before it where no segment was chosen yet.

        Each failure is counted and logged; a lack of disk once, until the segments are merged.
        """
        damaged = self.leave_out(error) if isinstance(error, Corruption) else None
        if damaged is not None:
            group, first = (damaged,), True
        else:
            first = self._pause(group or (_FLUSH,), type(error).__name__)
        events = self._state.events
        if isinstance(error, DiskFull):
            if first:
                events.report("compaction_waits_for_disk", segments=group, error=error.message)
            return
        events.count("compaction_failed")
        if first:
            file = error.field if isinstance(error, VecdbError) else None
            name = type(error).__name__
            events.log("compaction_failed", logging.ERROR, segments=group, error=name, file=file)

    def leave_out(self, error: Corruption) -> int | None:
        """Leave out the segment that is damaged; its number, if it can be told and was not known before."""
        state = self._state
        state.tell_damage(error)
        name = PurePath(error.field or "").name
        for entry in (segment.reader.entry for segment in state.view.segments):
            number = entry.segment_id
            if number not in self.damaged and (name in entry.file_names() or name == f"segment {number}"):
                self.damaged.add(number)
                return number
        return None

    def merged(self, group: Iterable[int]) -> None:
        """Forget the segments of a merge that succeeded: they are gone."""
        for number in group:
            self._pauses.pop(number, None)

    def flushed(self) -> None:
        """Forget that a flush failed."""
        self.merged((_FLUSH,))

    def next_try_s(self) -> float | None:
        """Seconds until the first pause ends of those that ``waiting`` told last; ``None`` where there is none."""
        ends = [each.ends_at for each in self._pauses.values() if each.ends_at > self._looked_at]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _pause(self, group: tuple[int, ...], reason: str) -> bool:
        """Let segments wait; whether none of them did so for this reason before."""
        known = [self._pauses[number] for number in group if number in self._pauses]
        length_s = min(PAUSE_S_MAX, 2 * max(each.length_s for each in known)) if known else PAUSE_S_FIRST
        pause = _Pause(length_s, time.monotonic() + length_s, reason)
        self._pauses.update(dict.fromkeys(group, pause))
        return all(each.reason != reason for each in known)
