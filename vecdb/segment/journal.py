"""The journal of a segment: what happened in its range of seqs and is not told by its rows.

From rows and journals together the live rows and the applied requests of a collection can be found again: of all rows
and deletes of an id the one with the highest seq holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vecdb.segment.ids import Packed, hash_keys, pack
from vecdb.segment.layout import Role
from vecdb.segment.reader import SegmentReader
from vecdb.types import AnyArray, I64Array, U64Array


@dataclass(frozen=True, slots=True)
class Deletes:
    """Deleted ids.

    Attributes
    ----------
    keys
        The encoded ids.
    seqs
        (n,) uint64: the write that deleted each.
    """

    keys: tuple[bytes, ...]
    seqs: U64Array

    def at(self, positions: I64Array) -> Deletes:
        """Some of them."""
        return Deletes(tuple([self.keys[each] for each in positions.tolist()]), self.seqs[positions])

    def newest(self) -> Deletes:
        """Of each id the last delete, in the order of the encoded ids."""
        newest: dict[bytes, int] = {}
        for key, seq in zip(self.keys, self.seqs.tolist(), strict=True):
            newest[key] = max(seq, newest.get(key, 0))
        keys = sorted(newest)
        return Deletes(tuple(keys), np.array([newest[key] for key in keys], np.uint64))

    def hashes(self, hash_key: bytes) -> U64Array:
        """The hashes of the ids, (n,) uint64."""
        return hash_keys(self.keys, hash_key)


NO_DELETES = Deletes((), np.zeros(0, np.uint64))


def journal_arrays(deletes: Deletes, requests: Sequence[bytes]) -> dict[str, AnyArray]:
    """What a journal file holds."""
    key_offsets, key_bytes = pack(deletes.keys)
    request_offsets, request_bytes = pack(requests)
    return {
        "key_offsets": key_offsets,
        "keys": key_bytes,
        "seqs": deletes.seqs,
        "request_offsets": request_offsets,
        "requests": request_bytes,
    }


def deletes_of(reader: SegmentReader) -> Deletes:
    """The deletes that a segment tells of."""
    if reader.entry.file(Role.JOURNAL) is None:
        return NO_DELETES
    return Deletes(tuple(_unpacked(reader, "key_offsets", "keys")), reader.files.array(Role.JOURNAL, "seqs"))


def requests_of(reader: SegmentReader) -> list[bytes]:
    """The encoded requests that a segment remembers."""
    if reader.entry.file(Role.JOURNAL) is None:
        return []
    return _unpacked(reader, "request_offsets", "requests")


def _unpacked(reader: SegmentReader, offsets_name: str, bytes_name: str) -> list[bytes]:
    offsets = reader.files.array(Role.JOURNAL, offsets_name)
    packed = Packed(offsets, reader.files.array(Role.JOURNAL, bytes_name))
    return [packed[number] for number in range(offsets.shape[0] - 1)]
