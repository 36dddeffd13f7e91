"""The reserve: disk that a database holds back, so that what frees space still has some when the disk is full.

It is one file, allocated and never written to. What may have it (deletes, commits, compaction) runs in ``spent_on``: on
a full disk the file is unlinked and the call is made again. What only adds data calls ``take`` first and is refused
until the file is there again, so that nothing else uses up what was given free. Format: ``docs/formats/directory.md``.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from vecdb.errors import VecdbError
from vecdb.storage.directory import TEMPORARY_SUFFIX, MmapDirectory
from vecdb.storage.io import DiskFull, translating

RESERVE_NAME: Final = "RESERVE"

_ATTEMPTS_MAX: Final = 4
"""Between two of them somebody else may have used what was given up, or have taken it back."""

Result = TypeVar("Result")


class Report(Protocol):
    """Counts an event and logs it."""

    def __call__(self, name: str, times: int = 1, level: int = logging.WARNING, **facts: object) -> None:
        """``facts`` are numbers and names of files."""


class Reserve:
    """The reserve of one database, shared by all its collections; safe for use by several threads.

    Parameters
    ----------
    directory
        The database's directory; only the holder of its lock may make a reserve.
    size_bytes
        How much is held back; 0 for nothing.
    """

    def __init__(self, directory: MmapDirectory, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._directory = directory
        self._lock = threading.Lock()
        self._releases = 0
        path = directory.path_of(RESERVE_NAME)
        with translating(path, "read"):
            found = directory.fs.size_of(path)
            # One that an earlier owner made with another size, or that is a copy with holes, is made again.
            self._held = found == size_bytes > 0 and directory.fs.allocated_of(path) >= size_bytes
        if found is not None and not self._held:
            with contextlib.suppress(VecdbError):  # Making it again replaces it, or tells why that cannot be done.
                self._unlink()

    @property
    def held(self) -> bool:
        """Whether the space is held back now."""
        return self._held

    def take(self, report: Report) -> None:
        """Hold the space back, if it is not.

        Raises
        ------
        DiskFull
            There is not so much space.
        """
        if self._held or not self.size_bytes:
            return
        with self._lock:
            if self._held or not self.size_bytes:
                return
            path = self._directory.path_of(RESERVE_NAME)
            try:
                self._make()
            except DiskFull as error:
                raise DiskFull(
                    f"the disk is full: {self.size_bytes} bytes to hold back in {path} are not free",
                    field=str(path),
                    limit=self.size_bytes,
                ) from error
            except VecdbError as error:
                # No reason to refuse a write, which will meet by itself whatever it is.
                self.size_bytes = 0
                report("reserve_impossible", file=str(path), error=type(error).__name__)
                return
            self._held = True
            report("reserve_taken", level=logging.INFO, file=str(path), bytes=self.size_bytes)

    def spent_on(self, attempt: Callable[[], Result], report: Report) -> Result:
        """What ``attempt`` gives; on a full disk the reserve is given up and the attempt is made again.

        Parameters
        ----------
        attempt
            Leaves nothing behind when it raises DiskFull.
        report
            Told when the reserve is given up.

        Raises
        ------
        DiskFull
            The reserve did not do, or was given up before.
        """
        for _ in range(_ATTEMPTS_MAX - 1):
            releases = self._releases
            try:
                return attempt()
            except DiskFull:
                with self._lock:
                    if self._held:
                        self._release(report)
                    elif self._releases == releases:
                        raise
        return attempt()

    def _release(self, report: Report) -> None:
        self._unlink()
        self._held = False
        self._releases += 1
        path = self._directory.path_of(RESERVE_NAME)
        report("reserve_released", file=str(path), bytes=self.size_bytes)

    def _make(self) -> None:
        fs = self._directory.fs
        path = self._directory.path_of(RESERVE_NAME)
        temporary = self._directory.path_of(RESERVE_NAME + TEMPORARY_SUFFIX)
        with translating(path, "write"):
            if fs.size_of(temporary) is not None:
                fs.unlink(temporary)
            fd = fs.create(temporary)
            try:
                fs.allocate(fd, self.size_bytes)
                # Nothing is synced: a reserve that a loss of power leaves too short is made again.
                fs.rename(temporary, path)
            except OSError:
                with contextlib.suppress(OSError):  # The next attempt removes it first.
                    fs.unlink(temporary)
                raise
            finally:
                fs.close(fd)

    def _unlink(self) -> None:
        path = self._directory.path_of(RESERVE_NAME)
        with translating(path, "write"):
            self._directory.fs.unlink(path)
