"""Reading one log file: record after record up to the first that is not whole, and what that one means.

A torn tail is what a crash leaves: it ends the file. A record that is not whole although a later one says that it was
durable by then is damage, and so is a file that is neither as long as it was made nor closed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from vecdb.errors import Corruption
from vecdb.storage.file_reader import FileReader
from vecdb.storage.log_format import (
    ALIGNMENT,
    HEADER_BYTES,
    KIND_END,
    MAGIC_BYTES,
    RECORD_HEADER_BYTES,
    LogHeader,
    RecordHeader,
    decode_record_header,
    padded,
    payload_matches,
    record_magic,
)

_WINDOW_BYTES: Final = 1 << 20
_LOOK_AHEAD_BYTES: Final = 1 << 16
"""Window of a pass that goes on from where another ended: mostly there is nothing, or little."""


class LogScan:
    """A pass over the records of one file.

    Attributes
    ----------
    offset
        Behind the last whole record.
    last_seq
        Its seq.
    closed
        Whether it is an end record.
    dropped_bytes
        Length of the torn tail: from ``offset`` to the last byte that is not zero. Not looked for in a live file.
    synced_before
        Up to here the file was durable when the last whole record was written.
    """

    def __init__(
        self, reader: FileReader, header: LogHeader, *, offset: int = HEADER_BYTES, last_seq: int | None = None
    ) -> None:
        self.header = header
        self.offset = offset
        self.last_seq = header.first_seq - 1 if last_seq is None else last_seq
        self.closed = False
        self.dropped_bytes = 0
        self.synced_before = 0
        self._resumed_at = offset
        self._reader = reader
        self._path = str(reader.path)
        self._window_bytes = _WINDOW_BYTES if offset == HEADER_BYTES else _LOOK_AHEAD_BYTES
        self._window = b""
        self._window_at = 0

    def records(self, valid_end: int | None, *, live: bool = False) -> Iterator[tuple[int, bytes]]:
        """(seq, payload) of the records from ``offset`` on.

        Parameters
        ----------
        valid_end
            Where the records end, as the next file says; None for the last file, which may have a torn tail.
        live
            A writer may be at work on the file: what looks like damage is looked at again before it is reported, and a
            pass that goes on from where another ended looks for damage only where something was written since.

        Raises
        ------
        Corruption
            The file is damaged; the message names the file and the offset.
        """
        stop = self._reader.size_bytes if valid_end is None else valid_end
        if not HEADER_BYTES <= stop <= self._reader.size_bytes:
            raise self._damage(self._reader.size_bytes, f"ends there, though records reach to {stop}: it was cut off")
        while self.offset < stop and not self.closed:
            record = self._whole_record(self.offset, stop)
            if record is None and live and valid_end is None and self._nothing_new():
                break
            if record is None and valid_end is None and self._was_durable(self.offset):
                if live:
                    self._window = b""
                    record = self._whole_record(self.offset, stop)
                if record is None:
                    raise self._damage(self.offset, "is damaged: later records say that it was durable there")
            if record is None:
                break
            header, payload = record
            self.closed = header.kind == KIND_END
            if header.seq != self.last_seq + (not self.closed):
                raise self._damage(self.offset, f"has the record {header.seq} after {self.last_seq}")
            self.synced_before = header.synced_before
            self.offset += RECORD_HEADER_BYTES + padded(header.payload_bytes)
            self.last_seq = header.seq
            if not self.closed:
                yield header.seq, payload
        self._judge_end(valid_end, live)

    def _judge_end(self, valid_end: int | None, live: bool) -> None:
        size_bytes = self._reader.size_bytes
        if valid_end is not None and self.offset != valid_end:
            raise self._damage(self.offset, f"is damaged, as the next file puts the end of its records at {valid_end}")
        if size_bytes != self.header.allocated_bytes and not (self.closed and self.offset == size_bytes):
            raise self._damage(
                self.offset, f"ends its records, has {size_bytes} bytes, and was not closed: it was cut off or extended"
            )
        if valid_end is None and not self.closed and not live:
            self.dropped_bytes = self._used_end() - self.offset

    def _whole_record(self, offset: int, stop: int) -> tuple[RecordHeader, bytes] | None:
        header = decode_record_header(self._bytes(offset, RECORD_HEADER_BYTES), self.header.file_id, offset)
        if header is None:
            return None
        body_at = offset + RECORD_HEADER_BYTES
        body_bytes = padded(header.payload_bytes)
        if body_at + body_bytes > stop or header.synced_before > offset:
            return None
        body = self._bytes(body_at, body_bytes)
        if len(body) < body_bytes or not payload_matches(header, body, self.header.file_id, offset):
            return None
        return header, body[: header.payload_bytes]

    def _nothing_new(self) -> bool:
        """Whether all that is read ahead of a pass that goes on is blank; to look at the whole file would take long."""
        if self._resumed_at == HEADER_BYTES or any(self._bytes(self.offset, RECORD_HEADER_BYTES)):
            return False
        ahead = self._window[self.offset - self._window_at :]
        return ahead == bytes(len(ahead))

    def _was_durable(self, offset: int) -> bool:
        """Whether some whole record further on was written when the bytes at ``offset`` were durable."""
        return any(record.synced_before > offset for record in self.whole_records_behind(offset))

    def whole_records_behind(self, offset: int) -> Iterator[RecordHeader]:
        """The records further on than ``offset`` that are whole, wherever they begin."""
        magic = record_magic(self.header.file_id)
        for at in range(offset + ALIGNMENT, self._reader.size_bytes, _WINDOW_BYTES):
            # Windows overlap by less than a magic, so that none is missed between two of them.
            window = self._bytes(at, _WINDOW_BYTES + MAGIC_BYTES - 1)
            found = window.find(magic)
            while found >= 0:
                if found % ALIGNMENT == 0:
                    record = self._whole_record(at + found, self._reader.size_bytes)
                    if record is not None:
                        yield record[0]
                found = window.find(magic, found + 1)

    def _used_end(self) -> int:
        """Behind the last byte that is not zero, at least ``offset``."""
        end = self.offset
        for at in range(self.offset, self._reader.size_bytes, _WINDOW_BYTES):
            window = self._bytes(at, _WINDOW_BYTES).rstrip(b"\0")
            if window:
                end = at + len(window)
        return end

    def _bytes(self, offset: int, size_bytes: int) -> bytes:
        """Bytes of the file, fewer at its end, read through a window."""
        begin = offset - self._window_at
        if begin < 0 or begin + size_bytes > len(self._window):
            buffer = bytearray(max(size_bytes, min(self._window_bytes, max(0, self._reader.size_bytes - offset))))
            count = self._reader.pread_up_to(buffer, offset)
            self._window = bytes(memoryview(buffer)[:count])
            self._window_at = offset
            begin = 0
        return self._window[begin : begin + size_bytes]

    def _damage(self, offset: int, what: str) -> Corruption:
        return Corruption(f"{self._path} at offset {offset} {what}", field=self._path, value=offset)


def read_header(reader: FileReader, name: str) -> LogHeader:
    """The header of a log file that is called ``name``, or was when it was written.

    Raises
    ------
    Corruption
        It is damaged, too short, or that of another file.
    FailedPrecondition
        It is of a later format.
    """
    return LogHeader.decode(reader.pread(min(HEADER_BYTES, reader.size_bytes), 0), str(reader.path), name)
