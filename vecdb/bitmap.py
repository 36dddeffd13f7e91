"""Packed sets of rows: the one form in which live rows and filter results travel between layers and into kernels.

Bit ``row & 63`` of word ``row >> 6`` (uint64, little-endian) tells whether ``row`` is in the set; bits at and above
``size`` are always 0. A ``Bitmap`` never changes; ``LiveRows`` is a bitmap in chunks of 65,536 rows of which a change
copies only the chunks it touches, so that a published view never changes either.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from vecdb.types import AnyArray, BoolArray, I64Array, U64Array

CHUNK_ROWS = 65_536
_CHUNK_WORDS = CHUNK_ROWS // 64


def _words_for(size: int) -> int:
    return (size + 63) // 64


class Bitmap:
    """An immutable set of rows below ``size``.

    Attributes
    ----------
    words
        (ceil(size / 64),) uint64, read-only.
    size
        Number of rows the set is drawn from.
    """

    __slots__ = ("_count", "size", "words")

    def __init__(self, words: U64Array, size: int) -> None:
        assert words.shape == (_words_for(size),), (words.shape, size)
        words = words.view()
        words.flags.writeable = False
        self.words = words
        self.size = size
        self._count = -1

    @classmethod
    def full(cls, size: int) -> Bitmap:
        """Every row below ``size``."""
        words = np.full(_words_for(size), np.uint64(0xFFFF_FFFF_FFFF_FFFF))
        if size % 64:
            words[-1] = np.uint64((1 << (size % 64)) - 1)
        return cls(words, size)

    @classmethod
    def empty(cls, size: int) -> Bitmap:
        """No row."""
        return cls(np.zeros(_words_for(size), np.uint64), size)

    @classmethod
    def from_bools(cls, members: BoolArray) -> Bitmap:
        """The rows at which ``members`` ((size,) bool) is true."""
        size = members.shape[0]
        padded = np.zeros(_words_for(size) * 8, np.uint8)
        packed = np.packbits(members, bitorder="little")
        padded[: packed.shape[0]] = packed
        return cls(padded.view("<u8"), size)

    def count(self) -> int:
        """Number of rows in the set."""
        if self._count < 0:
            self._count = int(np.bitwise_count(self.words).sum())
        return self._count

    def rows(self) -> I64Array:
        """The rows in the set, ascending, (count,) int64."""
        return np.flatnonzero(self.bools())

    def bools(self) -> BoolArray:
        """(size,) bool."""
        return np.unpackbits(self.words.view(np.uint8), count=self.size, bitorder="little").view(np.bool_)

    def contains(self, rows: AnyArray) -> BoolArray:
        """Whether each of ``rows`` (any integer dtype, each below ``size``) is in the set."""
        at = rows.astype(np.uint64)
        bits: AnyArray = (self.words[at >> np.uint64(6)] >> (at & np.uint64(63))) & np.uint64(1)
        return bits.astype(np.bool_)

    def __and__(self, other: Bitmap) -> Bitmap:
        assert self.size == other.size
        return Bitmap(self.words & other.words, self.size)

    def __or__(self, other: Bitmap) -> Bitmap:
        assert self.size == other.size
        return Bitmap(self.words | other.words, self.size)

    def __sub__(self, other: Bitmap) -> Bitmap:
        assert self.size == other.size
        return Bitmap(self.words & ~other.words, self.size)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Bitmap):
            return NotImplemented
        return self.size == other.size and bool(np.array_equal(self.words, other.words))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Bitmap({self.count()} of {self.size})"


class LiveRows:
    """An immutable, chunked set of rows that yields changed copies cheaply."""

    __slots__ = ("_bitmap", "chunks", "size")

    def __init__(self, chunks: tuple[U64Array, ...], size: int) -> None:
        self.chunks = chunks
        self.size = size
        self._bitmap: Bitmap | None = None

    @classmethod
    def full(cls, size: int) -> LiveRows:
        """Every row below ``size``."""
        return cls.from_bitmap(Bitmap.full(size))

    @classmethod
    def from_bitmap(cls, bitmap: Bitmap) -> LiveRows:
        """The same set, in chunks."""
        words = bitmap.words
        chunks = tuple(words[at : at + _CHUNK_WORDS].copy() for at in range(0, words.shape[0], _CHUNK_WORDS))
        return cls(chunks, bitmap.size)

    def without(self, rows: Iterable[int]) -> LiveRows:
        """A copy that lacks ``rows`` (each below ``size``); chunks that do not change are shared."""
        dead = np.fromiter(rows, np.int64)
        if dead.shape[0] == 0:
            return self
        chunks = list(self.chunks)
        chunk_of = dead // CHUNK_ROWS
        for number in np.unique(chunk_of):
            members = chunks[number].copy()
            at = dead[chunk_of == number] % CHUNK_ROWS
            masks = np.left_shift(np.uint64(1), (at & 63).astype(np.uint64))
            np.bitwise_and.at(members, at >> 6, ~masks)
            chunks[number] = members
        return LiveRows(tuple(chunks), self.size)

    def extended(self, size: int) -> LiveRows:
        """A copy of ``size`` rows (at least the present size) in which every new row is live."""
        if size == self.size:
            return self
        assert size > self.size
        first = self.size // CHUNK_ROWS
        kept = self.chunks[:first]
        from_row = first * CHUNK_ROWS
        tail = Bitmap.full(size - from_row).words.copy()
        if first < len(self.chunks):
            old = self.chunks[first]
            whole = (self.size - from_row) // 64
            tail[:whole] = old[:whole]
            if (self.size - from_row) % 64:
                low = np.uint64((1 << (self.size % 64)) - 1)
                tail[whole] = (tail[whole] & ~low) | (old[whole] & low)
        added = tuple(tail[at : at + _CHUNK_WORDS].copy() for at in range(0, tail.shape[0], _CHUNK_WORDS))
        return LiveRows(kept + added, size)

    def has(self, row: int) -> bool:
        """Whether ``row`` (below ``size``) is in the set."""
        within = row % CHUNK_ROWS
        return bool((int(self.chunks[row // CHUNK_ROWS][within >> 6]) >> (within & 63)) & 1)

    def bitmap(self) -> Bitmap:
        """The same set as one packed array (made once)."""
        if self._bitmap is None:
            words = np.concatenate(self.chunks) if self.chunks else np.zeros(0, np.uint64)
            self._bitmap = Bitmap(words, self.size)
        return self._bitmap

    def count(self) -> int:
        """Number of rows in the set."""
        return self.bitmap().count()
