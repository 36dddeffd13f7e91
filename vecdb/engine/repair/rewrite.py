"""Writes what can be read of a damaged segment: single files where every row is whole, else a segment of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vecdb.bitmap import Bitmap, LiveRows
from vecdb.engine.liveness import History
from vecdb.engine.repair.remains import SegmentRemains
from vecdb.index.codes import ScalarCodes
from vecdb.kernels.protocol import Kernels
from vecdb.segment.ids import pack
from vecdb.segment.journal import Deletes, journal_arrays
from vecdb.segment.layout import Role, SegmentEntry, SegmentFile
from vecdb.segment.writer import SegmentWriter
from vecdb.storage.directory import MmapDirectory
from vecdb.types import AnyArray, BoolArray, I64Array, SegmentId, U64Array


@dataclass(frozen=True, slots=True)
class Journal:
    """What the journal of a rewritten segment will hold."""

    keys: Sequence[bytes]
    seqs: U64Array
    requests: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One segment as it will be.

    Attributes
    ----------
    segment_id
        Its number; a new one where rows are lost.
    kept
        (n,) int64, ascending: the rows that are kept, which get the numbers from 0 on.
    seqs
        (rows,) uint64: the write batch of each old row, made up where it cannot be read.
    journal
        Its journal; ``None`` where the old one stays.
    """

    remains: SegmentRemains
    segment_id: SegmentId
    kept: I64Array
    seqs: U64Array
    journal: Journal | None

    @property
    def replaces(self) -> bool:
        """Whether it is a new segment, and not the old one with some files made anew."""
        return self.segment_id != self.remains.entry.segment_id

    @property
    def rows(self) -> int:
        """Rows of the segment as it will be."""
        return int(self.kept.shape[0])

    @property
    def lost(self) -> BoolArray:
        """(old rows,) bool: the rows that are not kept."""
        lost = np.ones(self.remains.rows, np.bool_)
        lost[self.kept] = False
        return lost

    def live(self, old: LiveRows) -> LiveRows:
        """The same set of rows by their new numbers."""
        return LiveRows.from_bitmap(Bitmap.from_bools(old.bitmap().bools()[self.kept]))

    def history(self) -> History:
        """What the segment will tell about ids."""
        remains, kept, journal = self.remains, self.kept, self.journal
        return History(
            self.segment_id,
            self.rows,
            np.arange(self.rows),
            remains.hashes_of(kept),
            self.seqs[kept],
            lambda row: remains.key_at(int(kept[row])),
            remains.deleted_keys if journal is None else journal.keys,
            remains.deleted_seqs if journal is None else journal.seqs,
        )

    def write(self, directory: MmapDirectory, kernels: Kernels) -> SegmentEntry | None:
        """Write the files; the entry to name them by, ``None`` where nothing is left."""
        old = self.remains.entry
        # A repair that was interrupted may have left files of these names.
        writer = SegmentWriter(directory, self.segment_id, self.remains.schema, replace=True)
        if not self.replaces:
            return self._patched(writer, kernels)
        files: list[SegmentFile] = []
        if self.rows:
            files = [
                writer.write(role, self._arrays(role, field, kernels), field)
                for role in (Role.IDS, Role.SEQS, Role.PAYLOAD, Role.VECTORS, Role.CODES)
                for field in self._fields_of(role)
            ]
        if self.journal is not None and (self.journal.keys or self.journal.requests):
            files.append(writer.write(Role.JOURNAL, self._arrays(Role.JOURNAL, "", kernels)))
        if not files:
            return None
        return SegmentEntry(self.segment_id, self.rows, old.seq_first, old.seq_last, tuple(files))

    def _patched(self, writer: SegmentWriter, kernels: Kernels) -> SegmentEntry:
        entry = self.remains.entry
        anew = set(self.remains.damaged)
        if self.journal is not None:
            anew.add((Role.JOURNAL, ""))
        for role, field in sorted(anew, key=lambda each: (each[0].value, each[1])):
            if role is Role.GRAPH:
                # It is built again in the background once the collection is open.
                entry = replace(
                    entry, files=tuple(each for each in entry.files if (each.role, each.field) != (role, field))
                )
                continue
            before = entry.file(role, field)
            generation = 0 if before is None else before.generation + 1
            entry = entry.with_file(writer.write(role, self._arrays(role, field, kernels), field, generation))
        return entry

    def _fields_of(self, role: Role) -> list[str]:
        return list(self.remains.fields) if role in (Role.VECTORS, Role.CODES) else [""]

    def _arrays(self, role: Role, field: str, kernels: Kernels) -> dict[str, AnyArray]:
        remains, rows = self.remains, self.kept.tolist()
        match role:
            case Role.IDS:
                hashes = remains.hashes_of(self.kept)
                order = np.argsort(hashes, kind="stable")
                offsets, keys = pack([remains.key_at(row) for row in rows])
                return {
                    "hashes": hashes[order],
                    "hash_rows": order.astype(np.uint32),
                    "key_offsets": offsets,
                    "keys": keys,
                }
            case Role.SEQS:
                return {"seqs": self.seqs[self.kept]}
            case Role.PAYLOAD:
                offsets, data = pack([remains.payload_at(row) for row in rows])
                return {"offsets": offsets, "bytes": data}
            case Role.JOURNAL:
                assert self.journal is not None
                deletes = Deletes(tuple(self.journal.keys), self.journal.seqs.astype(np.uint64))
                return journal_arrays(deletes, self.journal.requests)
        vectors, norms, places = remains.vectors_of(field, self.kept)
        if role is Role.CODES:
            return ScalarCodes.encode(kernels, vectors, remains.schema.vector(field).metric).arrays()
        assert role is Role.VECTORS, role
        arrays: dict[str, AnyArray] = {"vectors": vectors}
        if norms is not None:
            arrays["norms"] = norms
        if places is not None:
            arrays["slot_rows"] = places.astype(np.uint32)
        return arrays
