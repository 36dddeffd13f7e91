"""The keys of a segment: the encoded id of each row, and the row of an id by its hash.

Their file is verified whole when it is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np

from vecdb.segment.files import SegmentFiles
from vecdb.segment.ids import PackedKeys, find_keys
from vecdb.segment.layout import Role
from vecdb.types import I64Array, U32Array, U64Array


class SegmentKeys(Sequence[bytes]):
    """The encoded id of each row, dead or alive."""

    __slots__ = ("_files", "_packed")

    def __init__(self, files: SegmentFiles) -> None:
        self._files = files
        self._packed: PackedKeys | None = None

    @property
    def packed(self) -> PackedKeys:
        """The keys as they are stored."""
        packed = self._packed
        if packed is None:
            files = self._files
            packed = self._packed = PackedKeys(files.array(Role.IDS, "key_offsets"), files.array(Role.IDS, "keys"))
        return packed

    @property
    def hashes(self) -> U64Array:
        """(n,) uint64, ascending."""
        return self._files.row_array(Role.IDS, "hashes", self._files.rows)

    @property
    def hash_rows(self) -> U32Array:
        """(n,) uint32: the row of each of ``hashes``."""
        return self._files.row_array(Role.IDS, "hash_rows", self._files.rows)

    def locate(self, keys: Sequence[bytes], hashes: U64Array) -> I64Array:
        """The row of each key, (len(keys),) int64, -1 where the segment has none."""
        if self._files.rows == 0:
            return np.full(len(keys), -1, np.int64)
        return find_keys(keys, hashes, self.hashes, self.hash_rows, self)

    def __len__(self) -> int:
        return self._files.rows

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[bytes]: ...
    def __getitem__(self, at: int | slice) -> bytes | Sequence[bytes]:
        packed = self.packed
        if isinstance(at, slice):
            return [packed[row] for row in range(*at.indices(self._files.rows))]
        return packed[at]
