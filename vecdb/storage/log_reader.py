"""The log as it is found: its files in their order, and the records in them, for a replay or a check.

Records come in the order of their seqs and without a gap, or it is said where they are damaged or missing. Whoever
reads a log without owning it goes on where the last replay ended, and gets no record before it is durable. Format:
``docs/formats/log.md``.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from vecdb.errors import Corruption, Unavailable, VecdbError
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.file_reader import FileReader
from vecdb.storage.log_format import (
    HEADER_BYTES,
    KIND_DATA,
    RECORD_HEADER_BYTES,
    LogHeader,
    LogName,
    decode_record_header,
)
from vecdb.storage.log_scan import LogScan, read_header


@dataclass(frozen=True, slots=True)
class LogRecovery:
    """What a replay found.

    Attributes
    ----------
    records
        Number of records it gave.
    last_seq
        The last seq in the log, or the seq that was asked for where the log has nothing after it.
    dropped_bytes
        Length of the torn tail that was dropped; 0 where there was none.
    file, offset
        Where it was, or None.
    """

    records: int
    last_seq: int
    dropped_bytes: int
    file: str | None
    offset: int | None


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A file that is not written any more; its id is 0 where it was not read, as all its records are flushed."""

    name: str
    last_seq: int
    size_bytes: int
    file_id: int


@dataclass(frozen=True, slots=True)
class LogEnd:
    """How far a replay came, from where the next one goes on.

    Attributes
    ----------
    header
        Of the last file.
    offset
        Behind its last whole record.
    last_seq
        Its seq.
    closed
        Whether it is an end record.
    """

    header: LogHeader
    offset: int
    last_seq: int
    closed: bool


@dataclass(frozen=True, slots=True)
class FoundLog:
    """What whoever writes the log has to know of it.

    Attributes
    ----------
    recovery
        What the replay found.
    sealed
        The files that are there, oldest first.
    end
        Where the last of them ends; None where there is no file.
    """

    recovery: LogRecovery
    sealed: tuple[SealedFile, ...]
    end: LogEnd | None


class LogReader:
    """Reads the log of one collection; what was read last decides where a replay for reading only goes on.

    Parameters
    ----------
    directory
        Where its files are. If it is read-only, another process may be writing to the log.
    """

    def __init__(self, directory: MmapDirectory) -> None:
        self._directory = directory
        self._end: LogEnd | None = None
        self._failed_sync: tuple[int, int] | None = None
        self._unproven = 0

    def replay(self, after_seq: int) -> Generator[tuple[int, bytes], None, FoundLog]:
        """(seq, payload) of every record with a seq above ``after_seq``; as ``Log.replay``."""
        files = log_files(self._directory)
        resumed = self._resumable(files, after_seq)
        first = files.index(resumed) if resumed else self._first_needed(files, after_seq)
        if not resumed:
            self._unproven = 0
        headers = [self._header(file) for file in files[first:]]
        count = 0
        scan: LogScan | None = None
        sealed = [
            SealedFile(file.name, following.first_seq - 1, 0, 0)
            for file, following in itertools.pairwise(files[: first + 1])
        ]
        for number, header in enumerate(headers):
            following = headers[number + 1] if number + 1 < len(headers) else None
            with self._opened(header.name) as reader:
                scan = _scan_from(reader, header, self._end if resumed and number == 0 else None)
                recovering = following is None and not self._directory.read_only
                if recovering and reader.size_bytes == header.allocated_bytes > HEADER_BYTES:
                    reader.forget_cached()
                valid_end = self._valid_end(header, following)
                for seq, payload in self._records(reader, scan, valid_end):
                    if seq > after_seq:
                        count += 1
                        yield seq, payload
                if recovering and not scan.closed and scan.offset > HEADER_BYTES:
                    # Whoever wrote it was killed, perhaps before a sync; from here on its records count as durable.
                    reader.sync()
            if following is not None and scan.last_seq + 1 != following.first_seq:
                raise self._missing(scan.last_seq + 1, following.first_seq - 1, following.name)
            sealed.append(SealedFile(header.name, scan.last_seq, scan.offset, header.file_id))
        if scan is None:
            return FoundLog(LogRecovery(count, after_seq, 0, None, None), tuple(sealed), None)
        self._end = LogEnd(scan.header, scan.offset, scan.last_seq, scan.closed)
        torn = scan.dropped_bytes > 0
        recovery = LogRecovery(
            count,
            max(after_seq, scan.last_seq),
            scan.dropped_bytes,
            str(self._directory.path_of(scan.header.name)) if torn else None,
            scan.offset if torn else None,
        )
        return FoundLog(recovery, tuple(sealed), self._end)

    def check(self, flushed_seq: int) -> int:
        """Read every file through, also what is flushed already; the number of records. Raises as ``Log.check``."""
        count = 0
        headers = [self._header(file) for file in log_files(self._directory)]
        for number, header in enumerate(headers):
            following = headers[number + 1] if number + 1 < len(headers) else None
            needed = following is not None and following.first_seq > flushed_seq + 1
            adjacent = following is not None and following.ordinal == header.ordinal + 1
            with self._opened(header.name) as reader:
                scan = LogScan(reader, header)
                valid_end = self._valid_end(header, following) if needed or adjacent else None
                # The log may be in use, by this process or another.
                count += sum(1 for _ in scan.records(valid_end, live=True))
            if following is not None and needed and scan.last_seq + 1 != following.first_seq:
                raise self._missing(scan.last_seq + 1, following.first_seq - 1, following.name)
        return count

    def _records(self, reader: FileReader, scan: LogScan, valid_end: int | None) -> Iterator[tuple[int, bytes]]:
        """The records of one file; to a reader only durable ones, whether their writer has synced them or not.

        A file with a successor is durable up to its valid end, and every record up to the ``synced_before`` of a later
        one. For the others, which are those of the last group, this process asks the system.
        """
        if not self._directory.read_only or valid_end is not None:
            self._unproven = 0
            yield from scan.records(valid_end, live=self._directory.read_only)
            return
        self._require_unproven(reader, scan)
        waiting: deque[tuple[int, int, tuple[int, bytes]]] = deque()
        begin = scan.offset
        for record in scan.records(None, live=True):
            waiting.append((begin, scan.offset, record))
            begin = scan.offset
            if scan.synced_before > self._unproven:
                self._unproven = 0
            while waiting and waiting[0][1] <= scan.synced_before:
                yield waiting.popleft()[2]
        if waiting:
            self._make_durable(reader)
            self._unproven = self._unproven or waiting[0][0]
        for _begin, _end, record in waiting:
            yield record

    def _require_unproven(self, reader: FileReader, scan: LogScan) -> None:
        """See to it that the last records given are still there: a group that had no space left is taken back."""
        if self._unproven:
            found = reader.pread(RECORD_HEADER_BYTES, self._unproven)
            record = decode_record_header(found, scan.header.file_id, self._unproven)
            if record is None or record.kind != KIND_DATA:
                raise Corruption(
                    f"{reader.path} has no record at offset {self._unproven} any more",
                    field=str(reader.path),
                    value=self._unproven,
                )

    def _make_durable(self, reader: FileReader) -> None:
        """Sync a file that another process writes; once that failed, a later success would prove nothing."""
        if reader.identity == self._failed_sync:
            raise Unavailable(f"the last records of {reader.path} could not be made durable", field=str(reader.path))
        try:
            reader.sync()
        except VecdbError:
            self._failed_sync = reader.identity
            raise

    def _first_needed(self, files: list[LogName], after_seq: int) -> int:
        """Index of the file that the first record above ``after_seq`` is or would be in."""
        candidates = [number for number, file in enumerate(files) if file.first_seq <= after_seq + 1]
        if files and not candidates:
            raise self._missing(after_seq + 1, files[0].first_seq - 1, files[0].name)
        return candidates[-1] if candidates else 0

    def _resumable(self, files: list[LogName], after_seq: int) -> LogName | None:
        """The file in which a replay for reading goes on where the last one ended."""
        end = self._end
        if end is None or end.last_seq != after_seq:
            return None
        return next((file for file in files if file.name == end.header.name), None)

    def _header(self, file: LogName) -> LogHeader:
        with self._opened(file.name) as reader:
            return read_header(reader, file.name)

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[FileReader]:
        try:
            reader = self._directory.open_reader(name)
        except Corruption as error:
            if self._directory.read_only and not self._directory.exists(name):
                raise Unavailable(f"the log file {name} was trimmed meanwhile", field=error.field) from error
            raise
        with reader:
            yield reader

    def _valid_end(self, header: LogHeader, following: LogHeader | None) -> int | None:
        """Where the records of a file end, as the file after it says."""
        if following is None:
            return None
        if following.ordinal != header.ordinal + 1 or following.predecessor.file_id != header.file_id:
            path = str(self._directory.path_of(following.name))
            raise Corruption(f"{path} does not follow {header.name}: a log file is missing or another", field=path)
        return following.predecessor.valid_end

    def _missing(self, first: int, last: int, found: str) -> VecdbError:
        place = str(self._directory.path)
        message = f"{place} lacks the records {first} to {last}: its next file is {found}"
        if self._directory.read_only:
            return Unavailable(message, field=place, value=first)
        return Corruption(message, field=place, value=first)


def log_files(directory: MmapDirectory) -> list[LogName]:
    """The files of the log in a directory, in the order of the log."""
    parsed = (LogName.parse(name) for name in directory.names())
    return sorted((file for file in parsed if file), key=lambda file: (file.first_seq, file.ordinal))


def _scan_from(reader: FileReader, header: LogHeader, end: LogEnd | None) -> LogScan:
    if end is None:
        return LogScan(reader, header)
    scan = LogScan(reader, header, offset=end.offset, last_seq=end.last_seq)
    scan.closed = end.closed
    return scan
