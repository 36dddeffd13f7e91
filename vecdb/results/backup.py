"""The report of a backup: what it holds, and which earlier ones it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CollectionBackup:
    """One collection in a backup.

    Attributes
    ----------
    collection_id
        What it was known by when the backup was taken; a restored collection has another.
    taken_us
        When, in microseconds since 1970-01-01 UTC.
    seq
        The last write that the backup holds: this one and every one before, none after.
    points
        Live points as of it.
    """

    name: str
    collection_id: str
    taken_us: int
    seq: int
    points: int


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a backup holds.

    Attributes
    ----------
    created_us
        When it was begun, in microseconds since 1970-01-01 UTC.
    collections
        Each as of one write; they were taken one after the other.
    files, stored_files
        Files that a restore makes; those of them that this backup holds itself. The rest is in ``needs``.
    size_bytes
        Of the backup itself.
    manifest_sha256
        What later backups know it by.
    needs
        The same of the earlier backups without which it cannot be restored; empty for a full one.
    """

    created_us: int
    collections: Sequence[CollectionBackup]
    files: int
    stored_files: int
    size_bytes: int
    manifest_sha256: str
    needs: Sequence[str]
