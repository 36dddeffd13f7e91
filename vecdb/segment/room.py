"""What the segments of a database ask about the memory that they share, while a budget is set for it."""

from __future__ import annotations

from typing import Protocol


class Room(Protocol):
    """A budget of memory, as a segment sees it. Safe to use from many threads.

    Attributes
    ----------
    fits
        Whether all files may be in memory at once. Where they may not, float32 vectors are read into windows.
    window_bytes
        How much is read at once then.
    """

    fits: bool
    window_bytes: int

    def settle(self) -> None:
        """Give memory back if more is taken than the budget allows; microseconds where it is not."""

    def note_built(self) -> None:
        """Hear that something was computed from files and is kept."""
