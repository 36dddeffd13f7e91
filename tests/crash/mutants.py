"""File systems that lose the power, and what must be caught: syncs left out, acknowledgements before the sync."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.storage.forgetful import PowerLoss, UnsyncedFileSystem
from vecdb.storage.wal import Log


class PowerLossFileSystem(UnsyncedFileSystem):
    """For many threads: the power is not lost while LMDB commits, which orders its writes by syncs of its own.

    What is left out may also be the syncs of some files only: ``fsync of segments``, ``fsync of mirrors``,
    ``fsync_directory of the log``, ``fsync_directory of the rest``.

    Attributes
    ----------
    lost_at
        The call at which it was lost, and the file.
    """

    def __init__(self, root: Path, *, left_out: Sequence[str] = (), lose_at: int | None = None) -> None:
        super().__init__(root, left_out=left_out)
        self.lost_at = ""
        self._due = lose_at
        self._mutex = threading.RLock()
        self._committing = 0

    def fsync(self, fd: int) -> None:
        if f"fsync of {self._part(self._open[fd].path)}" not in self._left_out:
            super().fsync(fd)

    def fsync_directory(self, path: Path) -> None:
        if f"fsync_directory of {'the log' if path.name == 'log' else 'the rest'}" not in self._left_out:
            super().fsync_directory(path)

    def _part(self, path: Path) -> str:
        return "segments" if path.name[0].isdigit() else "mirrors" if path.name.startswith("mirror") else "the rest"

    def before(self, call: str, *arguments: Any) -> None:
        with self._mutex:
            self.calls += 1
            if call == "committed":
                self._committing -= 1
            due = self._due is not None and self.calls >= self._due and not self._committing
            if due and not self.lost:
                self.lost = True
                self.lost_at = f"{call} {arguments[0] if arguments else ''}"
            if self.lost:
                raise PowerLoss
            if call == "committing":
                self._committing += 1


def acknowledge_before_sync() -> None:
    """Have the log sync what was appended some appends later."""
    real_sync, real_append = Log.sync, Log.append
    appended = itertools.count(1)

    def append(self: Log, records: Any) -> None:
        if next(appended) % 4 == 0:
            real_sync(self)
        real_append(self, records)

    def sync(self: Log) -> int:
        return self.last_seq

    Log.append = append  # type: ignore[method-assign]
    Log.sync = sync  # type: ignore[method-assign]
