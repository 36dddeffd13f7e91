"""The report of pruning a log archive: what was removed, or would be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PrunedCollection:
    """What was removed from a log archive of one collection, or would be.

    Attributes
    ----------
    seq
        The write as of which the backup has the collection.
    files, size_bytes
        The removed files.
    kept_seq
        The first write that is still in the archive; 0 where it has none of this collection.
    """

    name: str
    seq: int
    files: int
    size_bytes: int
    kept_seq: int


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What was removed from a log archive, or would be.

    Attributes
    ----------
    path
        The archive.
    collections
        Those of the backup.
    files, size_bytes
        All removed files.
    others
        Collections of the archive that are not in the backup: newer ones, dropped ones and those of other databases.
        Nothing of them was removed.
    """

    path: str
    collections: Sequence[PrunedCollection]
    files: int
    size_bytes: int
    others: int
