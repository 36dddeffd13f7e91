"""Small logs for the tests: made, opened, and damaged."""

from collections.abc import Sequence
from pathlib import Path

from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem
from vecdb.storage.log_format import HEADER_BYTES, RECORD_HEADER_BYTES, padded
from vecdb.storage.wal import Log

Records = list[tuple[int, bytes]]

FILE_BYTES = 4_096


def opened(
    path: Path, after_seq: int = 0, fs: FileSystem | None = None, *, read_only: bool = False
) -> tuple[Log, Records]:
    log = Log(
        MmapDirectory(path, fs or FileSystem(), read_only=read_only),
        file_bytes_first=FILE_BYTES,
        file_bytes_max=4 * FILE_BYTES,
    )
    return log, list(log.replay(after_seq))


def payload(seq: int, size: int = 50) -> bytes:
    return (b"%d." % seq * size)[:size]


def some(first: int, last: int, size: int = 50) -> Records:
    return [(seq, payload(seq, size)) for seq in range(first, last + 1)]


def filled(path: Path, groups: Sequence[Records], *, close: bool = False) -> None:
    """A log of synced groups, left open as by a crash, or closed."""
    path.mkdir(exist_ok=True)
    log, _ = opened(path)
    for group in groups:
        log.append(group)
        log.sync()
    if close:
        log.close()


def last_file(path: Path) -> Path:
    return max(path.glob("*.log"))


def offsets(sizes: Sequence[int]) -> list[int]:
    """Where the records of a file begin, and where the last one ends."""
    at = [HEADER_BYTES]
    for size in sizes:
        at.append(at[-1] + RECORD_HEADER_BYTES + padded(size))
    return at


def flip(path: Path, offset: int, bits: int = 0x40) -> None:
    with path.open("r+b", buffering=0) as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ bits]))
