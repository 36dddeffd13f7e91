"""The write-ahead log: records in the order of their seqs, in files that are made whole, filled once and unlinked.

A file is allocated before its first record, so that a full disk is met before anything is written. An opened log never
appends to a file it found: its first append makes the next one, whose header says how much of the one before holds. A
closed log ends in a file that is only such a header. Format: ``docs/formats/log.md``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from vecdb.errors import Corruption, FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable, VecdbError
from vecdb.storage.checksum import random_id
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.file_reader import FileReader
from vecdb.storage.io import Buffer, DiskFull, translated
from vecdb.storage.log_file import LogFile
from vecdb.storage.log_format import (
    HEADER_BYTES,
    KIND_DATA,
    PAYLOAD_BYTES_MAX,
    RECORD_HEADER_BYTES,
    LogHeader,
    LogName,
    Predecessor,
    decode_record_header,
    padded,
)
from vecdb.storage.log_scan import LogScan

Payload: TypeAlias = Buffer | Sequence[Buffer]

FILE_BYTES_FIRST: Final = 1 << 20
FILE_BYTES_MAX: Final = 64 << 20
FILE_BYTES_SCARCE: Final = 64 << 10
"""Size of a file made when the disk has no room for a larger one."""


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
class _Sealed:
    """A file that is not written any more."""

    name: str
    last_seq: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Position:
    """How far a replay came, from where the next one goes on."""

    name: str
    offset: int
    last_seq: int
    closed: bool


class Log:
    """The log of one collection, in a directory of its own; safe for use by several threads.

    Parameters
    ----------
    directory
        Where its files are. If it is read-only, the log can only be replayed, as often as wished.
    file_bytes_first
        Size of the first file made; each further one is twice as large.
    file_bytes_max
        Up to this. A group of records that needs more gets a file of its own.
    """

    def __init__(
        self,
        directory: MmapDirectory,
        *,
        file_bytes_first: int = FILE_BYTES_FIRST,
        file_bytes_max: int = FILE_BYTES_MAX,
    ) -> None:
        self.poisoned = False
        self._directory = directory
        self._file_bytes_next = file_bytes_first
        self._file_bytes_max = file_bytes_max
        self._recovery: LogRecovery | None = None
        self._position: _Position | None = None
        self._failed_sync: tuple[int, int] | None = None
        self._unproven = 0
        self._active: LogFile | None = None
        self._sealed: list[_Sealed] = []
        self._predecessor = Predecessor(0, 0)
        self._ordinal = 0
        self._last_seq = 0
        self._durable_seq = 0
        self._unsealed = False
        self._closed = False
        self._pid = os.getpid()
        self._mutex = threading.RLock()

    @property
    def recovery(self) -> LogRecovery:
        """What the last replay found, once it was exhausted."""
        assert self._recovery is not None, "replay() was not exhausted"
        return self._recovery

    @property
    def replayed(self) -> bool:
        """Whether a replay was exhausted, so that the log can be written to."""
        return self._recovery is not None

    @property
    def last_seq(self) -> int:
        """The seq that was appended last, or the last one found, or the one that replay began after."""
        return self._last_seq

    @property
    def durable_seq(self) -> int:
        """The last seq that survives a loss of power."""
        return self._durable_seq

    @property
    def size_bytes(self) -> int:
        """Bytes of headers and records in all files."""
        with self._mutex:
            return sum(file.size_bytes for file in self._sealed) + (self._active.end if self._active else 0)

    def replay(self, after_seq: int) -> Iterator[tuple[int, bytes]]:
        """(seq, payload) of every record with a seq above ``after_seq``, in order and without a gap.

        It must be exhausted before the first append; ``recovery`` then tells about a torn tail. A log that is open for
        reading goes on where the last replay ended, ends without a word at a record that is not whole yet, and gives
        none before it is durable.

        Raises
        ------
        Corruption
            Records are damaged or missing; the message names the file and the offset.
        Unavailable
            Open for reading only: the owner has trimmed the log meanwhile. Take the manifest again; if it did not
            change, records are missing. Or the device failed to make the last records durable.
        FailedPrecondition
            A file is of a later format.
        """
        if self._active is not None or self._closed:
            raise FailedPrecondition(f"{self._directory.path} was written to, or closed", field=self._place)
        files = self._files()
        resumed = self._resumable(files, after_seq)
        first = files.index(resumed) if resumed else self._first_needed(files, after_seq)
        if not resumed:
            self._unproven = 0
        headers = [self._header(file) for file in files[first:]]
        count, dropped_bytes = 0, 0
        scan: LogScan | None = None
        sealed = [
            _Sealed(file.name, following.first_seq - 1, 0) for file, following in itertools.pairwise(files[: first + 1])
        ]
        for number, header in enumerate(headers):
            following = headers[number + 1] if number + 1 < len(headers) else None
            with self._reader(header.name) as reader:
                position = self._position if resumed and number == 0 else None
                scan = _scan_from(reader, header, position)
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
            sealed.append(_Sealed(header.name, scan.last_seq, scan.offset))
            dropped_bytes = scan.dropped_bytes
        self._finish_replay(scan, sealed, LogRecovery(count, after_seq, dropped_bytes, None, None))

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

    def append(self, records: Sequence[tuple[int, Payload]]) -> None:
        """Append a group of records by one write. They are durable after ``sync``.

        Parameters
        ----------
        records
            (seq, payload): the seqs go on from ``last_seq`` without a gap; a payload is bytes, or several that are
            written one after the other.

        Raises
        ------
        DiskFull, MemoryError
            There is no disk or no memory for it; the log is as it was, and usable.
        Unavailable
            The device failed, now or before; the log is poisoned, and what was not synced is lost or not.
        InvalidArgument
            A payload is larger than 1 GiB.
        """
        if not records:
            return
        with self._mutex:
            self._require_writable()
            parts = [(seq, _buffers(payload)) for seq, payload in records]
            sizes = [sum(map(len, buffers)) for _seq, buffers in parts]
            assert [seq for seq, _buffers in parts] == list(
                range(self._last_seq + 1, self._last_seq + 1 + len(parts))
            ), (self._last_seq, parts[0][0], parts[-1][0])
            if max(sizes) > PAYLOAD_BYTES_MAX:
                raise InvalidArgument("a log record is too large", limit=PAYLOAD_BYTES_MAX, value=max(sizes))
            file = self._with_room(sum(RECORD_HEADER_BYTES + padded(size) for size in sizes))
            encoded = file.encode(parts)  # What can fail for want of memory, fails before anything is written.
            # Until it is whole: whatever else interrupts it, a signal's exception even, leaves the log unusable.
            self.poisoned = True
            try:
                file.append(encoded)
            except OSError as error:
                raise self._failed_write(file, error) from error
            self._last_seq = parts[-1][0]
            self.poisoned = False

    def sync(self) -> int:
        """Make everything appended durable; the last durable seq.

        Raises
        ------
        Unavailable
            The device failed, now or before. Nothing is retried: the log is poisoned until it is opened again.
        """
        with self._mutex:
            self._require_writable()
            if self._active is not None:
                self._sync(self._active)
            self._durable_seq = self._last_seq
            return self._durable_seq

    def rotate(self) -> None:
        """End the present file, durably, so that ``trim`` can unlink it; the next append makes another.

        Raises
        ------
        Unavailable
            As ``sync`` does.
        """
        with self._mutex:
            self._require_writable()
            self._seal()

    def trimmable(self, flushed_seq: int) -> list[str]:
        """The names of the files that ``trim`` would unlink, oldest first; they do not change any more."""
        with self._mutex:
            return [file.name for file in self._sealed if file.last_seq <= flushed_seq]

    def trim(self, flushed_seq: int) -> list[str]:
        """Unlink the files, but for the one being written, that have no record above ``flushed_seq``; their names."""
        with self._mutex:
            self._require_owner()
            trimmed = [file for file in self._sealed if file.last_seq <= flushed_seq]
            for file in trimmed:
                self._directory.unlink(file.name)
                self._sealed.remove(file)
            return [file.name for file in trimmed]

    def check(self, flushed_seq: int) -> int:
        """Read every file through, also what is flushed already; the number of records.

        Raises
        ------
        Corruption
            As ``replay`` does, for damage anywhere.
        """
        count = 0
        headers = [self._header(file) for file in self._files()]
        for number, header in enumerate(headers):
            following = headers[number + 1] if number + 1 < len(headers) else None
            needed = following is not None and following.first_seq > flushed_seq + 1
            adjacent = following is not None and following.ordinal == header.ordinal + 1
            with self._reader(header.name) as reader:
                scan = LogScan(reader, header)
                valid_end = self._valid_end(header, following) if needed or adjacent else None
                # The log may be in use, by this process or another.
                count += sum(1 for _ in scan.records(valid_end, live=True))
            if following is not None and needed and scan.last_seq + 1 != following.first_seq:
                raise self._missing(scan.last_seq + 1, following.first_seq - 1, following.name)
        return count

    def close(self) -> None:
        """End the log so that no byte of it can change or go unnoticed; nothing is written if nothing was appended.

        Raises
        ------
        DiskFull
            There is no disk for it; the call may be repeated.
        ResourceExhausted, Unavailable
            It could not be ended; what was synced is as safe as after a crash.
        """
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            try:
                if not self.poisoned and not self._directory.read_only and os.getpid() == self._pid:
                    self._seal()
                    if self._unsealed and self._sealed:
                        self._let_go(self._make_file(HEADER_BYTES))
            except DiskFull:
                self._closed = False
                raise
            finally:
                if self._active is not None:
                    self._active.close()
                    self._active = None

    @property
    def _place(self) -> str:
        return str(self._directory.path)

    def _files(self) -> list[LogName]:
        """The files, in the order of the log."""
        parsed = (LogName.parse(name) for name in self._directory.names())
        return sorted((file for file in parsed if file), key=lambda file: (file.first_seq, file.ordinal))

    def _first_needed(self, files: list[LogName], after_seq: int) -> int:
        """Index of the file that the first record above ``after_seq`` is or would be in."""
        candidates = [number for number, file in enumerate(files) if file.first_seq <= after_seq + 1]
        if files and not candidates:
            raise self._missing(after_seq + 1, files[0].first_seq - 1, files[0].name)
        return candidates[-1] if candidates else 0

    def _resumable(self, files: list[LogName], after_seq: int) -> LogName | None:
        """The file in which a replay for reading goes on where the last one ended."""
        position = self._position
        if position is None or position.last_seq != after_seq:
            return None
        return next((file for file in files if file.name == position.name), None)

    def _header(self, file: LogName) -> LogHeader:
        with self._reader(file.name) as reader:
            data = reader.pread(min(HEADER_BYTES, reader.size_bytes), 0)
            return LogHeader.decode(data, str(reader.path), file.name)

    @contextlib.contextmanager
    def _reader(self, name: str) -> Iterator[FileReader]:
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
        message = f"{self._place} lacks the records {first} to {last}: its next file is {found}"
        if self._directory.read_only:
            return Unavailable(message, field=self._place, value=first)
        return Corruption(message, field=self._place, value=first)

    def _finish_replay(self, scan: LogScan | None, sealed: list[_Sealed], found: LogRecovery) -> None:
        self._sealed = sealed
        self._last_seq = self._durable_seq = max(found.last_seq, scan.last_seq if scan else 0)
        torn = scan is not None and found.dropped_bytes > 0
        self._recovery = LogRecovery(
            found.records,
            self._last_seq,
            found.dropped_bytes,
            str(self._directory.path_of(scan.header.name)) if scan and torn else None,
            scan.offset if scan and torn else None,
        )
        if scan is not None:
            self._predecessor = Predecessor(scan.header.file_id, scan.offset)
            self._ordinal = scan.header.ordinal
            self._position = _Position(scan.header.name, scan.offset, scan.last_seq, scan.closed)
            # A log that was not closed is ended by the next close, also if nothing is appended until then.
            self._unsealed = not scan.closed and scan.offset > HEADER_BYTES

    def _require_owner(self) -> None:
        if os.getpid() != self._pid:
            raise FailedPrecondition(
                f"{self._place} was opened by process {self._pid} and inherited by its forked child {os.getpid()}",
                field=self._place,
            )
        if self._directory.read_only:
            raise FailedPrecondition(f"{self._place} is open for reading only", field=self._place)

    def _require_writable(self) -> None:
        self._require_owner()
        if self._closed or self._recovery is None:
            raise FailedPrecondition(f"{self._place} is closed, or was not replayed yet", field=self._place)
        if self.poisoned:
            raise Unavailable(f"{self._place} failed before: open it again", field=self._place)

    def _with_room(self, group_bytes: int) -> LogFile:
        """The file to append ``group_bytes`` to."""
        if self._active is not None and not self._active.has_room(group_bytes):
            self._seal()
        if self._active is None:
            needed = HEADER_BYTES + group_bytes + RECORD_HEADER_BYTES
            try:
                self._active = self._make_file(max(self._file_bytes_next, needed))
            except DiskFull:
                scarce = max(FILE_BYTES_SCARCE, needed)
                if self.poisoned or scarce >= self._file_bytes_next:
                    raise
                self._active = self._make_file(scarce)
            else:
                self._file_bytes_next = min(2 * self._file_bytes_next, self._file_bytes_max)
        return self._active

    def _make_file(self, allocated_bytes: int) -> LogFile:
        header = LogHeader(random_id(), self._ordinal + 1, self._last_seq + 1, allocated_bytes, self._predecessor)
        self.poisoned = True  # As in ``append``.
        try:
            file = LogFile.make(self._directory, header)
        except VecdbError as error:
            self.poisoned = not isinstance(error, ResourceExhausted)
            raise
        self._ordinal = header.ordinal
        self._unsealed = False
        self.poisoned = False
        return file

    def _seal(self) -> None:
        """End the file being written, durably, and give back the disk it did not need."""
        file = self._active
        if file is None:
            return
        self.poisoned = True  # As in ``append``.
        try:
            self._end(file)
        except OSError as error:
            failure = self._failed_write(file, error)
            if self.poisoned:
                raise failure from error

    def _end(self, file: LogFile) -> None:
        """The same, of a log that counts as poisoned until it is done."""
        file.append_end(self._last_seq)
        self._sync(file)
        file.release_tail()
        self._let_go(file)
        self.poisoned = False

    def _let_go(self, file: LogFile) -> None:
        """Leave a file that is durable; the next one will say how much of it holds."""
        self._active = None
        self._durable_seq = self._last_seq
        self._predecessor = Predecessor(file.header.file_id, file.end)
        self._unsealed = True
        self._sealed.append(_Sealed(file.header.name, self._last_seq, file.end))
        file.close()

    def _sync(self, file: LogFile) -> None:
        try:
            file.sync()
        except Unavailable:
            self.poisoned = True
            raise

    def _failed_write(self, file: LogFile, error: OSError) -> VecdbError:
        """End the file before the group that failed, so that no part of it comes back, or give the log up."""
        failure = translated(error, self._directory.path_of(file.header.name), "write")
        if isinstance(failure, ResourceExhausted):
            try:
                self._end(file)
            except (OSError, VecdbError, MemoryError):
                return Unavailable(f"{failure.message}, and part of it may be in the log", field=failure.field)
            # What the next file takes may again be allocated and yet not to be had.
            self._file_bytes_next = min(self._file_bytes_next, FILE_BYTES_SCARCE)
        return failure


def _buffers(payload: Payload) -> list[Buffer]:
    if isinstance(payload, bytes | bytearray | memoryview):
        return [payload]
    return list(payload)


def _scan_from(reader: FileReader, header: LogHeader, position: _Position | None) -> LogScan:
    if position is None:
        return LogScan(reader, header)
    scan = LogScan(reader, header, offset=position.offset, last_seq=position.last_seq)
    scan.closed = position.closed
    return scan
