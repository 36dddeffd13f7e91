"""The log file that is being written: made whole, appended to, ended once.

Every method either does all it says or leaves the file to be given up; it never tries a second time what failed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final, Self

from vecdb.errors import Unavailable, VecdbError
from vecdb.storage.directory import TEMPORARY_SUFFIX, MmapDirectory
from vecdb.storage.io import Buffer, DiskFull, translated, translating, write_fully
from vecdb.storage.log_format import (
    HEADER_BYTES,
    KIND_DATA,
    KIND_END,
    RECORD_HEADER_BYTES,
    LogHeader,
    encode_record,
    padded,
)

_JOINED_BYTES_MAX: Final = 1 << 16
"""Smaller buffers are joined before they are written; larger ones are handed to the system as they are."""


class LogFile:
    """An open log file.

    Attributes
    ----------
    header
        Its header.
    end
        Behind its last record.
    durable_end
        Up to here it survives a loss of power.
    """

    def __init__(self, directory: MmapDirectory, header: LogHeader, fd: int) -> None:
        self.header = header
        self.end = HEADER_BYTES
        self.durable_end = HEADER_BYTES
        self._fs = directory.fs
        self._path = directory.path_of(header.name)
        self._fd = fd

    @classmethod
    def make(cls, directory: MmapDirectory, header: LogHeader) -> Self:
        """Make a file with all its disk allocated, durably, name and header included.

        Raises
        ------
        ResourceExhausted
            The disk is full; nothing is left of the file.
        Unavailable
            The device failed; the file may be there or not.
        """
        fs = directory.fs
        path = directory.path_of(header.name)
        temporary = directory.path_of(header.name + TEMPORARY_SUFFIX)
        with translating(temporary, "write"):
            if fs.size_of(temporary) is not None:
                fs.unlink(temporary)
            fd = fs.create(temporary)
        try:
            fs.allocate(fd, header.allocated_bytes)
            write_fully(fs, fd, [header.encode()], 0)
            fs.fdatasync(fd)
            fs.rename(temporary, path)
        except OSError as error:
            fs.close(fd)
            with contextlib.suppress(OSError):  # The owner removes a leftover at its next open.
                fs.unlink(temporary)
            raise translated(error, temporary, "write") from error
        directory.changed()
        try:
            directory.sync()
        except VecdbError as error:
            fs.close(fd)
            raise Unavailable(f"the name of {path} may not be durable: {error}", field=str(path)) from error
        return cls(directory, header, fd)

    def has_room(self, group_bytes: int) -> bool:
        """Whether ``group_bytes`` of records fit, and an end record behind them."""
        return self.end + group_bytes + RECORD_HEADER_BYTES <= self.header.allocated_bytes

    def encode(self, records: Sequence[tuple[int, Sequence[Buffer]]]) -> list[Buffer]:
        """The buffers of a group of (seq, payload), which are for the place behind ``end`` and no other."""
        end = self.end
        joined = _Joined()
        for seq, payload in records:
            joined.add(
                encode_record(KIND_DATA, seq, payload, self.durable_end, file_id=self.header.file_id, offset=end)
            )
            end += RECORD_HEADER_BYTES + padded(sum(map(len, payload)))
        return joined.buffers

    def append(self, encoded: Sequence[Buffer]) -> None:
        """Write the buffers of a group by one call.

        Raises
        ------
        OSError
            As the system does. Some of the records may be in the file then, though ``end`` is before them.
        """
        write_fully(self._fs, self._fd, encoded, self.end)
        self.end += sum(map(len, encoded))

    def sync(self) -> None:
        """Make everything appended durable.

        Raises
        ------
        Unavailable
            The device failed; what was not durable before is lost or not.
        """
        if self.durable_end < self.end:
            try:
                self._fs.fdatasync(self._fd)
            except OSError as error:
                raise Unavailable(f"cannot sync {self._path}: {error.strerror}", field=str(self._path)) from error
            self.durable_end = self.end

    def append_end(self, last_seq: int) -> None:
        """Write the end record, over the first record of an ``append`` that failed if there was one.

        Raises
        ------
        OSError
            As the system does.
        """
        record = encode_record(KIND_END, last_seq, [], self.durable_end, file_id=self.header.file_id, offset=self.end)
        write_fully(self._fs, self._fd, record, self.end)
        self.end += RECORD_HEADER_BYTES

    def release_tail(self) -> None:
        """Cut off what was allocated and not used, unless the disk is too full even for that.

        Only behind an end record that is durable, for that is what a shorter file must end in.

        Raises
        ------
        Unavailable
            The device failed.
        """
        assert self.durable_end == self.end
        with contextlib.suppress(DiskFull), translating(self._path, "write"):
            self._fs.truncate(self._fd, self.end)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._fs.close(fd)


class _Joined:
    """Buffers to be written one after the other, the small ones joined."""

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []
        self._tail = bytearray()

    def add(self, buffers: Sequence[Buffer]) -> None:
        for buffer in buffers:
            if len(buffer) > _JOINED_BYTES_MAX:
                self.buffers.append(buffer)
                continue
            if not self.buffers or self.buffers[-1] is not self._tail:
                self._tail = bytearray()
                self.buffers.append(self._tail)
            self._tail += buffer
