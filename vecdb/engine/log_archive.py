"""The log archive: closed log files, kept before the log forgets them, to restore a collection as of any write.

One directory a collection, named by its id. A file bears the seqs of its first and last record; it is copied, synced
and renamed before the log trims its own. A name that is there leads to a whole file, and is never replaced. The last
file of a collection is never removed, so that records that are missing before it are always noticed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vecdb.errors import Corruption, FailedPrecondition, NotFound
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.file_reader import FileReader
from vecdb.storage.io import FileSystem, translating
from vecdb.storage.log_format import HEADER_BYTES, LogHeader
from vecdb.storage.log_scan import LogScan

PIECE_BYTES: Final = 1 << 20
_DIRECTORY: Final = re.compile(r"[0-9a-f]{16}")
_NAME: Final = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})-([0-9a-f]{8})\.log")


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the name of an archived file says."""

    first_seq: int
    last_seq: int
    ordinal: int

    @property
    def name(self) -> str:
        return f"{self.first_seq:016x}-{self.last_seq:016x}-{self.ordinal:08x}.log"

    @property
    def name_in_log(self) -> str:
        return f"{self.first_seq:016x}-{self.ordinal:08x}.log"

    @classmethod
    def parse(cls, name: str) -> _Kept | None:
        found = _NAME.fullmatch(name)
        return None if found is None else cls(int(found[1], 16), int(found[2], 16), int(found[3], 16))


@dataclass(frozen=True, slots=True)
class Prunable:
    """Archived files of a collection that may be removed, oldest first.

    Attributes
    ----------
    names, size_bytes
        Of the files, and of all of them together.
    kept_seq
        The first record of those that stay; 0 where the archive has none of the collection.
    """

    names: tuple[str, ...] = ()
    size_bytes: int = 0
    kept_seq: int = 0


class LogArchive:
    """An archive directory, which may be that of several databases: ids of collections are never used twice."""

    def __init__(self, directory: MmapDirectory) -> None:
        self._directory = directory

    @classmethod
    def open(cls, path: str | Path, fs: FileSystem, *, create: bool = True) -> LogArchive:
        """The archive in a directory, made if it is missing and ``create`` is set.

        Raises
        ------
        NotFound
            The directory, or the one that it is to be made in, is missing.
        FailedPrecondition
            It is no directory, or may not be written.
        """
        where = Path(path)
        if create and not fs.is_directory(fs.absolute(where).parent):
            raise NotFound(f"{where.parent} is no directory", field="log_archive", value=where)
        return cls(MmapDirectory.open(where, fs, create=create, read_only=not create))

    @classmethod
    def open_to_prune(cls, path: str | Path, fs: FileSystem) -> LogArchive:
        """An archive to remove files from.

        Raises
        ------
        NotFound
            The directory is missing.
        FailedPrecondition
            It is no directory, or no log archive.
        """
        directory = MmapDirectory.open(Path(path), fs, create=False)
        archive = cls(directory)
        if directory.names() or (directory.children() and not archive.collections()):
            raise _no_archive(directory.path)
        return archive

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._directory.path

    def collections(self) -> list[str]:
        """The ids of the collections that it has files of."""
        return [each for each in self._directory.children() if _DIRECTORY.fullmatch(each)]

    def keep(self, collection_id: str, log: MmapDirectory, name: str) -> None:
        """Copy the closed log file ``name``, durably; without effect where it is kept already, or holds no record.

        Raises
        ------
        Corruption
            The file is damaged.
        FailedPrecondition
            The archive holds other records of these seqs: a copy of the database was written to.
        ResourceExhausted, Unavailable
            The archive could not be written.
        """
        with log.open_reader(name) as reader:
            header = _header(reader, name)
            scan = LogScan(reader, header)
            for _ in scan.records(None):
                pass
            if scan.last_seq < header.first_seq:
                return
            kept = _Kept(header.first_seq, scan.last_seq, header.ordinal)
            directory = self._directory.child(collection_id, create=True)
            if directory.exists(kept.name):
                _require_same(directory, kept, header)
                return
            with directory.create(kept.name) as writer:
                for at in range(0, scan.offset, PIECE_BYTES):
                    writer.write(reader.pread(min(PIECE_BYTES, scan.offset - at), at))
                if not scan.closed:
                    # A file without an end record is as long as it was made, with nothing behind its records.
                    for at in range(scan.offset, header.allocated_bytes, PIECE_BYTES):
                        writer.write(bytes(min(PIECE_BYTES, header.allocated_bytes - at)))
                writer.finish()
            directory.sync()

    def records(self, collection_id: str, after_seq: int) -> Iterator[tuple[int, bytes]]:
        """(seq, payload) of the kept records with a seq above ``after_seq``, in order and without a gap.

        Raises
        ------
        Corruption
            Records are missing, named by their seqs, or damaged.
        """
        if collection_id not in self._directory.children():
            return
        directory = self._directory.child(collection_id, create=False)
        next_seq = after_seq + 1
        for kept in _in_order(directory):
            if kept.last_seq < next_seq:
                continue
            if kept.first_seq > next_seq:
                raise Corruption(
                    f"{directory.path} lacks the records {next_seq} to {kept.first_seq - 1}: its next file is "
                    f"{kept.name}",
                    field=str(directory.path),
                    value=next_seq,
                )
            with directory.open_reader(kept.name) as reader:
                scan = LogScan(reader, _header(reader, kept.name_in_log))
                for seq, payload in scan.records(None):
                    if seq >= next_seq:
                        yield seq, payload
                        next_seq = seq + 1
                if scan.last_seq != kept.last_seq:
                    raise Corruption(
                        f"{reader.path} ends with the record {scan.last_seq}, not {kept.last_seq}: it is damaged at "
                        f"offset {scan.offset}",
                        field=str(reader.path),
                        limit=kept.last_seq,
                        value=scan.offset,
                    )

    def prunable(self, collection_id: str, until_seq: int) -> Prunable:
        """The files of a collection that hold no record above ``until_seq``, without its last one.

        Raises
        ------
        FailedPrecondition
            Something else is among the files: this is no log archive.
        """
        if collection_id not in self.collections():
            return Prunable()
        directory = self._directory.child(collection_id, create=False)
        found = _in_order(directory)
        if len(found) != len(directory.names()) or directory.children():
            raise _no_archive(directory.path)
        if not found:
            return Prunable()
        gone = [each for each in found[:-1] if each.last_seq <= until_seq]
        names = tuple(each.name for each in gone)
        with translating(directory.path, "read"):
            size_bytes = sum(directory.fs.size_of(directory.path_of(name)) or 0 for name in names)
        return Prunable(names, size_bytes, min(each.first_seq for each in found if each not in gone))

    def remove(self, collection_id: str, names: Iterable[str]) -> None:
        """Remove files, durably; those that are left when this is interrupted are still without a gap.

        Raises
        ------
        FailedPrecondition, Unavailable
            The system refused.
        """
        directory = self._directory.child(collection_id, create=False)
        for name in names:
            directory.unlink(name)
        directory.sync()


def _no_archive(path: Path) -> FailedPrecondition:
    return FailedPrecondition(f"{path} is no log archive: other files are in it", field="log_archive", value=path)


def _in_order(directory: MmapDirectory) -> list[_Kept]:
    """The archived files of a collection, oldest first."""
    parsed = (_Kept.parse(name) for name in directory.names())
    return sorted((each for each in parsed if each), key=lambda each: (each.first_seq, each.ordinal))


def _header(reader: FileReader, name: str) -> LogHeader:
    return LogHeader.decode(reader.pread(min(HEADER_BYTES, reader.size_bytes), 0), str(reader.path), name)


def _require_same(directory: MmapDirectory, kept: _Kept, header: LogHeader) -> None:
    with directory.open_reader(kept.name) as reader:
        found = _header(reader, kept.name_in_log)
    if found != header:
        raise FailedPrecondition(
            f"{reader.path} holds other records of the same seqs: two copies of one database use one log archive",
            field="log_archive",
            value=reader.path,
        )
