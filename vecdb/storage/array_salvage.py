"""What is left of a damaged array file: the blocks that are provably as they were written, and the arrays they hold.

A block counts as whole where the table of checksums in the file says so, or where all blocks together give the root
checksum that the manifest holds; the table and the footer may then be damaged themselves. Format:
``docs/formats/array-file.md``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

from vecdb.errors import Corruption
from vecdb.storage.array_format import (
    ALIGNMENT,
    FOOTER_BYTES,
    Entry,
    FileRef,
    aligned,
    decode_header,
    encode_footer,
    encode_header,
    layout,
)
from vecdb.storage.checksum import BLOCK_BYTES, block_checksums
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.file_reader import FileReader
from vecdb.types import AnyArray, BoolArray, I64Array, U64Array

_CHECKSUM_BYTES: Final = 8
_READ_BYTES: Final = 1 << 20

Shapes: TypeAlias = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class Remains:
    """The arrays of a damaged file; what lies in damaged blocks of them is anything.

    Attributes
    ----------
    arrays
        Name to array, in memory.
    """

    arrays: Mapping[str, AnyArray]
    _entries: Mapping[str, Entry]
    _damaged_before: I64Array

    def whole(self, name: str, begins: AnyArray, ends: AnyArray) -> BoolArray:
        """Whether the items from ``begins`` up to before ``ends`` of an array lie in whole blocks, (n,) bool.

        Ranges that end before they begin, or outside the array, are not whole; empty ones are.
        """
        entry = self._entries[name]
        count = entry.shape[0]
        sound = (begins >= 0) & (begins <= ends) & (ends <= count)
        item_bytes = entry.size_bytes // max(1, count)
        first = entry.offset + np.where(sound, begins, 0).astype(np.int64) * item_bytes
        end = entry.offset + np.where(sound, ends, 0).astype(np.int64) * item_bytes
        damaged = self._damaged_before[-(-end // BLOCK_BYTES)] - self._damaged_before[first // BLOCK_BYTES]
        whole: BoolArray = sound & ((damaged <= 0) | (first == end))
        return whole

    def whole_items(self, name: str) -> BoolArray:
        """Whether each item of an array's first axis lies in whole blocks, (n,) bool."""
        numbers = np.arange(self._entries[name].shape[0])
        return self.whole(name, numbers, numbers + 1)


def salvage(directory: MmapDirectory, ref: FileRef, role: str, layouts: Iterable[Shapes] = ()) -> Remains | None:
    """What is left of a file; None where it cannot be told which bytes belong to which array, or nothing is left.

    Parameters
    ----------
    role
        What the file is for.
    layouts
        What its arrays may have been, for a file whose header is damaged: the one that gives the header's checksum is
        the right one.
    """
    body_bytes = _body_bytes(ref.size_bytes)
    if body_bytes is None:
        return None
    try:
        with directory.open_reader(ref.name) as reader:
            body = _read(reader, 0, body_bytes)
            table = _read(reader, body_bytes, ref.size_bytes - FOOTER_BYTES - body_bytes)
    except Corruption:
        return None
    found = np.array(block_checksums(body, ref.file_id, 0), np.uint64)
    stored = np.frombuffer(table, "<u8")
    whole = found == stored
    if encode_footer(ref.file_id, body_bytes, found.astype("<u8").tobytes())[1] == ref.checksum:
        whole = np.ones(found.shape, np.bool_)
    entries = _entries(body, ref, whole, stored, role, layouts)
    if entries is None:
        return None
    damaged_before = np.zeros(whole.shape[0] + 1, np.int64)
    np.cumsum(~whole, out=damaged_before[1:])
    arrays: dict[str, AnyArray] = {}
    for entry in entries:
        count = entry.size_bytes // entry.dtype.itemsize
        arrays[entry.name] = np.frombuffer(body, entry.dtype, count, entry.offset).reshape(entry.shape)
    return Remains(arrays, {entry.name: entry for entry in entries}, damaged_before)


def body_bytes_of(ref: FileRef) -> int:
    """Size of a file's body, the header and the arrays, as its size tells; 0 where it tells nothing."""
    return _body_bytes(ref.size_bytes) or 0


def _body_bytes(size_bytes: int) -> int | None:
    inside = size_bytes - FOOTER_BYTES
    blocks = -(-inside // (BLOCK_BYTES + _CHECKSUM_BYTES))
    body_bytes = inside - blocks * _CHECKSUM_BYTES
    return body_bytes if body_bytes > 0 and -(-body_bytes // BLOCK_BYTES) == blocks else None


def _read(reader: FileReader, offset: int, size_bytes: int) -> bytearray:
    """Bytes of a file; zeros where it ends too early or the device cannot read it, which no checksum will match."""
    data = bytearray(size_bytes)
    with memoryview(data) as view:
        for at in range(0, size_bytes, _READ_BYTES):
            piece = view[at : at + _READ_BYTES]
            try:
                reader.pread_up_to(piece, offset + at)
            except Corruption:
                for block in range(0, len(piece), BLOCK_BYTES):
                    _read_block(reader, piece[block : block + BLOCK_BYTES], offset + at + block)
    return data


def _read_block(reader: FileReader, block: memoryview, offset: int) -> None:
    try:
        reader.pread_up_to(block, offset)
    except Corruption:
        block[:] = bytes(len(block))


def _entries(
    body: bytearray, ref: FileRef, whole: BoolArray, stored: U64Array, role: str, layouts: Iterable[Shapes]
) -> tuple[Entry, ...] | None:
    """Where each array is: as the header says, or as the only header says that would have the header's checksum."""
    try:
        if whole[0]:
            found, entries = decode_header(bytes(body), ref.file_id, len(body))
            header_blocks = -(-_header_end(role, entries) // BLOCK_BYTES)
            return entries if found == role and whole[:header_blocks].all() else None
    except (struct.error, UnicodeDecodeError, IndexError, ValueError):
        return None
    for shapes in layouts:
        entries = layout(role, shapes)
        last = entries[-1]
        if aligned(last.offset + last.size_bytes, ALIGNMENT) != len(body):
            continue
        header = encode_header(role, entries, ref.file_id)
        # With arrays in the same block nothing can be proven.
        if len(header) <= BLOCK_BYTES <= min(entry.offset for entry in entries):
            block = header.ljust(BLOCK_BYTES, b"\0")
            if block_checksums(block, ref.file_id, 0)[0] == int(stored[0]):
                return decode_header(block, ref.file_id, len(body))[1]
    return None


def _header_end(role: str, entries: tuple[Entry, ...]) -> int:
    return len(encode_header(role, entries, 0))
