"""The lock that makes one process the only writer of a database directory.

It is a ``flock`` on the file LOCK: the system releases it when its holder dies, and unlike a POSIX record lock it is
not lost when some other descriptor of the file is closed. Format of the file: ``docs/formats/lock.md``.
"""

from __future__ import annotations

import datetime
import json
import os
import socket
import weakref
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from vecdb.errors import Corruption, FailedPrecondition
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import translating, write_fully

LOCK_NAME: Final = "LOCK"
_CONTENT_BYTES_MAX: Final = 4_096


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds, or last held, the lock.

    Attributes
    ----------
    pid
        Process id.
    host
        Name of the machine.
    started
        When the lock was taken, ISO 8601, UTC.
    address
        Where the holder can be reached over gRPC, or empty.
    """

    pid: int
    host: str
    started: str
    address: str = ""


class DirectoryLock:
    """The exclusive lock of one directory; usable only by the process that acquired it."""

    def __init__(self, directory: MmapDirectory, fd: int, holder: Holder) -> None:
        self._directory = directory
        self._path = directory.path_of(LOCK_NAME)
        self._fd = fd
        self.holder = holder
        _held.add(self)

    @classmethod
    def acquire(cls, directory: MmapDirectory) -> DirectoryLock:
        """Take the lock, at once or not at all.

        Raises
        ------
        FailedPrecondition
            Another handle holds it: of another process, of this one, or of the parent this one was forked from.
        """
        fs = directory.fs
        path = directory.path_of(LOCK_NAME)
        with translating(path, "write"):
            fd = fs.open_lock(path)
        try:
            with translating(path, "write"):
                taken = fs.lock(fd)
            if not taken:
                raise _refusal(directory)
        except BaseException:
            fs.close(fd)
            raise
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        lock = cls(directory, fd, Holder(os.getpid(), socket.gethostname(), now))
        try:
            lock._write()
        except BaseException:
            lock.release()
            raise
        return lock

    def check(self) -> None:
        """Refuse to go on where the lock is not this process's.

        Raises
        ------
        FailedPrecondition
            It was released, or this is a forked child of the process that holds it.
        """
        if os.getpid() != self.holder.pid:
            require_own_process(self._directory.path, self.holder.pid)
        if self._fd < 0:
            raise FailedPrecondition(f"{self._directory.path} is closed", field=str(self._directory.path))

    def announce(self, address: str) -> None:
        """Tell in the file where the holder serves the directory, so that the next one refused knows.

        Raises
        ------
        FailedPrecondition
            As ``check`` does.
        """
        self.check()
        self.holder = Holder(self.holder.pid, self.holder.host, self.holder.started, address)
        self._write()

    def release(self) -> None:
        """Give the lock back; without effect the second time, and in a forked child."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            if os.getpid() == self.holder.pid:
                # Closing would not do while a child that was just forked still has its copy open.
                self._directory.fs.unlock(fd)
            self._directory.fs.close(fd)

    def _write(self) -> None:
        fs = self._directory.fs
        content = json.dumps(asdict(self.holder)).encode() + b"\n"
        with translating(self._path, "write"):
            write_fully(fs, self._fd, [content], 0)
            fs.truncate(self._fd, len(content))


def require_own_process(path: Path, pid: int) -> None:
    """Refuse what a forked child inherited.

    Raises
    ------
    FailedPrecondition
        This is not the process ``pid``, which opened the directory ``path``.
    """
    if os.getpid() != pid:
        raise FailedPrecondition(
            f"{path} was opened by process {pid} and inherited by its forked child {os.getpid()}: "
            "close it before forking, or use multiprocessing's 'spawn'",
            field=str(path),
            value=os.getpid(),
        )


def read_holder(directory: MmapDirectory) -> Holder | None:
    """What LOCK says about its last holder, or None where it says nothing legible. It may be dead by now."""
    try:
        # The first line only: a holder that is just writing may leave the end of an older, longer one behind it.
        fields = json.loads(directory.read_file(LOCK_NAME, _CONTENT_BYTES_MAX).partition(b"\n")[0])
        return Holder(int(fields["pid"]), str(fields["host"]), str(fields["started"]), str(fields["address"]))
    except (Corruption, ValueError, KeyError, TypeError):
        return None


def _refusal(directory: MmapDirectory) -> FailedPrecondition:
    holder = read_holder(directory)
    if holder is None:
        return FailedPrecondition(f"{directory.path} is open for writing elsewhere", field=str(directory.path))
    message = (
        f"{directory.path} is open in process {holder.pid} on {holder.host} since {holder.started}; "
        "one process may write to it, others may open it with read_only=True"
    )
    if holder.address:
        message += f": connect to {holder.address}"
    return FailedPrecondition(message, field=str(directory.path), value=f"pid {holder.pid} on {holder.host}")


_held: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()


def _let_go_in_child() -> None:
    """A forked child closes its copy, so that the lock ends with its holder; this does not release the parent's."""
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_let_go_in_child)
