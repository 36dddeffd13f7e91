"""Checksums of stored bytes: XXH3-64, seeded so that a right block in a wrong place does not pass.

Write-once files are checked in blocks of 4 KiB, each seeded with the file's id and the block's number; log records are
seeded with the file's id and the record's offset.
"""

from __future__ import annotations

import secrets
from typing import Final

import xxhash

from vecdb.storage.io import Buffer

BLOCK_BYTES: Final = 4_096
"""Granularity of verification in write-once files."""

_WORD: Final = 0xFFFF_FFFF_FFFF_FFFF
_ODD: Final = 0x9E37_79B9_7F4A_7C15
"""An odd 64-bit constant (the golden ratio's fraction): multiplying by it spreads small numbers over all bits."""


def checksum64(data: Buffer, seed: int = 0) -> int:
    """XXH3-64 of ``data``."""
    return xxhash.xxh3_64_intdigest(data, seed)


def place_seed(file_id: int, place: int) -> int:
    """The seed of what lies at ``place`` (a block's number or a byte's offset) of the file ``file_id``."""
    return file_id ^ (place * _ODD & _WORD)


def block_checksums(data: Buffer, file_id: int, first_block: int) -> list[int]:
    """Checksum of each 4 KiB block of ``data``, of which the last may be shorter.

    Parameters
    ----------
    data
        Bytes of a file from a block's beginning on.
    file_id
        Id of the file.
    first_block
        Number of the block that ``data`` begins with.
    """
    digest = xxhash.xxh3_64_intdigest
    seed_step = _ODD
    with memoryview(data) as view:
        return [
            digest(view[at : at + BLOCK_BYTES], file_id ^ ((first_block + number) * seed_step & _WORD))
            for number, at in enumerate(range(0, len(view), BLOCK_BYTES))
        ]


def random_id() -> int:
    """A random 64-bit number that is not 0."""
    return secrets.randbits(64) or 1
