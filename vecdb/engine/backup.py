"""Taking a backup: the bytes of an archive, collection after collection, while writes go on.

Each collection is one point in time: it is flushed, frozen for as long as its files are read, and let go. No byte is
handed out that was not verified, so that a damaged file ends the backup and never becomes part of one. The manifest
comes last, because it tells the SHA-256 of what was read; an archive without it is no backup.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from vecdb.archive.manifest import (
    FILES_MAX,
    BackupCollection,
    BackupFile,
    BackupManifest,
    EarlierBackup,
    digest,
    hexadecimal,
)
from vecdb.archive.reading import digest_line
from vecdb.archive.tar import (
    END,
    MANIFEST,
    MANIFEST_DIGEST,
    METADATA,
    PIECE_BYTES,
    collection_member,
    member_header,
    padding,
)
from vecdb.archive.target import Pieces
from vecdb.bitmap import LiveRows
from vecdb.engine.catalogue import CatalogueEntry
from vecdb.engine.log_record import AppliedRequest
from vecdb.engine.manifest import Manifest
from vecdb.engine.marker import FORMAT_VERSION
from vecdb.engine.metadata_copy import encode_metadata, file_refs
from vecdb.errors import Corruption, InvalidArgument, NotFound, ResourceExhausted
from vecdb.storage.array_copy import verified_pieces
from vecdb.storage.array_file import FileRef
from vecdb.storage.directory import MmapDirectory
from vecdb.version import __version__

JOINED_BYTES = 1 << 20
"""Most pieces are small; each that is handed out is written by a call, or sent as a message."""


@dataclass(frozen=True, slots=True)
class FrozenCollection:
    """One commit of a collection, whose files stay for as long as it is held.

    Attributes
    ----------
    check_open
        Raises Cancelled once the collection is to be closed.
    """

    directory: MmapDirectory
    manifest: Manifest
    live: Mapping[int, LiveRows]
    requests: tuple[AppliedRequest, ...]
    check_open: Callable[[], None]


class _Earlier:
    """What the backup before holds, and where: a full backup has none before it."""

    def __init__(self, manifest_bytes: bytes, database_id: str) -> None:
        self.since = ""
        self._files: dict[tuple[str, str], tuple[BackupFile, EarlierBackup]] = {}
        self._needed: dict[EarlierBackup, int] = {}
        if not manifest_bytes:
            return
        try:
            manifest = BackupManifest.decode(manifest_bytes, "since")
        except Corruption as error:
            raise InvalidArgument(error.message, field="since") from error
        if manifest.database_id != database_id:
            raise InvalidArgument(
                f"since is a backup of the database {manifest.database_id}, this is {database_id}: take a full one",
                field="since",
                limit=database_id,
                value=manifest.database_id,
            )
        if manifest.database_format != FORMAT_VERSION:
            raise InvalidArgument(
                f"since has database format {manifest.database_format}, this is {FORMAT_VERSION}: take a full one",
                field="since",
                limit=FORMAT_VERSION,
                value=manifest.database_format,
            )
        self.since = digest(manifest_bytes)
        itself = EarlierBackup(self.since, manifest.created_us)
        for collection in manifest.collections:
            for file in collection.files[:-1]:
                holder = itself if file.stored_in is None else manifest.needs[file.stored_in]
                self._files[(collection.collection_id, file.name)] = (file, holder)

    @property
    def needs(self) -> tuple[EarlierBackup, ...]:
        """The backups that were referred to."""
        return tuple(self._needed)

    def reference(self, collection_id: str, ref: FileRef) -> BackupFile | None:
        """The file as an entry that refers to an earlier backup, if one holds it."""
        file, holder = self._files.get((collection_id, ref.name), (None, None))
        if file is None or holder is None:
            return None
        same = (ref.size_bytes, hexadecimal(ref.file_id), hexadecimal(ref.checksum))
        if (file.size_bytes, file.file_id, file.checksum) != same:
            return None
        number = self._needed.setdefault(holder, len(self._needed))
        return BackupFile(file.name, file.size_bytes, file.sha256, file.file_id, file.checksum, number)


def backup_pieces(
    database_id: str,
    sources: Iterable[tuple[CatalogueEntry, AbstractContextManager[FrozenCollection]]],
    since_manifest: bytes,
) -> Pieces:
    """The bytes of a backup, in pieces of about ``JOINED_BYTES``; it returns those of its manifest.

    Parameters
    ----------
    sources
        The collections, each with what freezes it; one that was dropped meanwhile is left out.
    since_manifest
        The manifest of the backup before; empty for a full one.
    """
    joined = bytearray()
    pieces = _pieces(database_id, sources, since_manifest)
    try:
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                yield bytes(joined)
                manifest: bytes = end.value
                return manifest
            joined += piece
            if len(joined) >= JOINED_BYTES:
                yield bytes(joined)
                joined.clear()
    finally:
        pieces.close()


def _pieces(
    database_id: str,
    sources: Iterable[tuple[CatalogueEntry, AbstractContextManager[FrozenCollection]]],
    since_manifest: bytes,
) -> Pieces:
    created_us = time.time_ns() // 1000
    created_s = created_us // 1_000_000
    earlier = _Earlier(since_manifest, database_id)
    collections: list[BackupCollection] = []
    files = 0
    for entry, source in sources:
        with ExitStack() as stack:
            try:
                frozen = stack.enter_context(source)
            except NotFound:
                continue
            collection = yield from _collection_pieces(entry, frozen, earlier, created_s)
        collections.append(collection)
        files += len(collection.files)
        if files > FILES_MAX:
            raise ResourceExhausted(
                f"the database has more than {FILES_MAX} files, which one backup cannot hold",
                field="files",
                limit=FILES_MAX,
                value=files,
            )
    manifest = BackupManifest(
        created_us, __version__, FORMAT_VERSION, database_id, earlier.since, earlier.needs, tuple(collections)
    ).encode()
    yield from _member(MANIFEST, manifest, created_s)
    yield from _member(MANIFEST_DIGEST, digest_line(manifest), created_s)
    yield END
    return manifest


def _collection_pieces(
    entry: CatalogueEntry, frozen: FrozenCollection, earlier: _Earlier, created_s: int
) -> Generator[bytes, None, BackupCollection]:
    taken_us = time.time_ns() // 1000
    files: list[BackupFile] = []
    for ref in file_refs(frozen.manifest).values():
        file = earlier.reference(entry.collection_id, ref)
        if file is None:
            file = yield from _file_pieces(entry, frozen, ref, created_s)
        files.append(file)
    metadata = encode_metadata(frozen.manifest, frozen.live, frozen.requests)
    yield from _member(collection_member(entry.collection_id, METADATA), metadata, created_s)
    files.append(BackupFile(METADATA, len(metadata), digest(metadata)))
    points = sum(rows.count() for rows in frozen.live.values())
    seq = frozen.manifest.flushed_seq
    return BackupCollection(entry.name, entry.collection_id, entry.created_us, taken_us, seq, points, tuple(files))


def _file_pieces(
    entry: CatalogueEntry, frozen: FrozenCollection, ref: FileRef, created_s: int
) -> Generator[bytes, None, BackupFile]:
    found = hashlib.sha256()
    yield member_header(collection_member(entry.collection_id, ref.name), ref.size_bytes, created_s)
    for piece in verified_pieces(frozen.directory, ref):
        frozen.check_open()
        found.update(piece)
        yield piece
    yield padding(ref.size_bytes)
    return BackupFile(ref.name, ref.size_bytes, found.hexdigest(), hexadecimal(ref.file_id), hexadecimal(ref.checksum))


def _member(name: str, content: bytes, created_s: int) -> Iterable[bytes]:
    yield member_header(name, len(content), created_s)
    for at in range(0, len(content), PIECE_BYTES):
        yield content[at : at + PIECE_BYTES]
    yield padding(len(content))
