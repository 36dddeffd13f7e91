"""A file system that loses the power while many threads write, and the names of what it may leave out.

A call has a label, ``CALL of PART``: ``fdatasync of a log``, ``fsync of segments``, ``fsync_directory of collections``.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tests.storage.forgetful import ForgetfulFileSystem, PowerLoss

SYNCS = ("fsync", "fdatasync", "fsync_directory", "committed")


class PowerLossFileSystem(ForgetfulFileSystem):
    """Loses the power at one call: at every call after it ``PowerLoss`` is raised, in whatever thread.

    The power is not lost in one thread while LMDB commits in another: only the call ``committed`` is in the middle of
    a commit.

    Parameters
    ----------
    root
        The directory that holds the database ``db``.
    lose_at
        The number of the call, from 1; None for never.
    lose_on
        Count only the calls with this label.
    left_out
        Labels of syncs that do nothing.

    Attributes
    ----------
    lost_at
        The label of the call at which it was lost.
    """

    def __init__(
        self, root: Path, *, lose_at: int | None = None, lose_on: str = "", left_out: Collection[str] = ()
    ) -> None:
        super().__init__(root)
        self.lost_at = ""
        self._due = lose_at
        self._lose_on = lose_on
        self._left_out = frozenset(left_out)
        self._mutex = threading.RLock()
        self._committing = 0
        self._counted = 0

    def fsync(self, fd: int) -> None:
        self._sync("fsync", fd)

    def fdatasync(self, fd: int) -> None:
        self._sync("fdatasync", fd)

    def fsync_directory(self, path: Path) -> None:
        self._sync("fsync_directory", path)

    def committed(self, path: Path) -> None:
        self._sync("committed", path)

    def lose(self) -> None:
        """Lose the power now."""
        with self._mutex:
            self.lost = True

    def _sync(self, call: str, argument: Any) -> None:
        if self.label(call, argument) in self._left_out:
            self.before(call, argument)
        else:
            getattr(super(), call)(argument)

    def label(self, call: str, argument: Any) -> str:
        """What a call is called by those who leave it out or wait for it."""
        path = argument
        if isinstance(argument, int):
            # The lock's descriptor is the only one that is not known: nothing of it matters.
            path = self._open[argument].path if argument in self._open else self._root / "db" / "LOCK"
        return f"{call} of {self._folder_part(path) if call == 'fsync_directory' else self._part(path)}"

    def _folder_part(self, path: Path) -> str:
        """The part of the database that a directory is."""
        if path.parent.name == "collections":
            return "a collection"
        known = {self._root: "what is above", self._root / "db": "the database"}
        return known.get(path, {"log": "a log", "catalogue": "the catalogue"}.get(path.name, path.name))

    def _part(self, path: Path) -> str:
        """The part of the database that a file is."""
        name = path.name.removesuffix(".tmp")
        if path.parent.name == "log":
            return "a log" if path.suffix == ".log" else "a new log file"
        if name[0].isdigit():
            return "segments"
        whose = "the catalogue's" if path.parent.name == "catalogue" else "a collection's"
        return {
            "mirror": f"{whose} mirror",
            "data.mdb": f"{whose} environment",
            "VECDB": "the marker",
            "LOCK": "the lock",
        }.get(name, f"{whose} {name}")

    def before(self, call: str, *arguments: Any) -> None:
        with self._mutex:
            self.calls += 1
            if call == "committed":
                self._committing -= 1
            label = self.label(call, arguments[0]) if self._lose_on or self._due == self.calls else call
            if not self._lose_on or label == self._lose_on:
                self._counted += 1
            due = self._due is not None and self._counted >= self._due and not self._committing
            if due and not self.lost:
                self.lost = True
                self.lost_at = label
            if self.lost:
                raise PowerLoss
            if call == "committing":
                self._committing += 1
