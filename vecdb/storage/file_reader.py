"""Reading one existing file; errors name it, and a file that ends too early is damaged."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from vecdb.errors import Corruption
from vecdb.storage.io import FileSystem, read_up_to, translating


class FileReader:
    """An existing file held open for reading; a context manager that gives its descriptor back."""

    def __init__(self, fs: FileSystem, path: Path) -> None:
        self._fs = fs
        self.path = path
        with translating(path, "read"):
            self._fd = fs.open_read(path)
        try:
            with translating(path, "read"):
                self.size_bytes = fs.size(self._fd)
                self.identity = fs.identity(self._fd)
        except BaseException:
            self.close()
            raise

    def pread(self, size_bytes: int, offset: int) -> bytes:
        """Exactly ``size_bytes`` from ``offset`` on.

        Raises
        ------
        Corruption
            The file ends before, or the device could not read it.
        """
        if offset < 0 or size_bytes < 0 or offset + size_bytes > self.size_bytes:
            raise Corruption(
                f"{self.path} ends at byte {self.size_bytes}, before {size_bytes} bytes at offset {offset}",
                field=str(self.path),
                limit=self.size_bytes,
                value=offset,
            )
        buffer = bytearray(size_bytes)
        self.pread_into(buffer, offset)
        return bytes(buffer)

    def pread_into(self, buffer: bytearray | memoryview, offset: int) -> None:
        """Fill ``buffer`` from ``offset`` on; raises as ``pread`` does."""
        count = self.pread_up_to(buffer, offset)
        if count < len(buffer):
            raise Corruption(
                f"{self.path} ends at byte {offset + count}, before {len(buffer)} bytes at offset {offset}",
                field=str(self.path),
                value=offset,
            )

    def pread_up_to(self, buffer: bytearray | memoryview, offset: int) -> int:
        """Fill ``buffer`` from ``offset`` on as far as the file reaches now; the number of bytes read."""
        with translating(self.path, "read"):
            return read_up_to(self._fs, self._fd, buffer, offset)

    def forget_cached(self) -> None:
        """Read from the device from now on, not what a failed write may have left in memory."""
        with translating(self.path, "read"):
            self._fs.forget_cached(self._fd)

    def sync(self) -> None:
        """Make durable what another process wrote and, before it ended, perhaps did not sync.

        Raises
        ------
        Unavailable
            The device failed.
        """
        with translating(self.path, "write"):
            self._fs.fdatasync(self._fd)

    def map(self) -> memoryview:
        """The whole file, mapped read-only; outlives the reader."""
        with translating(self.path, "read"):
            return self._fs.map(self._fd, self.size_bytes)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._fs.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
