"""A small disk of its own for a test: a tmpfs of a given size, mounted where the machine allows it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_CHUNKS = (1 << 20, 1 << 16, 1 << 12)


@contextmanager
def small_disk(place: Path, size_bytes: int) -> Iterator[Path]:
    """A disk of ``size_bytes`` mounted at ``place``; skips the test where that is not allowed."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


class Ballast:
    """A file that takes all the space there is but for a given rest."""

    def __init__(self, place: Path) -> None:
        self._path = place / "ballast"
        self._place = place

    def fill(self, rest_bytes: int = 0) -> None:
        """Take all of the free space but for ``rest_bytes``."""
        free = os.statvfs(self._place).f_bavail * os.statvfs(self._place).f_frsize
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        at = os.fstat(fd).st_size
        wanted = at + max(0, free - rest_bytes)
        for chunk in _CHUNKS:
            while at + chunk <= wanted:
                try:
                    os.posix_fallocate(fd, at, chunk)
                except OSError:
                    break
                at += chunk
        os.close(fd)

    def drop(self) -> None:
        """Give all of it back."""
        self._path.unlink(missing_ok=True)
