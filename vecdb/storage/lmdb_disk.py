"""The disk that an LMDB environment needs at most: for a commit, or to be written anew.

To LMDB a write that a full disk cuts short is a broken device, or a damaged file. So where a disk is short of space, it
is had before LMDB writes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import translating

_EMPTY_BYTES: Final = 32 << 10
"""More than an environment with a value or two takes."""
_DEPTH_MAX: Final = 8
"""Pages from the root to a value; an LMDB of 2^32 values needs no more."""
_SPARE_PAGES: Final = 4
"""For LMDB's list of free pages, and a root that splits."""
_PLENTY_BYTES: Final = 256 << 20
"""Free disk that no commits of one moment use up."""
_ENTRY_BYTES: Final = 64
"""What a value takes beside its bytes: its checksum, LMDB's header of it, its share of the page above."""


def short_of_disk(directory: MmapDirectory) -> bool:
    """Whether a commit might meet a full disk. Where there is plenty, a file is made no larger than it has to be."""
    with translating(directory.path, "read"):
        return directory.fs.free_bytes(directory.path) < _PLENTY_BYTES


def environment_bytes(values: Mapping[bytes, bytes]) -> int:
    """The size of a file that holds just these values."""
    # What is put fills pages by half.
    return _EMPTY_BYTES + 2 * _entries_bytes(values)


def committed_bytes(
    puts: Mapping[bytes, bytes], deletes: Collection[bytes], *, used_pages: int, page_bytes: int
) -> int:
    """The size of a file after a commit to it; ``used_pages`` before it."""
    # At most every used page is copied, and what is added fills pages by half.
    pages = used_pages + min(used_pages, _DEPTH_MAX * (len(puts) + len(deletes))) + _SPARE_PAGES
    return pages * page_bytes + 2 * _entries_bytes(puts)


def _entries_bytes(values: Mapping[bytes, bytes]) -> int:
    return sum(len(key) + len(value) + _ENTRY_BYTES for key, value in values.items())
