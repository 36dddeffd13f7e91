"""The payloads of a segment: one UTF-8 JSON object a row, verified block by block before it is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np

from vecdb.errors import Corruption
from vecdb.segment.files import SegmentFiles
from vecdb.segment.ids import Packed
from vecdb.segment.layout import Role
from vecdb.segment.room import Room
from vecdb.storage.array_file import ArrayFile
from vecdb.types import I64Array


class SegmentPayloads(Sequence[bytes]):
    """The payload of each row, verified on the way.

    Whoever remembers something about these holds the files of the segment, not its reader: files may be unlinked as
    soon as nobody holds the reader.
    """

    __slots__ = ("_files", "_packed", "_room")

    def __init__(self, files: SegmentFiles, room: Room | None) -> None:
        self._files = files
        self._room = room
        self._packed: tuple[ArrayFile | None, Packed | None] = (None, None)

    @property
    def verified(self) -> bool:
        """Whether every payload is verified."""
        return self._files.array_file(Role.PAYLOAD).verified

    @property
    def packed(self) -> Packed:
        """The payloads as they are stored; ``ensure`` comes before one is read."""
        file = self._files.array_file(Role.PAYLOAD)
        of, packed = self._packed
        if packed is None or of is not file:
            packed = Packed(self._files.array(Role.PAYLOAD, "offsets"), self._files.array(Role.PAYLOAD, "bytes"))
            self._packed = (file, packed)
        return packed

    def ensure(self, rows: I64Array) -> None:
        """Verify the payloads of ``rows`` before they are read.

        Raises
        ------
        Corruption
            One of them is damaged.
        """
        file = self._files.array_file(Role.PAYLOAD)
        if file.verified:
            return
        ends = np.concatenate([rows, rows + 1])
        file.ensure("offsets", ends)
        offsets = self._files.row_array(Role.PAYLOAD, "offsets", self._files.rows + 1)
        data = self._files.array(Role.PAYLOAD, "bytes")
        for row in rows.tolist():
            first, end = int(offsets[row]), int(offsets[row + 1])
            if not first <= end <= data.shape[0]:
                raise Corruption(
                    f"{file.ref.name}: payload {row} ends before it begins", field=file.ref.name, value=row
                )
            if end > first:
                # Blocks are larger than most payloads; touching one byte of each verifies all of them.
                file.ensure("bytes", np.append(np.arange(first, end, 4096), end - 1))

    def __len__(self) -> int:
        return self._files.rows

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[bytes]: ...
    def __getitem__(self, at: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(at, slice):
            return self._read(range(*at.indices(self._files.rows)))
        self.ensure(np.array([at], np.int64))
        return self.packed[at]

    def _read(self, rows: range) -> Sequence[bytes]:
        """Many at once: verified and copied whole."""
        if not rows:
            return []
        file = self._files.array_file(Role.PAYLOAD)
        file.ensure("offsets", None)
        file.ensure("bytes", None)
        low, high = min(rows), max(rows)
        offsets = self._files.array(Role.PAYLOAD, "offsets")[low : high + 2].tolist()
        data = self._files.array(Role.PAYLOAD, "bytes")[offsets[0] : offsets[-1]].tobytes()
        starts = [offset - offsets[0] for offset in offsets]
        if self._room is not None:
            self._room.settle()
        return [data[starts[row - low] : starts[row - low + 1]] for row in rows]
