"""Restoring: a database made of backup files, in a directory that gets its name only when all of it is verified.

It is built beside its place, in a directory that no command takes for a database, and put in place by one rename. What
a restore that was killed leaves there is removed by the next one. A backup is taken for hostile: nothing of it becomes
a path, and nothing is believed that its bytes do not bear out.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from vecdb.archive.manifest import BackupCollection, BackupFile, BackupManifest, report_of
from vecdb.archive.reading import Archive
from vecdb.archive.target import Progress
from vecdb.engine.catalogue import Catalogue
from vecdb.engine.database import choose_kernels
from vecdb.engine.log_archive import LogArchive
from vecdb.engine.marker import FORMAT_VERSION, MARKER, write_marker
from vecdb.engine.metadata_copy import METADATA_BYTES_MAX, CollectionMetadata, decode_metadata, file_refs
from vecdb.engine.options import EngineOptions
from vecdb.engine.point_in_time import Replay, Until
from vecdb.engine.recovery import write_metadata
from vecdb.engine.root import CATALOGUE, COLLECTIONS
from vecdb.engine.state import LOG
from vecdb.errors import Corruption, FailedPrecondition, InvalidArgument, NotFound, VecdbError
from vecdb.results.backup import BackupReport
from vecdb.results.restore import RestoredCollection, RestoreReport
from vecdb.storage.array_copy import verified_pieces
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem, translating
from vecdb.storage.lock import LOCK_NAME, DirectoryLock

Sources = str | Path | Sequence[str | Path]


def restore(
    source: Sources,
    path: str | Path,
    *,
    log_archive: str | Path | None = None,
    until_seq: int | None = None,
    collection: str | None = None,
    until_time: datetime | None = None,
    progress: Progress | None = None,
    options: EngineOptions | None = None,
) -> RestoreReport:
    """Make a database of a backup; with archived log files, as of any later write.

    Parameters
    ----------
    source
        The backup file; for an incremental one a list, with the earlier backups that it needs before it.
    path
        Where the database is to be: a missing or empty directory.
    log_archive
        The directory that ``EngineOptions.log_archive`` of the database named: what it holds beyond the backup is
        restored too, all of it or up to ``until_seq`` or ``until_time``.
    until_seq, collection
        Up to and with this write of this collection; the others are restored as the backup has them. The collection
        need not be named where there is one only.
    until_time
        Up to the last write that was accepted at this moment or before, in all collections; with its offset from UTC.
    progress
        Called with the number of bytes written since it was last called.
    options
        How memory and kernels are used while log files are replayed.

    Returns
    -------
    RestoreReport
        What was restored. The database has an id of its own, and so have its collections: what was written after the
        backup to the one that it was taken of is no part of it.

    Raises
    ------
    Corruption
        A file is damaged, was interrupted, or is no backup; or records are missing from the log archive. Nothing is
        left.
    FailedPrecondition
        ``path`` is not empty, the backup is of another format version, or the log archive ends before ``until_seq``, or
        holds another history than the backup's: the database was put back to an earlier state and written to again.
    InvalidArgument
        The backup holds later writes than were asked for.
    NotFound
        There is no such file, or a backup that it needs was not given: it is named.
    """
    if log_archive is None and (until_seq is not None or until_time is not None or collection is not None):
        raise InvalidArgument("until_seq and until_time need the log archive", field="log_archive")
    fs = FileSystem()

    def replay_for(manifest: BackupManifest) -> Replay | None:
        if log_archive is None:
            return None
        until = Until.of(manifest, until_seq, collection, until_time)
        chosen = options or EngineOptions()
        archive = LogArchive.open(log_archive, fs, create=False)
        return Replay(archive, until, chosen, choose_kernels(chosen.kernels))

    return restore_with(fs, source, path, progress=progress, replay_for=replay_for)


def verify_backup(source: Sources, *, progress: Progress | None = None) -> BackupReport:
    """Read every byte of a backup, and of those that it needs, as a restore would; what it holds.

    Raises
    ------
    Corruption, FailedPrecondition, NotFound
        As ``restore``.
    """
    with _Chain.open(source, FileSystem()) as chain:
        for collection in chain.manifest.collections:
            chain.metadata(collection)
            for file in collection.files[:-1]:
                for piece in chain.content(collection, file):
                    if progress is not None:
                        progress(len(piece))
        return report_of(chain.tip.manifest_bytes, chain.tip.size_bytes)


class _Chain:
    """A backup and those that it needs."""

    def __init__(self, archives: Sequence[Archive]) -> None:
        self.tip = archives[-1]
        self.manifest = self.tip.manifest
        known = {each.manifest_sha256: each for each in archives}
        if self.manifest.database_format != FORMAT_VERSION:
            raise FailedPrecondition(
                f"{self.tip.path} is of a database of format version {self.manifest.database_format}; this vecdb reads "
                f"{FORMAT_VERSION}",
                field="format_version",
                limit=FORMAT_VERSION,
                value=self.manifest.database_format,
            )
        self._needed: list[tuple[Archive, dict[tuple[str, str], BackupFile]]] = []
        for need in self.manifest.needs:
            archive = known.get(need.manifest_sha256)
            if archive is None:
                raise NotFound(
                    f"{self.tip.path} needs an earlier backup, taken at {need.created}, "
                    f"whose manifest has the SHA-256 {need.manifest_sha256}: give that file too, before this one",
                    field="source",
                    value=need.manifest_sha256,
                )
            held = {
                (collection.collection_id, file.name): file
                for collection in archive.manifest.collections
                for file in collection.files
            }
            self._needed.append((archive, held))

    @classmethod
    @contextlib.contextmanager
    def open(cls, source: Sources, fs: FileSystem) -> Iterator[_Chain]:
        """Open the files."""
        paths = [source] if isinstance(source, str | Path) else list(source)
        if not paths:
            raise InvalidArgument("name at least one backup file", field="source", limit="1 or more")
        with ExitStack() as stack:
            yield cls([stack.enter_context(Archive.open(path, fs)) for path in paths])

    def content(self, collection: BackupCollection, file: BackupFile) -> Iterator[bytes]:
        """The content of a file, from whichever backup holds it; verified once it is exhausted."""
        if file.stored_in is None:
            return self.tip.content(collection, file)
        archive, held = self._needed[file.stored_in]
        stored = held.get((collection.collection_id, file.name))
        if stored is None or stored != replace(file, stored_in=None):
            raise Corruption(
                f"{archive.path} does not hold {file.name} of {collection.name!r} as {self.tip.path} says",
                field=str(archive.path),
                value=file.name,
            )
        return archive.content(collection, stored)

    def metadata(self, collection: BackupCollection) -> CollectionMetadata:
        """What the collection consisted of, checked against the manifest."""
        file = collection.files[-1]
        where = str(self.tip.path)
        if file.size_bytes > METADATA_BYTES_MAX:
            raise Corruption(
                f"{where}: the metadata of {collection.name!r} has {file.size_bytes} bytes",
                field=where,
                limit=METADATA_BYTES_MAX,
                value=file.size_bytes,
            )
        return decode_metadata(b"".join(self.content(collection, file)), collection, where)


def restore_with(
    fs: FileSystem,
    source: Sources,
    path: str | Path,
    *,
    progress: Progress | None = None,
    replay_for: Callable[[BackupManifest], Replay | None] = lambda _: None,
) -> RestoreReport:
    """``restore`` through a file system that is given; ``replay_for`` gives what follows the backup."""
    with _Chain.open(source, fs) as chain:
        replay = replay_for(chain.manifest)
        with _Building.begin(Path(path), fs) as building:
            restoring = _Restoring(chain, building.root, replay, progress or (lambda _: None))
            report = restoring.run(str(building.target))
            building.put_in_place()
        return report


class _Building:
    """The directory in which a database is built, beside its place."""

    def __init__(self, target: Path, root: MmapDirectory, lock: DirectoryLock) -> None:
        self.target = target
        self.root = root
        self._lock = lock

    @classmethod
    @contextlib.contextmanager
    def begin(cls, path: Path, fs: FileSystem) -> Iterator[_Building]:
        """An empty directory to build in; removed again unless it was put in place."""
        with translating(path, "read"):
            target = fs.resolved(path)
            _check_free(fs, target)
            if not fs.is_directory(target.parent):
                raise NotFound(f"{target.parent} is no directory", field="path", value=path)
        root = MmapDirectory.open(target.with_name(f".{target.name}.vecdb-restore"), fs, create=True)
        if not _is_leftover(root):
            raise FailedPrecondition(f"{root.path} is in the way: it is no restore's", field="path", value=root.path)
        building = cls(target, root, DirectoryLock.acquire(root))
        try:
            building._empty()
            yield building
        except BaseException:
            building._remove()
            raise
        finally:
            building._lock.release()

    def put_in_place(self) -> None:
        """Give the directory its name, durably."""
        fs = self.root.fs
        with translating(self.target, "write"):
            _check_free(fs, self.target)
            fs.rename(self.root.path, self.target)
            fs.fsync_directory(self.target.parent)

    def _empty(self) -> None:
        """Remove what a restore left that was killed."""
        for name in self.root.children():
            self.root.remove_child(name)
        self.root.remove_leftovers()
        for name in set(self.root.names()) - {LOCK_NAME}:
            self.root.unlink(name)

    def _remove(self) -> None:
        """Leave nothing; what cannot be removed is no database, and the next restore removes it."""
        fs = self.root.fs
        with contextlib.suppress(VecdbError, OSError):
            if not fs.is_directory(self.root.path):
                return
            self._empty()
            self.root.unlink(LOCK_NAME)
            fs.remove_directory(self.root.path)
            fs.fsync_directory(self.target.parent)


def _check_free(fs: FileSystem, target: Path) -> None:
    if not target.name:
        raise FailedPrecondition(f"{target} is not empty", field="path", value=target)
    if fs.is_directory(target):
        if fs.names(target):
            raise FailedPrecondition(f"{target} is not empty", field="path", limit="an empty directory", value=target)
    elif fs.size_of(target) is not None:
        raise FailedPrecondition(f"{target} is not a directory", field="path", value=target)


def _is_leftover(root: MmapDirectory) -> bool:
    """Whether a directory holds nothing but what a restore puts there."""
    names = {name.removesuffix(".tmp") for name, is_directory in root.fs.names(root.path) if not is_directory}
    return names <= {LOCK_NAME, MARKER} and set(root.children()) <= {CATALOGUE, COLLECTIONS}


class _Restoring:
    """Writes a database into an empty directory."""

    def __init__(self, chain: _Chain, root: MmapDirectory, replay: Replay | None, progress: Progress) -> None:
        self._chain = chain
        self._root = root
        self._replay = replay
        self._progress = progress
        self._files = 0
        self._size_bytes = 0

    def run(self, path: str) -> RestoreReport:
        collections = self._root.child(COLLECTIONS, create=True)
        restored: list[RestoredCollection] = []
        catalogue = Catalogue.open(self._root.child(CATALOGUE, create=True), create=True)
        try:
            for told in self._chain.manifest.collections:
                collection_id = secrets.token_hex(8)
                restored.append(self._restore(told, collections.child(collection_id, create=True), collection_id))
                catalogue.add(told.name, collection_id, told.created_us)
        finally:
            catalogue.close()
        # Last, as in a new database: a directory with a marker is whole.
        write_marker(self._root)
        return RestoreReport(path, tuple(restored), self._files, self._size_bytes)

    def _restore(self, told: BackupCollection, directory: MmapDirectory, collection_id: str) -> RestoredCollection:
        metadata = self._chain.metadata(told)
        for file in told.files[:-1]:
            with directory.create(file.name) as writer:
                for piece in self._chain.content(told, file):
                    writer.write(piece)
                    self._progress(len(piece))
                self._size_bytes += writer.finish()
            self._files += 1
        for ref in file_refs(metadata.manifest).values():
            # As it is on the disk now, by its own checksums.
            for _ in verified_pieces(directory, ref):
                pass
        directory.sync()
        directory.child(LOG, create=True)
        manifest = replace(metadata.manifest, collection_id=collection_id)
        write_metadata(directory, manifest, metadata.live, metadata.requests)
        if self._replay is not None:
            return self._replay.run(told, manifest.log_file_id, directory, collection_id)
        return RestoredCollection(told.name, told.seq, told.points)
