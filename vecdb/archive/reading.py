"""A backup file opened for reading: its members found, its manifest checked; content is handed out with its SHA-256.

An archive without a manifest at its end was interrupted; one whose members are not exactly those that its manifest
lists, in that order, was tampered with. Both are refused before any content is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from vecdb.archive.manifest import MANIFEST_BYTES_MAX, BackupCollection, BackupFile, BackupManifest, digest
from vecdb.archive.tar import MANIFEST, MANIFEST_DIGEST, Member, collection_member, read_content, read_members
from vecdb.errors import Corruption, NotFound
from vecdb.storage.file_reader import FileReader
from vecdb.storage.io import FileSystem, translating


class Archive:
    """An open backup file; a context manager that closes it.

    Attributes
    ----------
    path
        Where it is.
    manifest
        What it says it holds.
    manifest_sha256
        What later backups know it by.
    size_bytes
        Of the file.
    """

    def __init__(
        self, reader: FileReader, members: dict[str, Member], manifest: BackupManifest, manifest_bytes: bytes
    ) -> None:
        self.path = reader.path
        self.size_bytes = reader.size_bytes
        self.manifest = manifest
        self.manifest_bytes = manifest_bytes
        self.manifest_sha256 = digest(manifest_bytes)
        self._reader = reader
        self._members = members

    @classmethod
    def open(cls, path: str | Path, fs: FileSystem) -> Self:
        """Open a backup file.

        Raises
        ------
        NotFound
            There is no such file.
        Corruption
            It is no backup, or a damaged or an interrupted one.
        FailedPrecondition
            It is of another format version.
        """
        where = Path(path)
        with translating(where, "read"):
            where = fs.resolved(where)
            if not fs.is_file(where):
                raise NotFound(f"{path} is no file", field="source", value=path)
        reader = FileReader(fs, where)
        try:
            members = read_members(reader)
            data = _manifest_bytes(reader, members)
            manifest = BackupManifest.decode(data, str(where))
            listed = [name for name, _ in manifest.members()]
            if listed != list(members)[:-2]:
                raise Corruption(f"{where} does not hold the files that its manifest lists", field=str(where))
            return cls(reader, members, manifest, data)
        except BaseException:
            reader.close()
            raise

    def content(self, collection: BackupCollection, file: BackupFile) -> Iterator[bytes]:
        """The content of a file that is stored here, piece by piece; only after the last one it is known to be right.

        Raises
        ------
        Corruption
            It is not what the manifest says; raised at the end, or before.
        """
        name = collection_member(collection.collection_id, file.name)
        member = self._members[name]
        if member.size_bytes != file.size_bytes:
            raise Corruption(
                f"{self.path}: {name} has {member.size_bytes} bytes, the manifest says {file.size_bytes}",
                field=str(self.path),
                limit=file.size_bytes,
                value=member.size_bytes,
            )
        found = hashlib.sha256()
        for piece in read_content(self._reader, member):
            found.update(piece)
            yield piece
        if found.hexdigest() != file.sha256:
            raise Corruption(
                f"{self.path}: {name} is damaged: its SHA-256 is another", field=str(self.path), value=name
            )

    def close(self) -> None:
        """Give the descriptor back."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def read_manifest_bytes(path: str | Path, fs: FileSystem | None = None) -> bytes:
    """The manifest of a backup file as it is stored; raises as ``Archive.open`` does."""
    with Archive.open(path, fs or FileSystem()) as archive:
        return archive.manifest_bytes


def digest_line(manifest_bytes: bytes) -> bytes:
    """The last member: the SHA-256 of the manifest, as ``sha256sum`` writes it."""
    return f"{digest(manifest_bytes)}  {MANIFEST}\n".encode()


def _manifest_bytes(reader: FileReader, members: dict[str, Member]) -> bytes:
    where = str(reader.path)
    if list(members)[-2:] != [MANIFEST, MANIFEST_DIGEST]:
        raise Corruption(f"{where} does not end in a manifest: the backup was interrupted, or is none", field=where)
    if members[MANIFEST].size_bytes > MANIFEST_BYTES_MAX:
        raise Corruption(
            f"{where} has a manifest of {members[MANIFEST].size_bytes} bytes", field=where, limit=MANIFEST_BYTES_MAX
        )
    data = b"".join(read_content(reader, members[MANIFEST]))
    expected = digest_line(data)
    told = members[MANIFEST_DIGEST]
    if told.size_bytes != len(expected) or b"".join(read_content(reader, told)) != expected:
        raise Corruption(f"{where}: the manifest is damaged: its SHA-256 is another", field=where, value=MANIFEST)
    return data
