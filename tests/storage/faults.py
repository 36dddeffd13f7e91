"""File systems that fail on purpose: they kill the process, return an error, or write less than was asked for.

Each counts the write-class calls (``WRITE_CALLS``) and acts at the n-th, from 1. They write to the real disk.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from vecdb.storage.io import Buffer, FileSystem

WRITE_CALLS = (
    "create",
    "write",
    "fsync",
    "fdatasync",
    "fsync_directory",
    "allocate",
    "extend",
    "truncate",
    "rename",
    "unlink",
    "make_directory",
    "remove_directory",
    "committing",
    "committed",
)


class WatchedFileSystem(FileSystem):
    """Calls ``before`` ahead of every write-class call."""

    def before(self, call: str, *arguments: Any) -> None:
        """Overridden by those that do something."""


def _watched(call: str) -> Callable[..., Any]:
    real = getattr(FileSystem, call)

    def method(self: WatchedFileSystem, *arguments: Any) -> Any:
        self.before(call, *arguments)
        return real(self, *arguments)

    return method


for _call in WRITE_CALLS:
    setattr(WatchedFileSystem, _call, _watched(_call))


class CountingFileSystem(WatchedFileSystem):
    """Counts the write-class calls by name."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._mutex = threading.Lock()

    def before(self, call: str, *arguments: Any) -> None:
        with self._mutex:
            self.calls[call] += 1

    @property
    def total(self) -> int:
        """All write-class calls so far."""
        return sum(self.calls.values())


class KillingFileSystem(CountingFileSystem):
    """Kills the process (SIGKILL) instead of the n-th write-class call; a write is carried out by half first."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self._n = n

    def before(self, call: str, *arguments: Any) -> None:
        super().before(call)
        if self.total == self._n:
            if call == "write":
                fd, buffers, offset = arguments
                data = b"".join(buffers)
                os.pwrite(fd, data[: len(data) // 2], offset)
            os.kill(os.getpid(), signal.SIGKILL)


class FailingFileSystem(CountingFileSystem):
    """Raises ``OSError(number)`` instead of the n-th call among ``calls``, ``times`` times at every ``every``-th call.

    With ``partial`` a failing write is carried out by half first.
    """

    def __init__(
        self,
        number: int,
        n: int = 1,
        *,
        calls: Sequence[str] = WRITE_CALLS,
        times: int = 1,
        every: int = 1,
        partial: bool = False,
    ) -> None:
        super().__init__()
        self._number = number
        self._failing = range(n, n + times * every, every)
        self._names = frozenset(calls)
        self._partial = partial
        self._seen = 0

    def before(self, call: str, *arguments: Any) -> None:
        super().before(call)
        if call in self._names:
            self._seen += 1
            if self._seen in self._failing:
                if call == "write" and self._partial:
                    fd, buffers, offset = arguments
                    data = b"".join(buffers)
                    os.pwrite(fd, data[: 3 * len(data) // 4], offset)
                raise OSError(self._number, os.strerror(self._number))


class UnreadableFileSystem(FileSystem):
    """Fails every read that touches byte ``offset`` of a file, once it is ``armed``."""

    def __init__(self, number: int, offset: int) -> None:
        self.armed = False
        self._number = number
        self._offset = offset

    def read(self, fd: int, buffer: bytearray | memoryview, offset: int) -> int:
        if self.armed and offset <= self._offset < offset + len(buffer):
            raise OSError(self._number, os.strerror(self._number))
        return super().read(fd, buffer, offset)


class ShortFileSystem(FileSystem):
    """Writes and reads at most ``bytes_max`` at once, and every third call is interrupted."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._calls = 0

    def _interrupt(self) -> None:
        self._calls += 1
        if self._calls % 3 == 0:
            raise InterruptedError

    def write(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        self._interrupt()
        return os.pwrite(fd, b"".join(buffers)[: self._bytes_max], offset)

    def read(self, fd: int, buffer: bytearray | memoryview, offset: int) -> int:
        self._interrupt()
        with memoryview(buffer) as view:
            return super().read(fd, view[: self._bytes_max], offset)
