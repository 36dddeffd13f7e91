"""The live rows of a named snapshot, as a file of arrays that is written once, with the snapshot.

What is read back covers exactly the segments of the snapshot, each with as many rows as the manifest says. Format:
``docs/formats/segment.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vecdb.bitmap import Bitmap, LiveRows
from vecdb.engine.manifest import LIVE_ROLE
from vecdb.errors import Corruption
from vecdb.segment.layout import SegmentEntry
from vecdb.storage.array_file import ArrayFile, FileRef, write_array_file
from vecdb.storage.directory import MmapDirectory
from vecdb.types import AnyArray, U64Array

_ARRAYS = ("segment_ids", "word_starts", "words")


def write_live(directory: MmapDirectory, name: str, live: Mapping[int, LiveRows], *, replace: bool = False) -> FileRef:
    """Write the live rows of segments, by their numbers, into a new file; its name is durable after ``sync``.

    Raises
    ------
    ResourceExhausted, Unavailable
        The file could not be written; nothing is left of it.
    """
    numbers = sorted(live)
    words = [live[number].bitmap().words for number in numbers]
    starts = np.zeros(len(numbers) + 1, np.uint64)
    np.cumsum([each.shape[0] for each in words], dtype=np.uint64, out=starts[1:])
    arrays = {
        "segment_ids": np.array(numbers, np.uint64),
        "word_starts": starts,
        "words": np.concatenate([np.zeros(0, np.uint64), *words]),
    }
    return write_array_file(directory, name, LIVE_ROLE, arrays, replace=replace)


def read_live(directory: MmapDirectory, ref: FileRef, segments: Sequence[SegmentEntry]) -> dict[int, LiveRows]:
    """The live rows of each of ``segments``, by its number.

    Raises
    ------
    Corruption
        The file is missing or damaged, or does not fit the segments.
    """
    file = ArrayFile.open(directory, ref, role=LIVE_ROLE)
    file.verify()
    numbers, starts, words = (_uint64s(file, name, str(directory.path_of(ref.name))) for name in _ARRAYS)
    wanted = sorted(segments, key=lambda each: each.segment_id)
    expected = np.cumsum([0, *(-(-each.rows // 64) for each in wanted)])
    if (
        numbers.tolist() != [each.segment_id for each in wanted]
        or starts.tolist() != expected.tolist()
        or words.shape[0] != expected[-1]
    ):
        raise _misfit(directory, ref, "its segments are not those of the snapshot")
    live: dict[int, LiveRows] = {}
    for entry, first, end in zip(wanted, expected[:-1], expected[1:], strict=True):
        found = words[first:end]
        if (found & ~Bitmap.full(entry.rows).words).any():
            raise _misfit(directory, ref, f"segment {entry.segment_id} has live rows beyond its {entry.rows}")
        live[entry.segment_id] = LiveRows.from_bitmap(Bitmap(found, entry.rows))
    return live


def _uint64s(file: ArrayFile, name: str, where: str) -> U64Array:
    array: AnyArray | None = file.arrays.get(name)
    if array is None or array.ndim != 1 or array.dtype != np.uint64:
        raise Corruption(f"{where} has no array {name!r} of uint64", field=where, value=name)
    return array


def _misfit(directory: MmapDirectory, ref: FileRef, what: str) -> Corruption:
    where = str(directory.path_of(ref.name))
    return Corruption(f"{where} does not fit its snapshot: {what}", field=where)
