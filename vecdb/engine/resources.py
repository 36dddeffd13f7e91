"""What the collections of one database share and may run out of: disk held back, and memory for rows.

Every collection counts its rows in memory here. Once all of them together reach the limit, the largest is written out
first, whichever collection asks for room; nothing is refused while something is being written out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from vecdb.engine.memory_budget import MemoryBudget
from vecdb.errors import FailedPrecondition
from vecdb.storage.reserve import Reserve


@dataclass(slots=True)
class _Member:
    """The rows in memory of one collection.

    Attributes
    ----------
    asked
        What tells when it has begun to write out what is being filled, once it was asked to.
    failing
        Whether it cannot write out anything.
    notes
        How often it told what it has.
    """

    write_out: Callable[[], Future[None]]
    filling_bytes: int = 0
    waiting_bytes: int = 0
    asked: Future[None] | None = None
    failing: bool = False
    notes: int = 0


class RowMemory:
    """Rows in memory, of all open collections together.

    Parameters
    ----------
    size_bytes_max
        How much they may take.
    """

    def __init__(self, size_bytes_max: int) -> None:
        self.size_bytes_max = size_bytes_max
        self.size_bytes = 0
        self._members: dict[str, _Member] = {}
        self._lock = threading.Lock()

    def join(self, collection_id: str, write_out: Callable[[], Future[None]]) -> None:
        """Count a collection.

        Parameters
        ----------
        write_out
            Makes it begin to write its rows into a segment, waits for nothing, and tells when that has begun.
        """
        with self._lock:
            self._members[collection_id] = _Member(write_out)

    def leave(self, collection_id: str) -> None:
        """Count a collection no more."""
        with self._lock:
            member = self._members.pop(collection_id, None)
            if member is not None:
                self.size_bytes -= member.filling_bytes + member.waiting_bytes

    def note(self, collection_id: str, filling_bytes: int, waiting_bytes: int, *, failing: bool) -> None:
        """Hear what a collection has: rows being filled in, rows that wait to be written out, and whether they can."""
        with self._lock:
            member = self._members.get(collection_id)
            if member is None:
                return
            self.size_bytes += filling_bytes + waiting_bytes - member.filling_bytes - member.waiting_bytes
            member.filling_bytes, member.waiting_bytes, member.failing = filling_bytes, waiting_bytes, failing
            member.asked = None
            member.notes += 1

    def fits(self, size_bytes: int) -> bool:
        """Whether so much more is allowed."""
        return self.size_bytes + size_bytes <= self.size_bytes_max

    def shrink(self) -> bool:
        """See to it that something is written out; whether something is, or will be."""
        with self._lock:
            able = [each for each in self._members.values() if not each.failing]
            if any(each.waiting_bytes or (each.asked is not None and not each.asked.done()) for each in able):
                return True
            # One that was asked, and did nothing, cannot.
            filled = [each for each in able if each.filling_bytes and each.asked is None]
            if not filled:
                return False
            largest = max(filled, key=lambda each: each.filling_bytes)
            notes = largest.notes
        # Without the lock: this may write to the log of that collection, which then notes here what it has.
        try:
            asked = largest.write_out()
        except FailedPrecondition:
            # It is being closed, and gives its memory back by that.
            with self._lock:
                largest.failing = True
            return True
        with self._lock:
            if largest.notes == notes:
                largest.asked = asked
        return True


@dataclass(frozen=True, slots=True)
class Resources:
    """What an open database gives to its collections."""

    reserve: Reserve
    memory: RowMemory
    budget: MemoryBudget
