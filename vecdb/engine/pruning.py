"""Pruning a log archive: its files that no backup needs any more are removed.

A backup needs the records above its own seqs. What is removed holds none of those of the oldest backup that is to stay
restorable as of any later write; that one tells the seqs, because every collection counts its own.
"""

from __future__ import annotations

from pathlib import Path

from vecdb.archive.manifest import BackupManifest
from vecdb.archive.reading import Archive
from vecdb.engine.log_archive import LogArchive
from vecdb.results.pruning import PrunedCollection, PruneReport
from vecdb.storage.io import FileSystem


def prune_log_archive(archive: str | Path, *, keep_since: str | Path, dry_run: bool = False) -> PruneReport:
    """Remove the archived log files that only backups older than ``keep_since`` need.

    Parameters
    ----------
    archive
        The directory that ``EngineOptions.log_archive`` of the database names; it may be open meanwhile.
    keep_since
        The oldest backup file that is to stay restorable as of any later write. Older ones stay restorable as they are.
    dry_run
        Only say what would be removed.

    Returns
    -------
    PruneReport
        What was removed. The last file of a collection always stays, so that a restore of an older backup is refused
        with the writes that are missing.

    Raises
    ------
    NotFound
        There is no such directory or backup.
    FailedPrecondition
        The directory is no log archive: nothing was removed.
    Corruption
        ``keep_since`` is no backup, or its manifest is damaged; ``verify_backup`` looks at the rest of it.
    """
    fs = FileSystem()
    with Archive.open(keep_since, fs) as backup:
        manifest = backup.manifest
    return prune_with(fs, archive, manifest, dry_run=dry_run)


def prune_with(fs: FileSystem, path: str | Path, manifest: BackupManifest, *, dry_run: bool) -> PruneReport:
    """``prune_log_archive`` through a file system that is given."""
    archive = LogArchive.open_to_prune(path, fs)
    # All is looked at before anything is removed.
    found = [(told, archive.prunable(told.collection_id, told.seq)) for told in manifest.collections]
    if not dry_run:
        for told, prunable in found:
            if prunable.names:
                archive.remove(told.collection_id, prunable.names)
    collections = tuple(
        PrunedCollection(told.name, told.seq, len(each.names), each.size_bytes, each.kept_seq) for told, each in found
    )
    known = {told.collection_id for told in manifest.collections}
    return PruneReport(
        str(archive.path),
        collections,
        sum(each.files for each in collections),
        sum(each.size_bytes for each in collections),
        sum(each not in known for each in archive.collections()),
    )
