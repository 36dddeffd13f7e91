"""A file system that can be frozen between two write-class calls, so that a copy is what kill -9 would leave."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

from tests.storage.faults import WRITE_CALLS
from vecdb.storage.io import FileSystem


class FreezableFileSystem(FileSystem):
    """Every write-class call holds one lock; syncs do nothing, as nothing here outlives the machine."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._committing = False

    def copy(self, source: Path, target: Path) -> None:
        """Copy a directory as it is between two calls."""
        with self._lock:
            shutil.copytree(source, target)

    def fsync(self, fd: int) -> None:
        """Nothing."""

    def fdatasync(self, fd: int) -> None:
        """Nothing."""

    def fsync_directory(self, path: Path) -> None:
        """Nothing."""

    def committing(self, path: Path) -> None:
        self._lock.acquire()
        if self._committing:  # The same commit once more, in a larger map.
            self._lock.release()
        self._committing = True

    def committed(self, path: Path) -> None:
        self._committing = False
        self._lock.release()


def _locked(call: str) -> Any:
    real = getattr(FileSystem, call)

    def method(self: FreezableFileSystem, *arguments: Any) -> Any:
        with self._lock:
            return real(self, *arguments)

    return method


for _call in set(WRITE_CALLS) - {"fsync", "fdatasync", "fsync_directory", "committing", "committed"}:
    setattr(FreezableFileSystem, _call, _locked(_call))
