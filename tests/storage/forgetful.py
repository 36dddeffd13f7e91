"""A file system that knows what a loss of power would leave: what was synced, and perhaps pieces of what was not.

Content is durable as of the last ``fsync`` or ``fdatasync`` of the file, names as of the last sync of their directory.
An LMDB environment is durable as of the last commit that was finished; one that is interrupted leaves pieces of its
pages behind, but not the page that makes them count. ``materialise`` writes that state into another directory. Nothing
is really synced, so that it is quick.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.storage.faults import WatchedFileSystem
from vecdb.storage.io import FileSystem

SECTOR_BYTES = 512
META_BYTES = 2 * 4_096
"""The first two pages of an environment: one of them is written last, in a write that is durable on return."""

NAMES: Final = -1
"""In place of a seed: all names survive and no content, as where a journal was written out and the data was not."""


class PowerLoss(BaseException):
    """Raised by the call at which the power is lost, and by every write-class call after it."""


@dataclass(eq=False)
class _File:
    """A file: where its content is now, and what of it is durable."""

    path: Path
    durable: bytes = b""
    committing: bool = False

    def present(self) -> bytes:
        return self.path.read_bytes() if self.path.exists() else self.durable


@dataclass(eq=False)
class _Folder:
    """A directory: its names now, its durable names, and the changes in between, in order."""

    names: dict[str, _File | _Folder] = field(default_factory=dict)
    durable: dict[str, _File | _Folder] = field(default_factory=dict)
    pending: list[tuple[str, _File | _Folder | None, str | None]] = field(default_factory=list)
    """(name, what it leads to now or None, the name it had before a rename or None)."""

    def change(self, name: str, node: _File | _Folder | None, renamed_from: str | None = None) -> None:
        self.pending.append((name, node, renamed_from))
        _apply(self.names, self.pending[-1])


def _apply(names: dict[str, _File | _Folder], change: tuple[str, _File | _Folder | None, str | None]) -> None:
    name, node, renamed_from = change
    if renamed_from is not None:
        names.pop(renamed_from, None)
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


class ForgetfulFileSystem(WatchedFileSystem):
    """Works on ``root``, an existing directory, and remembers what of it is durable.

    Parameters
    ----------
    root
        What is in it now counts as durable.
    lose_at
        The number of the write-class call, from 1, at which the power is lost; None for never.
    """

    def __init__(self, root: Path, *, lose_at: int | None = None) -> None:
        self.calls = 0
        self.lost = False
        self._root = root
        self._lose_at = lose_at
        self._tree = _scan(root)
        self._open: dict[int, _File] = {}

    def before(self, call: str, *arguments: Any) -> None:
        self.calls += 1
        if self.lost or self.calls == self._lose_at:
            self.lost = True
            raise PowerLoss

    def create(self, path: Path) -> int:
        fd = super().create(path)
        node = _File(path)
        self._folder(path.parent).change(path.name, node)
        self._open[fd] = node
        return fd

    def open_lock(self, path: Path) -> int:
        existed = path.exists()
        fd = super().open_lock(path)
        if not existed:
            self._folder(path.parent).change(path.name, _File(path))
        return fd

    def open_read(self, path: Path) -> int:
        fd = super().open_read(path)
        node = self._folder(path.parent).names[path.name]
        assert isinstance(node, _File)
        self._open[fd] = node
        return fd

    def close(self, fd: int) -> None:
        self._open.pop(fd, None)
        super().close(fd)

    def fsync(self, fd: int) -> None:
        self.before("fsync", fd)
        self._open[fd].durable = self._open[fd].present()

    def fdatasync(self, fd: int) -> None:
        self.before("fdatasync", fd)
        self._open[fd].durable = self._open[fd].present()

    def fsync_directory(self, path: Path) -> None:
        self.before("fsync_directory", path)
        folder = self._folder(path)
        folder.durable = dict(folder.names)
        folder.pending.clear()

    def rename(self, source: Path, target: Path) -> None:
        folder = self._folder(source.parent)
        node = folder.names[source.name]
        replaced = folder.names.get(target.name)
        if isinstance(replaced, _File):
            replaced.path = target.with_name(target.name + ".replaced")  # Its content can come back as it was durable.
        super().rename(source, target)
        _move(node, target)
        folder.change(target.name, node, source.name)

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._folder(path.parent).change(path.name, None)

    def make_directory(self, path: Path) -> None:
        super().make_directory(path)
        self._folder(path.parent).change(path.name, _Folder())

    def remove_directory(self, path: Path) -> None:
        super().remove_directory(path)
        self._folder(path.parent).change(path.name, None)

    def committing(self, path: Path) -> None:
        super().committing(path)
        folder = self._folder(path.parent)
        if path.name not in folder.names:
            folder.change(path.name, _File(path))
        node = folder.names[path.name]
        assert isinstance(node, _File)
        node.committing = True

    def committed(self, path: Path) -> None:
        # A loss of power at this call is one in the middle of the commit: what LMDB wrote is not all durable.
        super().committed(path)
        node = self._folder(path.parent).names[path.name]
        assert isinstance(node, _File)
        node.durable = node.present()
        node.committing = False

    def materialise(self, target: Path, *, seed: int | None = None) -> None:
        """Write into the new directory ``target`` what a loss of power now would leave.

        With a ``seed``, changes of names since the last sync of a directory survive up to a random one, and unsynced
        content survives in random sectors; with ``NAMES`` all changes of names survive, and zeros for unsynced content.
        """
        _write(self._tree, target, seed if seed in (None, NAMES) else random.Random(seed))

    def _folder(self, path: Path) -> _Folder:
        folder = self._tree
        for part in path.relative_to(self._root).parts:
            child = folder.names[part]
            assert isinstance(child, _Folder)
            folder = child
        return folder


class UnsyncedFileSystem(ForgetfulFileSystem):
    """A mutant: it leaves out the named kinds of sync."""

    def __init__(self, root: Path, *, left_out: Sequence[str], lose_at: int | None = None) -> None:
        super().__init__(root, lose_at=lose_at)
        self._left_out = frozenset(left_out)

    def fsync(self, fd: int) -> None:
        if "fsync" not in self._left_out:
            super().fsync(fd)

    def fdatasync(self, fd: int) -> None:
        if "fdatasync" not in self._left_out:
            super().fdatasync(fd)

    def fsync_directory(self, path: Path) -> None:
        if "fsync_directory" not in self._left_out:
            super().fsync_directory(path)


def _scan(path: Path) -> _Folder:
    folder = _Folder()
    for name, is_directory in FileSystem().names(path):
        child = path / name
        folder.names[name] = _scan(child) if is_directory else _File(child, child.read_bytes())
    folder.durable = dict(folder.names)
    return folder


def _move(node: _File | _Folder, path: Path) -> None:
    """Note where a file, or what is in a directory, is now."""
    if isinstance(node, _File):
        node.path = path
        return
    for name, child in {**node.durable, **node.names}.items():
        _move(child, path / name)


def _write(folder: _Folder, target: Path, chance: random.Random | int | None) -> None:
    target.mkdir()
    names = dict(folder.durable)
    if isinstance(chance, random.Random):
        for change in folder.pending[: chance.randint(0, len(folder.pending))]:
            _apply(names, change)
    elif chance == NAMES:
        names = dict(folder.names)
    for name, node in names.items():
        if isinstance(node, _Folder):
            _write(node, target / name, chance)
        elif isinstance(chance, random.Random):
            (target / name).write_bytes(_mixed(node, chance))
        else:
            size_bytes = len(node.durable) if chance is None else len(node.present())
            (target / name).write_bytes(node.durable[:size_bytes].ljust(size_bytes, b"\0"))


def _mixed(node: _File, chance: random.Random) -> bytes:
    present = node.present()
    if present == node.durable or (node.committing and chance.random() < 0.3):
        return present
    mixed = _sectors(present, node, chance)
    if node.committing:
        metas = node.durable[:META_BYTES]
        mixed[: len(metas)] = metas
    return bytes(mixed)


def _sectors(present: bytes, node: _File, chance: random.Random) -> bytearray:
    mixed = bytearray(chance.choice((len(present), len(node.durable))))
    for begin in range(0, len(mixed), SECTOR_BYTES):
        source = chance.choice((present, node.durable))
        piece = source[begin : min(begin + SECTOR_BYTES, len(mixed))]
        mixed[begin : begin + len(piece)] = piece
    return mixed
