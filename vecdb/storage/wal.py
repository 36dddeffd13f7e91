"""The write-ahead log: records in the order of their seqs, in files that are made whole, filled once and unlinked.

A file is allocated before its first record, so that a full disk is met before anything is written. An opened log never
appends to a file it found: its first append makes the next one, whose header says how much of the one before holds. A
closed log ends in a file that is only such a header. Format: ``docs/formats/log.md``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from vecdb.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable, VecdbError
from vecdb.storage.checksum import random_id
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import Buffer, DiskFull, translated
from vecdb.storage.log_file import LogFile
from vecdb.storage.log_format import (
    HEADER_BYTES,
    PAYLOAD_BYTES_MAX,
    RECORD_HEADER_BYTES,
    LogHeader,
    Predecessor,
    padded,
)
from vecdb.storage.log_reader import FoundLog, LogReader, LogRecovery, SealedFile

Payload: TypeAlias = Buffer | Sequence[Buffer]

FILE_BYTES_FIRST: Final = 1 << 20
FILE_BYTES_MAX: Final = 64 << 20
FILE_BYTES_SCARCE: Final = 64 << 10
"""Size of a file made when the disk has no room for a larger one."""


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
    last_record_file_id
        Id of the file that held the last record, for a log of which all files were trimmed; 0 where nobody knows it.
    """

    def __init__(
        self,
        directory: MmapDirectory,
        *,
        file_bytes_first: int = FILE_BYTES_FIRST,
        file_bytes_max: int = FILE_BYTES_MAX,
        last_record_file_id: int = 0,
    ) -> None:
        self.poisoned = False
        self._directory = directory
        self._file_bytes_next = file_bytes_first
        self._file_bytes_max = file_bytes_max
        self._reader = LogReader(directory)
        self._recovery: LogRecovery | None = None
        self._active: LogFile | None = None
        self._sealed: list[SealedFile] = []
        self._predecessor = Predecessor(0, 0)
        self._last_record_file_id = last_record_file_id
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
        self._go_on_from((yield from self._reader.replay(after_seq)))

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
            self._last_record_file_id = file.header.file_id
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

    def file_id_of(self, seq: int) -> int:
        """Id of the file that holds the record ``seq``; 0 where it was not read, or is gone."""
        with self._mutex:
            held = next((file.file_id for file in self._sealed if file.last_seq >= seq), 0)
            if not held and self._active is not None and self._active.header.first_seq <= seq <= self._last_seq:
                held = self._active.header.file_id
            return held

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
        return self._reader.check(flushed_seq)

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

    def _go_on_from(self, found: FoundLog) -> None:
        self._recovery = found.recovery
        self._sealed = list(found.sealed)
        self._last_seq = self._durable_seq = found.recovery.last_seq
        end = found.end
        if end is not None:
            self._predecessor = Predecessor(end.header.file_id, end.offset)
            self._ordinal = end.header.ordinal
            holds_records = end.last_seq >= end.header.first_seq
            self._last_record_file_id = end.header.file_id if holds_records else end.header.last_record_file_id
            # A log that was not closed is ended by the next close, also if nothing is appended until then.
            self._unsealed = not end.closed and end.offset > HEADER_BYTES

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
        header = LogHeader(
            random_id(),
            self._ordinal + 1,
            self._last_seq + 1,
            allocated_bytes,
            self._predecessor,
            self._last_record_file_id,
        )
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
        self._sealed.append(SealedFile(file.header.name, self._last_seq, file.end, file.header.file_id))
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
