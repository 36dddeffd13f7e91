"""A directory of write-once files: written under a temporary name, synced, renamed, then only read, mapped or unlinked.

A name that ``names`` lists leads to a whole file. No file is rewritten, truncated or recycled, so that a mapping never
meets SIGBUS, and no mapping holds a descriptor. Format: ``docs/formats/directory.md``.
"""

from __future__ import annotations

import contextlib
import re
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from vecdb.errors import Corruption, FailedPrecondition, NotFound, Unavailable
from vecdb.storage.file_reader import FileReader
from vecdb.storage.io import Buffer, FileSystem, translated, translating, write_fully

TEMPORARY_SUFFIX: Final = ".tmp"
READ_FILE_BYTES_MAX: Final = 64 << 20

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


class FileWriter:
    """A new file on its way: bytes are appended, then ``finish`` gives it its name or ``abandon`` removes it.

    As a context manager it abandons the file unless it was finished.
    """

    def __init__(self, directory: MmapDirectory, name: str) -> None:
        self._directory = directory
        self._fs = directory.fs
        self._target = directory.path_of(name)
        self._path = directory.path_of(name + TEMPORARY_SUFFIX)
        self.size_bytes = 0
        with translating(self._path, "write"):
            if self._fs.size_of(self._path) is not None:
                self._fs.unlink(self._path)
            self._fd = self._fs.create(self._path)

    def write(self, *buffers: Buffer) -> None:
        """Append bytes.

        Raises
        ------
        ResourceExhausted
            The disk is full.
        Unavailable
            The device failed.
        """
        with translating(self._path, "write"):
            write_fully(self._fs, self._fd, buffers, self.size_bytes)
        self.size_bytes += sum(map(len, buffers))

    def allocate(self, size_bytes: int) -> None:
        """Take disk for the first ``size_bytes``; raises as ``write`` does."""
        with translating(self._path, "write"):
            self._fs.allocate(self._fd, size_bytes)

    def finish(self) -> int:
        """Sync the file and give it its name; its size in bytes. The name is durable after ``directory.sync()``.

        Raises
        ------
        ResourceExhausted, Unavailable
            The file could not be made durable; it was removed.
        """
        try:
            with translating(self._path, "write"):
                self._fs.fsync(self._fd)
                self._close()
                self._fs.rename(self._path, self._target)
        except BaseException:
            self.abandon()
            raise
        self._directory.changed()
        return self.size_bytes

    def abandon(self) -> None:
        """Remove the file; without effect once it is finished."""
        if self._fd >= 0:
            self._close()
        with contextlib.suppress(OSError):  # A leftover is removed at the next open.
            if self._fs.size_of(self._path) is not None:
                self._fs.unlink(self._path)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        self._fs.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            self.abandon()


class MmapDirectory:
    """A directory of the file system whose files are mapped into memory for reading.

    Parameters
    ----------
    path
        An existing directory.
    fs
        The file system.
    read_only
        Refuse whatever would change it.
    """

    def __init__(self, path: Path, fs: FileSystem, *, read_only: bool = False) -> None:
        self.path = path
        self.fs = fs
        self.read_only = read_only
        self._changed = False
        self._sync_failed = False
        self._syncing = threading.Lock()

    @classmethod
    def open(cls, path: Path, fs: FileSystem, *, create: bool, read_only: bool = False) -> MmapDirectory:
        """Open a directory, made durably (mode 0700) if it is missing and ``create`` is set.

        Raises
        ------
        NotFound
            It does not exist and is not to be created.
        FailedPrecondition
            ``path`` leads to something else, or may not be written.
        """
        with translating(path, "read"):
            # Absolute, so that a later change of the working directory leads nowhere else.
            path = fs.absolute(path)
            exists = fs.is_directory(path)
            taken = not exists and fs.size_of(path) is not None
        if taken:
            raise FailedPrecondition(f"{path} is not a directory", field=str(path))
        if not exists and (not create or read_only):
            raise NotFound(f"{path} does not exist", field=str(path))
        if create and not read_only:
            with translating(path, "write"):
                if not exists:
                    fs.make_directory(path)
                # Also of one that exists: whoever made it may have been killed before this.
                fs.fsync_directory(path.parent)
        return cls(path, fs, read_only=read_only)

    def path_of(self, name: str) -> Path:
        """Path of the file ``name``; names never leave the directory."""
        assert _NAME.fullmatch(name), name
        return self.path / name

    def create(self, name: str) -> FileWriter:
        """Begin a new file, which gets its name when it is finished.

        Raises
        ------
        ResourceExhausted, Unavailable
            The system refused.
        """
        self._refuse_read_only()
        return FileWriter(self, name)

    def changed(self) -> None:
        """Note that names changed, so that the next ``sync`` does something."""
        self._changed = True

    def sync(self) -> None:
        """Make the names of finished files, and removals, durable: one call for any number of them.

        Raises
        ------
        Unavailable
            The device failed, now or before; what was finished since the last sync may be gone after a loss of power.
            Nothing is retried: the system may have dropped what it could not write, and a second sync would succeed
            without it.
        """
        with self._syncing:
            if self._sync_failed:
                raise Unavailable(f"{self.path} could not be synced before: open it again", field=str(self.path))
            if self._changed:
                # Cleared first: what another thread finishes meanwhile may not be covered by this call.
                self._changed = False
                try:
                    self.fs.fsync_directory(self.path)
                except OSError as error:
                    self._sync_failed = True
                    raise Unavailable(f"cannot sync {self.path}: {error.strerror}", field=str(self.path)) from error

    def write_file(self, name: str, data: Buffer) -> None:
        """Make a whole file of ``data``, synced; its name is durable after ``sync``."""
        with self.create(name) as writer:
            writer.write(data)
            writer.finish()

    def replace_file(self, name: str, data: Buffer) -> None:
        """Replace a file by ``data``, atomically and durably, name included."""
        self.write_file(name, data)
        self.sync()

    def open_reader(self, name: str) -> FileReader:
        """Open a file for reading by offset.

        Raises
        ------
        Corruption
            The file is missing or cannot be read.
        """
        return FileReader(self.fs, self.path_of(name))

    def read_file(self, name: str, size_max: int = READ_FILE_BYTES_MAX) -> bytes:
        """The whole content of a small file.

        Raises
        ------
        Corruption
            The file is missing, cannot be read, or is larger than ``size_max`` bytes.
        """
        with self.open_reader(name) as reader:
            if reader.size_bytes > size_max:
                raise Corruption(f"{reader.path} has {reader.size_bytes} bytes", field=str(reader.path), limit=size_max)
            return reader.pread(reader.size_bytes, 0)

    def map(self, name: str, size_bytes: int) -> memoryview:
        """Map a file read-only, as bytes. The mapping lasts as long as any view of it, and holds no descriptor.

        Raises
        ------
        Corruption
            The file is missing or has another size than ``size_bytes``.
        """
        with self.open_reader(name) as reader:
            if reader.size_bytes != size_bytes:
                raise Corruption(
                    f"{reader.path} has {reader.size_bytes} bytes, {size_bytes} were written",
                    field=str(reader.path),
                    limit=size_bytes,
                    value=reader.size_bytes,
                )
            return reader.map()

    def unlink(self, name: str) -> None:
        """Remove a file; a missing one is no error. What is mapped stays readable."""
        self._refuse_read_only()
        path = self.path_of(name)
        with translating(path, "write"):
            if self.fs.size_of(path) is None:
                return
            self.fs.unlink(path)
        self.changed()

    def move(self, name: str, target: MmapDirectory) -> None:
        """Move a file, or a sub-directory with all in it, to a directory in which it replaces a file of its name.

        Durable on return. A missing one is no error: it may have been moved before a crash.
        """
        self._refuse_read_only()
        path = self.path_of(name)
        with translating(path, "write"):
            if self.fs.size_of(path) is not None:
                self.fs.rename(path, target.path_of(name))
            # The new name first: at no time may neither be durable.
            self.fs.fsync_directory(target.path)
            self.fs.fsync_directory(self.path)

    def exists(self, name: str) -> bool:
        """Whether there is a file or directory ``name``."""
        path = self.path_of(name)
        with translating(path, "read"):
            return self.fs.size_of(path) is not None

    def names(self) -> list[str]:
        """Names of the whole files, sorted; files that were never finished are left out."""
        return [name for name, is_directory in self._entries() if not is_directory and not _is_temporary(name)]

    def children(self) -> list[str]:
        """Names of the sub-directories, sorted."""
        return [name for name, is_directory in self._entries() if is_directory]

    def child(self, name: str, *, create: bool) -> MmapDirectory:
        """A sub-directory, made durably if it is missing and ``create`` is set.

        Raises
        ------
        Corruption
            It does not exist and is not to be created: whoever asks for it knows that it was there.
        """
        path = self.path_of(name)
        try:
            return MmapDirectory.open(path, self.fs, create=create and not self.read_only, read_only=self.read_only)
        except NotFound as error:
            raise Corruption(f"{path} is missing", field=str(path)) from error

    def remove_child(self, name: str) -> None:
        """Remove a sub-directory and all in it, durably; a missing one is no error."""
        self._refuse_read_only()
        path = self.path_of(name)
        with translating(path, "write"):
            if self.fs.is_directory(path):
                self._remove_tree(path)
                self.fs.fsync_directory(self.path)

    def remove_leftovers(self) -> list[str]:
        """Unlink the files that were never finished; their names. Only for the holder of the lock."""
        self._refuse_read_only()
        leftovers = [name for name, is_directory in self._entries() if not is_directory and _is_temporary(name)]
        for name in leftovers:
            with translating(self.path / name, "write"):
                self.fs.unlink(self.path / name)
            self.changed()
        return leftovers

    def tree_size_bytes(self) -> int:
        """Bytes of all files here and below; one that goes away meanwhile counts as nothing."""
        return self._tree_size_bytes(self.path)

    def _tree_size_bytes(self, path: Path) -> int:
        with translating(path, "read"):
            if not self.fs.is_directory(path):
                return 0
            return sum(
                self._tree_size_bytes(path / name) if is_directory else self.fs.size_of(path / name) or 0
                for name, is_directory in self.fs.names(path)
            )

    def _remove_tree(self, path: Path) -> None:
        for name, is_directory in self.fs.names(path):
            if is_directory:
                self._remove_tree(path / name)
            else:
                self.fs.unlink(path / name)
        self.fs.remove_directory(path)

    def _entries(self) -> list[tuple[str, bool]]:
        try:
            return self.fs.names(self.path)
        except OSError as error:
            raise translated(error, self.path, "read") from error

    def _refuse_read_only(self) -> None:
        if self.read_only:
            raise FailedPrecondition(f"{self.path} is open for reading only", field=str(self.path))


def _is_temporary(name: str) -> bool:
    return name.endswith(TEMPORARY_SUFFIX)
