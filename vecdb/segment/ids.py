"""Point ids as bytes and as hashes.

The encoded id (its *key*) orders as ids do: integers before strings, integers by value, strings by their UTF-8 bytes.
Hashes are keyed with a secret of the collection, so that nobody can choose ids that collide.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from vecdb.errors import Corruption
from vecdb.types import AnyArray, I64Array, PointId, U8Array, U32Array, U64Array

HASH_KEY_BYTES = 16
_INTEGER, _STRING = b"\0", b"\1"
_INTEGER_BYTES = 9
_INTEGER_KEY = np.dtype([("kind", np.uint8), ("value", ">u8")])


def key_of(point_id: PointId) -> bytes:
    """The encoded id: a zero byte and 8 big-endian bytes, or a one byte and the UTF-8 text."""
    if isinstance(point_id, int):
        return _INTEGER + point_id.to_bytes(8, "big")
    return _STRING + point_id.encode()


def id_of(key: bytes) -> PointId:
    """The id that ``key`` encodes; raises Corruption for bytes that encode none."""
    kind = key[:1]
    if kind == _STRING:
        try:
            return key[1:].decode()
        except UnicodeDecodeError:
            pass
    elif kind == _INTEGER and len(key) == _INTEGER_BYTES:
        return int.from_bytes(key[1:], "big")
    raise Corruption(f"{key[:20]!r} does not encode an id", field="ids", value=key[:20].hex())


def hash_keys(keys: Iterable[bytes], hash_key: bytes) -> U64Array:
    """The 64-bit hash of each key, (n,) uint64."""
    blake2b = hashlib.blake2b
    digests = b"".join([blake2b(key, digest_size=8, key=hash_key).digest() for key in keys])
    return np.frombuffer(digests, "<u8")


def pack(parts: Sequence[bytes]) -> tuple[U64Array, U8Array]:
    """The parts one after the other, and the (n+1,) uint64 offsets at which each begins and ends."""
    offsets = np.zeros(len(parts) + 1, np.uint64)
    np.cumsum(np.fromiter(map(len, parts), np.uint64, len(parts)), out=offsets[1:])
    return offsets, np.frombuffer(b"".join(parts), np.uint8)


class Packed:
    """What ``pack`` made, part by part; the arrays stay as they are, also where they are maps of files."""

    __slots__ = ("_data", "_offsets")

    def __init__(self, offsets: U64Array, data: U8Array) -> None:
        # Single items of a memoryview cost a fraction of those of an array.
        self._offsets = offsets.data
        self._data = data.data

    def __getitem__(self, part: int) -> bytes:
        return self._data[self._offsets[part] : self._offsets[part + 1]].tobytes()


class PackedKeys(Packed):
    """The key of each row, and the id that it encodes."""

    __slots__ = ("_integers",)

    def __init__(self, offsets: U64Array, data: U8Array) -> None:
        super().__init__(offsets, data)
        self._integers = _integers(offsets, data)

    def id_at(self, row: int) -> PointId:
        """The id of a row; raises Corruption where the bytes encode none."""
        if self._integers is not None:
            value: int = self._integers.item(row)
            return value
        return id_of(self[row])

    def ids_at(self, rows: I64Array) -> list[PointId]:
        """The ids of (n,) rows, in their order; raises as ``id_at``."""
        if self._integers is not None:
            values: list[PointId] = self._integers[rows].tolist()
            return values
        data, offsets = self._data, self._offsets
        return [id_of(data[offsets[row] : offsets[row + 1]].tobytes()) for row in rows.tolist()]


def _integers(offsets: U64Array, data: U8Array) -> AnyArray | None:
    """The ids of all rows, (n,) big-endian uint64 in place; ``None`` where they are not all integers."""
    n = offsets.shape[0] - 1
    if data.shape != (n * _INTEGER_BYTES,) or not data.flags.c_contiguous:
        return None
    keys = data.view(_INTEGER_KEY)
    if keys["kind"].any() or not np.array_equal(offsets, np.arange(n + 1, dtype=np.uint64) * _INTEGER_BYTES):
        return None
    integers: AnyArray = keys["value"]
    return integers


def find_keys(
    wanted: Sequence[bytes],
    wanted_hashes: U64Array,
    hashes: U64Array,
    hash_rows: U32Array,
    key_at: Sequence[bytes],
) -> I64Array:
    """The row of each wanted key, (n,) int64, -1 where it is absent.

    Parameters
    ----------
    hashes, hash_rows
        Ascending hashes and the row of each.
    key_at
        The key of a row; only looked at where a hash matches.
    """
    rows = np.full(len(wanted), -1, np.int64)
    if hashes.shape[0] == 0 or not wanted:
        return rows
    first = np.searchsorted(hashes, wanted_hashes, "left")
    inside = first < hashes.shape[0]
    candidates = np.flatnonzero(inside & (hashes[np.where(inside, first, 0)] == wanted_hashes))
    for position in candidates.tolist():
        at = int(first[position])
        while at < hashes.shape[0] and hashes[at] == wanted_hashes[position]:
            row = int(hash_rows[at])
            if key_at[row] == wanted[position]:
                rows[position] = row
                break
            at += 1
    return rows
