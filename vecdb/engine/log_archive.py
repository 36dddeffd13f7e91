"""The log archive: closed log files, kept before the log forgets them, to restore a collection as of any write.

One directory a collection, named by its id. A file bears the seqs of its first and last record; it is copied, synced
and renamed, and its name made durable, before the log trims its own. A name that is there leads to a whole file, and is
never replaced but by the same bytes. The files of a collection are of one history: no two hold the same seqs, and each
names the one with the record before. The last one is never removed, so that records that are missing before it are
always noticed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vecdb.errors import Corruption, FailedPrecondition, NotFound, Unavailable
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.file_reader import FileReader
from vecdb.storage.io import FileSystem, translating
from vecdb.storage.log_format import LogHeader
from vecdb.storage.log_scan import LogScan, read_header

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
        self._failed = False
        self._durable: set[tuple[str, str]] = set()
        """(collection, log file) of what was asked for last and is here for good."""

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

    def keep(self, collection_id: str, log: MmapDirectory, names: Sequence[str]) -> None:
        """Copy closed log files, oldest first; on return every one that holds a record is durable here.

        A file that is found here already may be one whose name never became durable: it is written again, unless this
        object wrote it.

        Raises
        ------
        Corruption
            A file is damaged.
        FailedPrecondition
            The archive holds another history of these seqs: another copy of the database was written to.
        ResourceExhausted
            There is no space for it; the call may be repeated.
        Unavailable
            The device failed, now or before. Nothing is retried: whether the names of earlier files are durable is no
            longer known, and a later sync that succeeds would not tell.
        """
        if self._failed:
            raise Unavailable(f"{self.path} failed before: open the database again", field=str(self.path))
        self._durable.intersection_update((collection_id, name) for name in names)
        try:
            for name in names:
                if (collection_id, name) not in self._durable:
                    self._keep(collection_id, log, name)
                    self._durable.add((collection_id, name))
        except Unavailable:
            self._failed = True
            raise

    def _keep(self, collection_id: str, log: MmapDirectory, name: str) -> None:
        with log.open_reader(name) as reader:
            header = read_header(reader, name)
            scan = LogScan(reader, header)
            for _ in scan.records(None):
                pass
            if scan.last_seq < header.first_seq:
                return
            kept = _Kept(header.first_seq, scan.last_seq, header.ordinal)
            directory = self._directory.child(collection_id, create=True)
            _require_one_history(directory, kept, header, reader, scan)
            with directory.create(kept.name) as writer:
                for piece in _content(reader, scan):
                    writer.write(piece)
                writer.finish()
            directory.sync()

    def records(self, collection_id: str, after_seq: int, log_file_id: int = 0) -> Iterator[tuple[int, bytes]]:
        """(seq, payload) of the kept records with a seq above ``after_seq``, in order and without a gap.

        Parameters
        ----------
        log_file_id
            Id of the log file that held the record ``after_seq``; 0 where that is not known.

        Raises
        ------
        Corruption
            Records are missing, named by their seqs, or damaged.
        FailedPrecondition
            The files are not of one history, or not of the one that ``log_file_id`` belongs to.
        """
        if collection_id not in self._directory.children():
            return
        directory = self._directory.child(collection_id, create=False)
        reached_seq, before_id, before_name = after_seq, log_file_id, ""
        for kept in _in_order(directory):
            if kept.last_seq < max(after_seq, 1):
                continue
            if kept.first_seq > reached_seq + 1:
                raise Corruption(
                    f"{directory.path} lacks the records {reached_seq + 1} to {kept.first_seq - 1}: its next file is "
                    f"{kept.name}",
                    field=str(directory.path),
                    value=reached_seq + 1,
                )
            with directory.open_reader(kept.name) as reader:
                header = read_header(reader, kept.name_in_log)
                # The first file may begin before what is asked for, and then holds the record ``after_seq`` itself.
                own_id = header.file_id if kept.first_seq <= reached_seq else header.last_record_file_id
                if (before_name and kept.first_seq <= reached_seq) or (before_id and own_id not in (0, before_id)):
                    raise _other_history(directory, kept.name, before_name or "what was backed up")
                scan = LogScan(reader, header)
                for seq, payload in scan.records(None):
                    if seq > after_seq:
                        yield seq, payload
                if scan.last_seq != kept.last_seq:
                    raise Corruption(
                        f"{reader.path} ends with the record {scan.last_seq}, not {kept.last_seq}: it is damaged at "
                        f"offset {scan.offset}",
                        field=str(reader.path),
                        limit=kept.last_seq,
                        value=scan.offset,
                    )
            reached_seq, before_id, before_name = kept.last_seq, header.file_id, kept.name

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


def _content(reader: FileReader, scan: LogScan) -> Iterator[bytes]:
    """What is kept of a file that was scanned to its end, in pieces."""
    for at in range(0, scan.offset, PIECE_BYTES):
        yield reader.pread(min(PIECE_BYTES, scan.offset - at), at)
    if not scan.closed:
        # A file without an end record is as long as it was made, with nothing behind its records.
        allocated_bytes = scan.header.allocated_bytes
        for at in range(scan.offset, allocated_bytes, PIECE_BYTES):
            yield bytes(min(PIECE_BYTES, allocated_bytes - at))


def _require_one_history(
    directory: MmapDirectory, kept: _Kept, header: LogHeader, reader: FileReader, scan: LogScan
) -> None:
    """See to it that a file goes with those that are there: it is one of them, or linked to them, with other seqs."""
    for other in _in_order(directory):
        if other.last_seq + 1 < kept.first_seq or other.first_seq > kept.last_seq + 1:
            continue
        with directory.open_reader(other.name) as found:
            their = read_header(found, other.name_in_log)
            if other == kept:
                fits = their == header and _same(found, _content(reader, scan))
            elif other.last_seq < kept.first_seq:
                fits = header.last_record_file_id in (0, their.file_id)
            else:
                fits = other.first_seq > kept.last_seq and their.last_record_file_id in (0, header.file_id)
        if not fits:
            raise _other_history(directory, other.name, kept.name_in_log)


def _same(found: FileReader, pieces: Iterable[bytes]) -> bool:
    at = 0
    for piece in pieces:
        if at + len(piece) > found.size_bytes or found.pread(len(piece), at) != piece:
            return False
        at += len(piece)
    return at == found.size_bytes


def _other_history(directory: MmapDirectory, name: str, than: str) -> FailedPrecondition:
    path = directory.path_of(name)
    return FailedPrecondition(
        f"{path} is of another history than {than}: the database was put back to an earlier state or copied, and "
        "written to again; use another archive directory, and take a new backup",
        field="log_archive",
        value=path,
    )
