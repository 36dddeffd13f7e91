"""The bytes of an array file around its arrays: header, checksum table, footer.

What ``read_frame`` returns was compared with the manifest and with itself, whatever the file holds; no size is used
before it was. Format: ``docs/formats/array-file.md``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from vecdb.errors import Corruption, FailedPrecondition
from vecdb.storage.checksum import BLOCK_BYTES, block_checksums, checksum64
from vecdb.storage.file_reader import FileReader
from vecdb.types import U64Array

MAGIC: Final = b"VECDBARR"
FOOTER_MAGIC: Final = b"VECDBEND"
VERSION: Final = 1
CODEC_PLAIN: Final = 0

_PREAMBLE: Final = struct.Struct("<8sIBBHQII")
"""magic, version, codec, zero, zero, file id, header bytes, number of arrays; then the role, then the arrays."""
_ROLE: Final = struct.Struct("<H")
"""Length of the role, in front of it."""
_ENTRY: Final = struct.Struct("<HBB")
"""Length of an array's name, dtype, number of dimensions; then the name, and 8 bytes for each dimension."""
_EXTENT: Final = struct.Struct("<QQ")
"""Offset and size of an array in bytes."""
_FOOTER: Final = struct.Struct("<8sIIQQQQ")
"""magic, version, block bytes, file id, table offset, table bytes, size bytes; then the root checksum."""
_ROOT: Final = struct.Struct("<Q")
FOOTER_BYTES: Final = _FOOTER.size + _ROOT.size

ALIGNMENT: Final = 64
PAGE_ALIGNMENT: Final = 4_096
HEADER_BYTES_MAX: Final = 1 << 20
DIMENSIONS_MAX: Final = 4
NAME_BYTES_MAX: Final = 255
DTYPES: Final = tuple(
    np.dtype(code) for code in ("?", "i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8")
)
"""The dtype of an array is stored as its position here; new ones are only appended."""


@dataclass(frozen=True, slots=True)
class FileRef:
    """What the manifest remembers of a file.

    Attributes
    ----------
    name
        Name in its directory.
    size_bytes
        Size of the whole file.
    checksum
        The root checksum, which covers the table of block checksums and so every byte.
    file_id
        The random id inside the file.
    """

    name: str
    size_bytes: int
    checksum: int
    file_id: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One array of the header."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Frame:
    """What surrounds the arrays, checked."""

    role: str
    entries: tuple[Entry, ...]
    checksums: U64Array
    body_bytes: int
    identity: tuple[int, int]


def aligned(offset: int, alignment: int) -> int:
    """``offset``, rounded up."""
    return -(-offset // alignment) * alignment


def layout(role: str, arrays: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]) -> tuple[Entry, ...]:
    """Where each array, given by its dtype and shape, goes behind the header."""
    header_bytes = _PREAMBLE.size + _ROLE.size + len(role.encode())
    for name, (_dtype, shape) in arrays.items():
        assert 0 < len(name.encode()) <= NAME_BYTES_MAX, name
        assert len(shape) <= DIMENSIONS_MAX, (name, shape)
        header_bytes += _ENTRY.size + len(name.encode()) + 8 * len(shape) + _EXTENT.size
    assert header_bytes <= HEADER_BYTES_MAX, header_bytes
    entries = []
    end = header_bytes
    for name, (dtype, shape) in arrays.items():
        little = dtype.newbyteorder("<")
        assert little in DTYPES, (name, dtype)
        size_bytes = math.prod(shape) * little.itemsize
        offset = aligned(end, PAGE_ALIGNMENT if size_bytes >= PAGE_ALIGNMENT else ALIGNMENT)
        entries.append(Entry(name, little, tuple(shape), offset, size_bytes))
        end = offset + size_bytes
    return tuple(entries)


def encode_header(role: str, entries: tuple[Entry, ...], file_id: int) -> bytes:
    """The header's bytes, as many as ``layout`` left room for."""
    role_bytes = role.encode()
    rest = bytearray(_ROLE.pack(len(role_bytes)) + role_bytes)
    for entry in entries:
        name = entry.name.encode()
        rest += _ENTRY.pack(len(name), DTYPES.index(entry.dtype), len(entry.shape)) + name
        rest += struct.pack(f"<{len(entry.shape)}Q", *entry.shape)
        rest += _EXTENT.pack(entry.offset, entry.size_bytes)
    header_bytes = _PREAMBLE.size + len(rest)
    preamble = _PREAMBLE.pack(MAGIC, VERSION, CODEC_PLAIN, 0, 0, file_id, header_bytes, len(entries))
    return preamble + bytes(rest)


def encode_footer(file_id: int, body_bytes: int, table: bytes) -> tuple[bytes, int]:
    """The bytes behind the table of block checksums, and the root checksum that they end in."""
    size_bytes = body_bytes + len(table) + FOOTER_BYTES
    footer = _FOOTER.pack(FOOTER_MAGIC, VERSION, BLOCK_BYTES, file_id, body_bytes, len(table), size_bytes)
    root = _root_checksum(table, footer, file_id)
    return footer + _ROOT.pack(root), root


def _root_checksum(table: bytes, footer: bytes, file_id: int) -> int:
    return checksum64(footer + _ROOT.pack(checksum64(table, file_id)), file_id)


def damaged(path: str, offset: int, what: str) -> Corruption:
    """The error for a file that is damaged at a place."""
    return Corruption(f"{path} {what} at offset {offset}", field=path, value=offset)


def _damage(reader: FileReader, offset: int, what: str) -> Corruption:
    return damaged(str(reader.path), offset, what)


def read_frame(reader: FileReader, ref: FileRef) -> Frame:
    """Read the frame of an open file, checked.

    Raises
    ------
    Corruption
        It is damaged, or not that of the file ``ref``.
    FailedPrecondition
        It is of a later format.
    """
    path = str(reader.path)
    size_bytes = reader.size_bytes
    if size_bytes != ref.size_bytes or size_bytes < FOOTER_BYTES:
        raise Corruption(
            f"{path} has {size_bytes} bytes, {ref.size_bytes} were written",
            field=path,
            limit=ref.size_bytes,
            value=size_bytes,
        )
    footer_at = size_bytes - FOOTER_BYTES
    end = reader.pread(FOOTER_BYTES, footer_at)
    magic, version, block_bytes, file_id, table_at, table_bytes, size_inside = _FOOTER.unpack_from(end)
    if magic != FOOTER_MAGIC:
        raise _damage(reader, footer_at, "has a damaged footer")
    root = _ROOT.unpack_from(end, _FOOTER.size)[0]
    blocks = -(-table_at // BLOCK_BYTES)
    sound = size_inside == size_bytes and table_at + table_bytes == footer_at and table_bytes == blocks * _ROOT.size
    if version == VERSION and (not sound or block_bytes != BLOCK_BYTES):
        raise _damage(reader, footer_at, "has a damaged footer")
    table = reader.pread(table_bytes, table_at) if sound else b""
    if _root_checksum(table, end[: _FOOTER.size], file_id) != root:
        raise _damage(reader, table_at if sound else footer_at, "has a damaged checksum table or footer")
    if version != VERSION:
        raise FailedPrecondition(
            f"{path} is of format version {version}, this build reads {VERSION}", field=path, limit=VERSION
        )
    if root != ref.checksum or file_id != ref.file_id:
        raise _damage(reader, footer_at, "is another file than the one that was written, as its footer shows")
    checksums = np.frombuffer(table, "<u8")
    role, entries = _read_header(reader, file_id, table_at, checksums)
    return Frame(role, entries, checksums, table_at, reader.identity)


def _read_header(
    reader: FileReader, file_id: int, body_bytes: int, checksums: U64Array
) -> tuple[str, tuple[Entry, ...]]:
    """Check the blocks that hold the header, then decode it; what passes was written by ``encode_header``."""
    first = reader.pread(min(BLOCK_BYTES, body_bytes), 0)
    header = first
    if len(first) >= _PREAMBLE.size:
        header_bytes = _PREAMBLE.unpack_from(first)[6]
        if len(first) < header_bytes <= min(HEADER_BYTES_MAX, body_bytes):
            header = reader.pread(min(aligned(header_bytes, BLOCK_BYTES), body_bytes), 0)
    for number, found in enumerate(block_checksums(header, file_id, 0)):
        if found != int(checksums[number]):
            raise _damage(reader, number * BLOCK_BYTES, "has a damaged header")
    try:
        return decode_header(header, file_id, body_bytes)
    except (struct.error, UnicodeDecodeError, AssertionError, IndexError, ValueError) as error:
        raise _damage(reader, 0, "has a header that makes no sense") from error


def decode_header(header: bytes, file_id: int, body_bytes: int) -> tuple[str, tuple[Entry, ...]]:
    """Role and arrays from the bytes of a header; raises one of Python's errors where they make no sense."""
    magic, version, codec, _zero, _zero_too, id_inside, header_bytes, count = _PREAMBLE.unpack_from(header)
    _require(magic == MAGIC and version == VERSION and codec == CODEC_PLAIN and id_inside == file_id)
    _require(header_bytes <= len(header))
    at = _PREAMBLE.size
    (role_bytes,) = _ROLE.unpack_from(header, at)
    role = header[at + _ROLE.size : at + _ROLE.size + role_bytes].decode()
    at += _ROLE.size + role_bytes
    entries = []
    previous_end = header_bytes
    for _ in range(count):
        name_bytes, dtype_number, dimensions = _ENTRY.unpack_from(header, at)
        at += _ENTRY.size
        name = header[at : at + name_bytes].decode()
        at += name_bytes
        _require(dimensions <= DIMENSIONS_MAX)
        shape = struct.unpack_from(f"<{dimensions}Q", header, at)
        offset, size_bytes = _EXTENT.unpack_from(header, at + 8 * dimensions)
        at += 8 * dimensions + _EXTENT.size
        _require(at <= header_bytes)
        dtype = DTYPES[dtype_number]
        _require(size_bytes == math.prod(shape) * dtype.itemsize)
        _require(previous_end <= offset <= body_bytes - size_bytes and offset % ALIGNMENT == 0)
        previous_end = offset + size_bytes
        entries.append(Entry(name, dtype, shape, offset, size_bytes))
    return role, tuple(entries)


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError("the header contradicts itself")
