"""The report of a restore: the database that was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestoredCollection:
    """One collection of a restored database.

    Attributes
    ----------
    seq
        The last write that it holds.
    replayed
        Writes that came from archived log files, on top of the backup.
    """

    name: str
    seq: int
    points: int
    replayed: int = 0


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore made.

    Attributes
    ----------
    path
        The directory.
    files, size_bytes
        Files of segments that were written and verified.
    """

    path: str
    collections: Sequence[RestoredCollection]
    files: int
    size_bytes: int
