"""An LMDB environment as a file of bytes: its fingerprint, its root record, the checksums of its values.

The root record holds the sum of all values' checksums, so that a value that is missing, or is the older one that a
damaged page still leads to, is noticed although its own checksum is right. Format: ``docs/formats/lmdb.md``.
"""

from __future__ import annotations

import resource
import struct
from dataclasses import dataclass
from typing import Final

import xxhash

from vecdb.errors import Corruption, FailedPrecondition, Unavailable
from vecdb.storage.checksum import checksum64
from vecdb.storage.directory import MmapDirectory

DATA_NAME: Final = "data.mdb"
ROOT_KEY: Final = b"\0vecdb"
CHECKSUM: Final = struct.Struct("<Q")
"""In front of every value; it covers key and value and is seeded with the environment's id."""
SUM_MODULUS: Final = 1 << 64

_MAGIC: Final = b"VECDBENV"
_VERSION: Final = 1
_ROOT: Final = struct.Struct("<8sIIQQQQ")
"""magic, version, zero, environment id, generation, number of values, sum of their checksums; then a checksum."""
_KEY_LENGTH: Final = struct.Struct("<H")
_META_BYTES: Final = 2 * resource.getpagesize()
"""The first two pages, which tell what state the file is in."""
TAG: Final = struct.Struct("<Q")
TAG_AT: Final = 2048
"""Where a file has a random number of its own: in the first page, far behind what LMDB writes there (152 bytes)."""
_READ_BYTES: Final = 1 << 20
_COPY_ATTEMPTS: Final = 100


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """One state of an environment, by which it is known again.

    Attributes
    ----------
    environment_id
        Random 64-bit number, drawn when the environment was made.
    generation
        How many transactions were committed.
    digest
        XXH3-64 of the bytes of the data file.
    """

    environment_id: int
    generation: int
    digest: int


@dataclass(frozen=True, slots=True)
class Root:
    """The record that vouches for all the others.

    Attributes
    ----------
    environment_id, generation
        As in ``Fingerprint``.
    count
        Number of values, this record not counted.
    checksum_sum
        Sum of their checksums, modulo 2**64.
    """

    environment_id: int
    generation: int
    count: int
    checksum_sum: int

    def encode(self) -> bytes:
        """The record's bytes."""
        body = _ROOT.pack(_MAGIC, _VERSION, 0, self.environment_id, self.generation, self.count, self.checksum_sum)
        return body + CHECKSUM.pack(checksum64(body))

    @classmethod
    def decode(cls, data: bytes | None, path: str) -> Root:
        """The record, from its bytes in the environment at ``path``.

        Raises
        ------
        Corruption
            It is missing or damaged.
        FailedPrecondition
            It is of a later format.
        """
        if data is None or len(data) != _ROOT.size + CHECKSUM.size:
            raise Corruption(f"{path} has no root record", field=path)
        magic, version, _zero, environment_id, generation, count, checksum_sum = _ROOT.unpack_from(data)
        if magic != _MAGIC or CHECKSUM.unpack_from(data, _ROOT.size)[0] != checksum64(data[: _ROOT.size]):
            raise Corruption(f"{path} has a damaged root record", field=path)
        if version != _VERSION:
            raise FailedPrecondition(
                f"{path} is of format version {version}, this build reads {_VERSION}", field=path, limit=_VERSION
            )
        return cls(environment_id, generation, count, checksum_sum)

    def require_at_least(self, expected: Fingerprint, path: str) -> None:
        """Compare with what the mirror says.

        Raises
        ------
        Corruption
            This is an older state than the mirror's, or one of another environment.
        """
        if self.environment_id != expected.environment_id:
            raise Corruption(f"{path} is the file of another environment", field=path)
        if self.generation < expected.generation:
            raise Corruption(
                f"{path} is a stale copy: it is of generation {self.generation}, the mirror of {expected.generation}",
                field=path,
                limit=expected.generation,
                value=self.generation,
            )


def value_checksum(key: bytes | memoryview, value: bytes | memoryview, environment_id: int) -> int:
    """The checksum that is stored in front of ``value``, bound to its key and environment."""
    digest = xxhash.xxh3_64(_KEY_LENGTH.pack(len(key)), seed=environment_id)
    digest.update(key)
    digest.update(value)
    return digest.intdigest()


def stored_checksum(key: bytes, stored: bytes, environment_id: int, path: str) -> int:
    """The checksum in front of what is stored under a key of the environment at ``path``, once it is found right.

    Raises
    ------
    Corruption
        It is not that of this key and the value behind it.
    """
    value = stored[CHECKSUM.size :]
    checksum: int = CHECKSUM.unpack_from(stored)[0] if len(stored) >= CHECKSUM.size else -1
    if checksum != value_checksum(key, value, environment_id):
        raise Corruption(f"{path} has a damaged value under the key {key[:16].hex()}...", field=path)
    return checksum


def present_digest(directory: MmapDirectory) -> int:
    """XXH3-64 of the bytes of the data file as they are now.

    Raises
    ------
    Corruption
        The file is missing or cannot be read.
    """
    digest = xxhash.xxh3_64()
    with directory.open_reader(DATA_NAME) as reader:
        buffer = bytearray(min(_READ_BYTES, reader.size_bytes))
        for offset in range(0, reader.size_bytes, _READ_BYTES):
            with memoryview(buffer)[: min(_READ_BYTES, reader.size_bytes - offset)] as part:
                reader.pread_into(part, offset)
                digest.update(part)
    return digest.intdigest()


def state_pages(directory: MmapDirectory) -> bytes:
    """The first two pages of the data file, one of which every commit changes.

    While they stay as they are, so does all that the environment holds; they may have been read amid a change. A file
    that takes the place of another differs in its tag: LMDB counts the transactions of each file from 1, so that two
    of the same shape would be alike.

    Raises
    ------
    Corruption
        The file is missing, too short or cannot be read.
    """
    with directory.open_reader(DATA_NAME) as reader:
        return reader.pread(_META_BYTES, 0)


def consistent_copy(directory: MmapDirectory) -> bytes:
    """The bytes of the data file as of one commit, though its owner may be writing.

    A commit writes pages that the last state does not use, then one of the first two. So the pages of a state are whole
    if those two did not change from before the copy until after it.

    Raises
    ------
    Corruption
        The file is missing, too short or cannot be read.
    Unavailable
        The owner committed all the time.
    """
    for _ in range(_COPY_ATTEMPTS):
        with directory.open_reader(DATA_NAME) as before:
            metas = before.pread(_META_BYTES, 0)
            # Opened again for its size, which must be taken after the first two pages.
            with directory.open_reader(DATA_NAME) as reader:
                data = reader.pread(reader.size_bytes, 0)
                if reader.identity == before.identity and data[:_META_BYTES] == metas == before.pread(_META_BYTES, 0):
                    return data
    path = str(directory.path_of(DATA_NAME))
    raise Unavailable(f"{path} changed during each of {_COPY_ATTEMPTS} attempts to copy it", field=path)
