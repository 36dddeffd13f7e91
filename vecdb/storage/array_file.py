"""A write-once file of named arrays, of which every byte is covered by a checksum that the manifest vouches for.

Opening checks the frame (size, footer, checksum table, header); the arrays are mapped, and checked whole (``verify``)
or by the rows that are about to be used (``ensure``), always with ``pread``, so that a device error is an exception and
not a SIGBUS. Format: ``docs/formats/array-file.md``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from vecdb.errors import Corruption, Internal
from vecdb.storage.array_format import (
    ALIGNMENT,
    PAGE_ALIGNMENT,
    Entry,
    FileRef,
    Frame,
    aligned,
    damaged,
    encode_footer,
    encode_header,
    layout,
    read_frame,
)
from vecdb.storage.checksum import BLOCK_BYTES, block_checksums, random_id
from vecdb.storage.directory import FileWriter, MmapDirectory
from vecdb.storage.file_reader import FileReader
from vecdb.storage.io import address_of, translating
from vecdb.types import AnyArray, BoolArray, I64Array, U64Array

__all__ = ["ArrayFile", "ArraySource", "ArrayStream", "FileRef", "write_array_file"]

_CHUNK_BYTES: Final = 1 << 20
"""Bytes read or written by one call: many blocks, yet small enough to stay in the second-level cache."""
_BLOCKS_LOCKED: Final = 16 * _CHUNK_BYTES // BLOCK_BYTES
"""Blocks that are checked while others wait."""


@dataclass(frozen=True, slots=True)
class ArrayStream:
    """An array that is produced piece by piece along its first axis and is never whole in memory.

    Attributes
    ----------
    dtype
        Its dtype.
    shape
        Its shape, known beforehand.
    chunks
        Arrays of that dtype whose first axes add up to ``shape[0]``.
    """

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    chunks: Iterable[AnyArray]


ArraySource: TypeAlias = AnyArray | ArrayStream


def write_array_file(
    directory: MmapDirectory,
    name: str,
    role: str,
    arrays: Mapping[str, ArraySource],
    *,
    file_id: int | None = None,
    replace: bool = False,
) -> FileRef:
    """Write named arrays into a new file, synced and renamed; its name is durable after ``directory.sync()``.

    Parameters
    ----------
    directory
        Where.
    name
        Name of the file, which must be new.
    role
        What the file is for; checked by whoever opens it.
    arrays
        Name to array, of any memory order, or to a stream; at most 4 dimensions, any length. They come back in C order.
    file_id
        A 64-bit number for the file; drawn at random by default. A given one makes the file reproducible.
    replace
        Whether a file of this name may be there, which nothing names any more.

    Raises
    ------
    ResourceExhausted, Unavailable
        The file could not be written; nothing is left of it.
    Internal
        There is a file of this name: none is ever rewritten.
    """
    if not replace and directory.exists(name):
        raise Internal(f"{directory.path_of(name)} is there already", field=str(directory.path_of(name)))
    chosen_id = random_id() if file_id is None else file_id
    entries = layout(role, {array_name: (source.dtype, source.shape) for array_name, source in arrays.items()})
    with directory.create(name) as writer:
        body = _BlockWriter(writer, chosen_id)
        body.write(encode_header(role, entries, chosen_id))
        for entry, source in zip(entries, arrays.values(), strict=True):
            body.pad_to(entry.offset)
            for piece in _pieces(source):
                body.write(piece)
            assert body.size_bytes == entry.offset + entry.size_bytes, (entry, body.size_bytes)
        body.pad_to(aligned(body.size_bytes, ALIGNMENT))
        table = body.finish()
        footer, root = encode_footer(chosen_id, body.size_bytes, table)
        writer.write(table, footer)
        writer.finish()
        size_bytes = writer.size_bytes
    return FileRef(name, size_bytes, root, chosen_id)


class ArrayFile:
    """A file of arrays, opened and mapped.

    Attributes
    ----------
    ref
        What the manifest says of it.
    role
        What the file is for.
    arrays
        Name to read-only view. The views keep the mapping alive, also after the file is unlinked.
    verified
        Whether every block was found to be what was written.
    """

    def __init__(self, directory: MmapDirectory, ref: FileRef, frame: Frame, mapping: memoryview) -> None:
        self.ref = ref
        self.role = frame.role
        self.verified = False
        self._directory = directory
        self._identity = frame.identity
        self._mapping = mapping
        self._entries = {entry.name: entry for entry in frame.entries}
        self._body_bytes = frame.body_bytes
        self._checksums: U64Array = frame.checksums
        self._checked: BoolArray = np.zeros(frame.checksums.shape[0], np.bool_)
        self._unchecked = frame.checksums.shape[0]
        self._checking = threading.Lock()
        self.arrays: dict[str, AnyArray] = {entry.name: _view(mapping, entry) for entry in frame.entries}

    @classmethod
    def open(cls, directory: MmapDirectory, ref: FileRef, *, role: str | None = None) -> ArrayFile:
        """Check the frame of a file against ``ref`` and map it; the arrays' content is not checked yet.

        Raises
        ------
        Corruption
            The file is missing, of another size, another file, or damaged; or it plays another role than ``role``.
        FailedPrecondition
            It was written in a later format.
        """
        with directory.open_reader(ref.name) as reader:
            frame = read_frame(reader, ref)
            if role is not None and frame.role != role:
                raise damaged(str(reader.path), 0, f"plays the role {frame.role!r}, not {role!r}")
            return cls(directory, ref, frame, reader.map())

    @property
    def address(self) -> int:
        """Where its mapping begins in the memory of this process."""
        return address_of(self._mapping)

    def populate(self) -> None:
        """Read all of it into memory; raises Corruption where the device cannot read it, as ``verify`` does."""
        with translating(self._directory.path_of(self.ref.name), "read"):
            self._directory.fs.populate(self._mapping)

    def read_rows(self, array_name: str, rows: I64Array) -> AnyArray:
        """Copies of rows of an array of numbers, (len(rows), ...), read without mapping a page.

        Parameters
        ----------
        rows
            (n,) int64, ascending, each once; ``ensure`` was called for them.

        Raises
        ------
        Corruption
            The device cannot read them.
        """
        entry = self._entries[array_name]
        array = self.arrays[array_name]
        if rows.shape[0] == 0:
            return array[:0]
        reader = self._reader_of_mapped_file()
        if reader is None:
            # The name is gone, and what is mapped is all that there is.
            kept: AnyArray = array[rows]
            return kept
        with reader:
            read = np.empty((rows.shape[0], *array.shape[1:]), array.dtype)
            row_bytes = read.nbytes // rows.shape[0]
            content = read.reshape(-1).view(np.uint8).data
            at = 0
            for first, count in _runs(rows, rows.shape[0]):
                end = at + count * row_bytes
                reader.pread_into(content[at:end], entry.offset + first * row_bytes)
                at = end
        return read

    def release(self) -> None:
        """Give back the memory that its pages take. Whoever is reading it reads on, and brings them back."""
        with translating(self._directory.path_of(self.ref.name), "read"):
            self._directory.fs.release(self._mapping)

    def verify(self) -> None:
        """Check every block that was not checked yet.

        Raises
        ------
        Corruption
            A block is damaged or cannot be read; the message names the file and the offset.
        """
        for first in range(0, self._checked.shape[0], _BLOCKS_LOCKED):
            # Part by part, so that a query that needs a few rows of a large file need not wait for all of it.
            with self._checking:
                if self.verified:
                    return
                self._check(first + np.flatnonzero(~self._checked[first : first + _BLOCKS_LOCKED]))

    def ensure(self, array_name: str, rows: AnyArray | None = None) -> None:
        """Check the blocks that hold the given rows of an array, as far as they were not checked yet.

        Parameters
        ----------
        array_name
            One of ``arrays``.
        rows
            (n,) integers, indices of the first axis, in any order; None for all.

        Raises
        ------
        Corruption
            As ``verify`` does.
        """
        if self.verified:
            return
        entry = self._entries[array_name]
        if entry.size_bytes == 0:
            return
        wanted = _blocks_of(entry, rows)
        missing = wanted[~self._checked[wanted]]
        if missing.shape[0] == 0:
            return
        with self._checking:
            if not self.verified:
                missing = np.unique(missing)
                self._check(missing[~self._checked[missing]])

    def _check(self, blocks: I64Array) -> None:
        """Check ``blocks``, which were not checked yet, ascending and without repeats."""
        if blocks.shape[0] == 0:
            return
        path = self._directory.path_of(self.ref.name)
        chunk_blocks = _CHUNK_BYTES // BLOCK_BYTES
        buffer = bytearray(min(_CHUNK_BYTES, BLOCK_BYTES * int(blocks.shape[0])))
        reader = self._reader_of_mapped_file()
        try:
            for first, count in _runs(blocks, chunk_blocks):
                begin = first * BLOCK_BYTES
                size_bytes = min(count * BLOCK_BYTES, self._body_bytes - begin)
                if reader is None:
                    content = self._mapping[begin : begin + size_bytes]
                else:
                    content = memoryview(buffer)[:size_bytes]
                    reader.pread_into(content, begin)
                found = np.array(block_checksums(content, self.ref.file_id, first), np.uint64)
                right = found == self._checksums[first : first + count]
                if not right.all():
                    offset = (first + int(np.argmin(right))) * BLOCK_BYTES
                    raise damaged(str(path), offset, "is damaged in the block")
                self._checked[first : first + count] = True
                self._unchecked -= count
        finally:
            if reader is not None:
                reader.close()
        if self._unchecked == 0:
            self.verified = True
            # The table is of no more use; 8 bytes for every 4 KiB add up. A caller of ensure() that has just seen
            # verified == False still indexes _checked, which stays as it is, all true.
            self._checksums = np.zeros(0, np.uint64)

    def _reader_of_mapped_file(self) -> FileReader | None:
        """The mapped file, opened again by its name; None where the name is gone and only the mapping is left."""
        try:
            reader = self._directory.open_reader(self.ref.name)
        except Corruption:
            # Looked for afterwards: the owner of the directory may be another process, and unlink it at any time.
            if self._directory.exists(self.ref.name):
                raise
            return None
        if reader.identity != self._identity:
            reader.close()
            return None
        return reader


class _BlockWriter:
    """Passes bytes on to a file in large pieces and takes the checksum of each block on the way."""

    def __init__(self, writer: FileWriter, file_id: int) -> None:
        self._writer = writer
        self._file_id = file_id
        self._buffer = bytearray(_CHUNK_BYTES)
        self._filled = 0
        self._checksums: list[int] = []
        self.size_bytes = 0

    def write(self, data: memoryview | bytes) -> None:
        with memoryview(data) as view, memoryview(self._buffer) as buffer:
            at = 0
            while at < len(view):
                count = min(len(view) - at, len(buffer) - self._filled)
                buffer[self._filled : self._filled + count] = view[at : at + count]
                self._filled += count
                at += count
                if self._filled == len(buffer):
                    self._drain()
            self.size_bytes += at

    def pad_to(self, offset: int) -> None:
        """Zeros up to ``offset``."""
        assert 0 <= offset - self.size_bytes < PAGE_ALIGNMENT, (offset, self.size_bytes)
        self.write(bytes(offset - self.size_bytes))

    def finish(self) -> bytes:
        """The table of checksums, once all is written."""
        self._drain()
        return np.array(self._checksums, "<u8").tobytes()

    def _drain(self) -> None:
        with memoryview(self._buffer)[: self._filled] as filled:
            self._checksums += block_checksums(filled, self._file_id, len(self._checksums))
            self._writer.write(filled)
        self._filled = 0


def _pieces(source: ArraySource) -> Iterator[memoryview]:
    """The bytes of an array in C order, piece by piece; an array that is not contiguous is copied in parts only."""
    if isinstance(source, ArrayStream):
        rows = 0
        for chunk in source.chunks:
            assert chunk.shape[1:] == source.shape[1:], (chunk.shape, source.shape)
            assert chunk.dtype == source.dtype, (chunk.dtype, source.dtype)
            rows += chunk.shape[0]
            yield from _pieces(chunk)
        assert rows == source.shape[0], (rows, source.shape)
        return
    if source.size == 0:
        return
    little = source.dtype.newbyteorder("<")
    if source.flags.c_contiguous and source.dtype == little:
        yield source.reshape(-1).view(np.uint8).data
        return
    if source.ndim == 0:
        yield source.astype(little).reshape(1).view(np.uint8).data
        return
    rows_at_once = max(1, _CHUNK_BYTES // max(1, source.nbytes // source.shape[0]))
    for row in range(0, source.shape[0], rows_at_once):
        part = np.ascontiguousarray(source[row : row + rows_at_once], little)
        yield part.reshape(-1).view(np.uint8).data


def _view(mapping: memoryview, entry: Entry) -> AnyArray:
    if entry.size_bytes == 0:
        empty: AnyArray = np.zeros(entry.shape, entry.dtype)
        empty.flags.writeable = False
        return empty
    count = entry.size_bytes // entry.dtype.itemsize
    array: AnyArray = np.frombuffer(mapping, entry.dtype, count, entry.offset).reshape(entry.shape)
    return array


def _blocks_of(entry: Entry, rows: AnyArray | None) -> I64Array:
    """Numbers of the blocks that hold the rows, perhaps with repeats."""
    if rows is None or not entry.shape:
        end = entry.offset + entry.size_bytes
        return np.arange(entry.offset // BLOCK_BYTES, -(-end // BLOCK_BYTES))
    row_bytes = entry.size_bytes // entry.shape[0]
    begin = rows.astype(np.int64) * row_bytes + entry.offset
    first = begin // BLOCK_BYTES
    last = (begin + (row_bytes - 1)) // BLOCK_BYTES
    span = int((last - first).max(initial=0)) + 1
    if span == 1:
        return first
    spread: I64Array = np.minimum(first[:, None] + np.arange(span), last[:, None])
    return spread.reshape(-1)


def _runs(blocks: I64Array, blocks_max: int) -> Iterator[tuple[int, int]]:
    """Consecutive blocks as (first, count), at most ``blocks_max`` each."""
    breaks = np.flatnonzero(np.diff(blocks) != 1) + 1
    for part in np.split(blocks, breaks):
        for at in range(0, part.shape[0], blocks_max):
            yield int(part[at]), min(blocks_max, part.shape[0] - at)
