"""Where a backup is written: a new file, or a stream that somebody else opened.

A file is written under a temporary name, synced and renamed, and its directory synced; before that nothing bears its
name. A file that exists is never replaced: it may be the only backup that is whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

from vecdb.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from vecdb.storage.io import FileSystem, translating, write_fully

Pieces: TypeAlias = Generator[bytes, None, bytes]
"""The bytes of an archive, piece by piece; it returns the manifest's."""
Target: TypeAlias = "str | Path | BinaryIO"
Progress: TypeAlias = Callable[[int], None]
"""Called with the number of bytes done since the last call."""

TEMPORARY_SUFFIX = ".tmp"


class Output(Protocol):
    """What an archive is written to."""

    def write(self, piece: bytes) -> None:
        """Append."""

    def finish(self) -> None:
        """All is written: make it last."""

    def abandon(self) -> None:
        """Leave nothing behind, as far as that is possible."""


class FileOutput:
    """A new file."""

    def __init__(self, path: Path, fs: FileSystem) -> None:
        self._fs = fs
        with translating(path, "write"):
            # Where the name leads by now, whatever becomes of the working directory later.
            self._target = fs.resolved(path)
            self._check_free()
            if not fs.is_directory(self._target.parent):
                raise NotFound(f"{self._target.parent} is no directory", field="target", value=path)
        self._path = self._target.with_name(self._target.name + TEMPORARY_SUFFIX)
        self._size_bytes = 0
        self._renamed = False
        with translating(self._path, "write"):
            self._remove_leftover()
            self._fd = fs.create(self._path)
            if not fs.lock(self._fd):
                raise self._taken()

    @property
    def path(self) -> Path:
        """Where the file will be."""
        return self._target

    def write(self, piece: bytes) -> None:
        """Append."""
        with translating(self._path, "write"):
            write_fully(self._fs, self._fd, [piece], self._size_bytes)
        self._size_bytes += len(piece)

    def finish(self) -> None:
        """Make it durable and give it its name."""
        with translating(self._path, "write"):
            self._fs.fsync(self._fd)
            self._check_free()
            self._fs.rename(self._path, self._target)
            self._renamed = True
            self._fs.fsync_directory(self._target.parent)
        self._close()

    def abandon(self) -> None:
        """Remove what was written."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):  # The next backup of this name removes it.
                path = self._target if self._renamed else self._path
                if self._fs.size_of(path) is not None:
                    self._fs.unlink(path)
            self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        self._fs.close(fd)

    def _check_free(self) -> None:
        if self._fs.size_of(self._target) is not None:
            raise AlreadyExists(
                f"{self._target} exists; a backup never replaces a file", field="target", value=self._target
            )

    def _remove_leftover(self) -> None:
        """Remove what a backup left that was killed; not what another is writing."""
        if self._fs.size_of(self._path) is None:
            return
        fd = self._fs.open_lock(self._path)
        try:
            if not self._fs.lock(fd):
                raise self._taken()
            self._fs.unlink(self._path)
        finally:
            self._fs.close(fd)

    def _taken(self) -> FailedPrecondition:
        return FailedPrecondition(f"another backup is writing {self._target}", field="target", value=self._target)


class StreamOutput:
    """A binary file object: a pipe, a socket's file, standard output. Its own errors are its owner's."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, piece: bytes) -> None:
        """Append; a raw stream may take a part at a time."""
        view = memoryview(piece)
        while view:
            written = self._stream.write(view)
            if not written:
                raise InvalidArgument("target takes no bytes: it must be a blocking file object", field="target")
            view = view[written:]

    def finish(self) -> None:
        """Hand on what is buffered."""
        self._stream.flush()

    def abandon(self) -> None:
        """What was written is out of reach; without its manifest it is refused."""


def output_to(target: Target, fs: FileSystem | None = None) -> Output:
    """The output for a path or a binary file object; ``fs`` is the real file system unless given.

    Raises
    ------
    InvalidArgument
        It is neither.
    AlreadyExists
        There is such a file.
    NotFound
        There is no such directory.
    """
    if isinstance(target, str | Path):
        return FileOutput(Path(target), fs or FileSystem())
    if not hasattr(target, "write"):
        raise InvalidArgument(
            f"target must be a path or a binary file object, got {type(target).__name__}", field="target", value=target
        )
    return StreamOutput(target)


def write_pieces(pieces: Pieces, output: Output, progress: Progress | None) -> tuple[bytes, int]:
    """Write an archive; its manifest and its size in bytes. On an error nothing is left, and ``pieces`` is closed."""
    size_bytes = 0
    try:
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                manifest: bytes = end.value
                break
            output.write(piece)
            size_bytes += len(piece)
            if progress is not None:
                progress(len(piece))
        output.finish()
    except BaseException:
        output.abandon()
        raise
    finally:
        pieces.close()
    return manifest, size_bytes
