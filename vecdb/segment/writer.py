"""Writes the files of a segment: those of a memtable's live rows, or one by one.

Every file is complete, synced and renamed when a function here returns; the directory is synced by the caller, once for
all of them, before the commit that names them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np

from vecdb.bitmap import Bitmap
from vecdb.errors import VecdbError
from vecdb.index.codes import ScalarCodes
from vecdb.kernels.arrays import stride_bytes
from vecdb.kernels.protocol import Kernels
from vecdb.schema import CollectionSchema, VectorField
from vecdb.segment.ids import pack
from vecdb.segment.journal import Deletes, journal_arrays
from vecdb.segment.layout import ROLES_OF_FIELDS, Role, SegmentEntry, SegmentFile, file_name
from vecdb.segment.memtable import MemtableView
from vecdb.segment.vectors import FieldVectors
from vecdb.storage.array_file import ArrayFile, ArraySource, ArrayStream, write_array_file
from vecdb.storage.directory import MmapDirectory
from vecdb.types import AnyArray, F32Array, I32Array, SegmentId

_PIECE_BYTES = 1 << 20
"""Vectors quantised at once: little, so that a search never waits long for the interpreter."""


class SegmentWriter:
    """Writes the files of one segment into a directory.

    Parameters
    ----------
    replace
        As of ``write_array_file``.
    """

    def __init__(
        self, directory: MmapDirectory, segment_id: SegmentId, schema: CollectionSchema, *, replace: bool = False
    ) -> None:
        self._directory = directory
        self._segment_id = segment_id
        self._schema = schema
        self._replace = replace
        self._files: list[SegmentFile] = []

    def write(self, role: Role, arrays: Mapping[str, ArraySource], field: str = "", generation: int = 0) -> SegmentFile:
        """Write the file of one role (of a field)."""
        number = [each.name for each in self._schema.vectors].index(field) if role in ROLES_OF_FIELDS else 0
        name = file_name(self._segment_id, role, number, generation)
        ref = write_array_file(self._directory, name, role.value, arrays, replace=self._replace)
        file = SegmentFile(role, field, generation, ref)
        self._files.append(file)
        return file

    def write_codes(
        self,
        declared: VectorField,
        vectors: F32Array,
        kernels: Kernels,
        go_on: Callable[[], None] = lambda: None,
    ) -> SegmentFile:
        """Quantise the vectors of a field ((m, dim) float32, may be a read-only map) and write their codes.

        ``go_on`` is called between pieces, and may raise.
        """
        table = ScalarCodes.train(vectors, declared.metric)
        slots, dim = vectors.shape
        piece_slots = max(1, _PIECE_BYTES // (4 * dim))
        norms: list[I32Array] = []

        def codes() -> Iterator[AnyArray]:
            for at in range(0, slots, piece_slots):
                go_on()
                piece = table.encoded(kernels, vectors[at : at + piece_slots])
                norms.append(piece.codes.norms)
                yield piece.codes.table

        arrays: dict[str, ArraySource] = {
            **table.arrays(),
            "codes": ArrayStream(np.dtype(np.uint8), (slots, stride_bytes(dim)), codes()),
            # Written after the codes, when all of them are there.
            "norms": ArrayStream(np.dtype(np.int32), (slots,), norms),
        }
        return self.write(Role.CODES, arrays, declared.name)

    def read_back(self, file: SegmentFile) -> ArrayFile:
        """A file that was written here, opened and verified."""
        opened = ArrayFile.open(self._directory, file.ref, role=file.role.value)
        opened.verify()
        return opened

    def entry(self, rows: int, seq_first: int, seq_last: int) -> SegmentEntry:
        """What the manifest is to say of the segment, with what was written so far."""
        return SegmentEntry(self._segment_id, rows, seq_first, seq_last, tuple(self._files))

    def abandon(self) -> None:
        """Remove the files that were written: no commit names them, nor may have named them."""
        files, self._files = self._files, []
        for file in files:
            with suppress(VecdbError):  # The next open removes what nothing names.
                self._directory.unlink(file.ref.name)

    def write_memtable(self, view: MemtableView, kernels: Kernels) -> SegmentEntry:
        """Write the live rows of ``view``, in order, and its journal.

        Row i of the segment is the i-th live row of the view.
        """
        memtable = view.memtable
        live = view.live.bitmap()
        rows = live.rows()
        count = rows.shape[0]
        if count:
            keys = [memtable.keys[row] for row in rows.tolist()]
            hashes = memtable.hashes[rows]
            order = np.argsort(hashes, kind="stable")
            key_offsets, key_bytes = pack(keys)
            self.write(
                Role.IDS,
                {
                    "hashes": hashes[order],
                    "hash_rows": order.astype(np.uint32),
                    "key_offsets": key_offsets,
                    "keys": key_bytes,
                },
            )
            self.write(Role.SEQS, {"seqs": memtable.seqs[rows]})
            payload_offsets, payload_bytes = pack([memtable.payloads[row] for row in rows.tolist()])
            self.write(Role.PAYLOAD, {"offsets": payload_offsets, "bytes": payload_bytes})
            for declared in self._schema.vectors:
                self._write_field(declared, view.fields[declared.name], live, kernels)
        deletes = Deletes(tuple(memtable.deleted_keys), np.asarray(memtable.deleted_seqs, np.uint64))
        self.write_journal(deletes, memtable.requests)
        return self.entry(count, memtable.seq_first, memtable.seq_last)

    def _write_field(self, declared: VectorField, field: FieldVectors, live: Bitmap, kernels: Kernels) -> None:
        kept = live.bools() if field.slot_rows is None else live.contains(field.slot_rows)
        vectors = field.vectors if kept.all() else field.vectors[kept]
        arrays: dict[str, AnyArray] = {"vectors": vectors}
        if field.norms is not None:
            arrays["norms"] = field.norms[kept]
        if field.slot_rows is not None:
            new_row_of = np.cumsum(live.bools()) - 1
            arrays["slot_rows"] = new_row_of[field.slot_rows[kept]].astype(np.uint32)
        self.write(Role.VECTORS, arrays, declared.name)
        self.write_codes(declared, vectors, kernels)

    def write_journal(self, deletes: Deletes, requests: Sequence[bytes], generation: int = 0) -> SegmentFile | None:
        """Write the journal, if there is anything to tell."""
        if not deletes.keys and not requests:
            return None
        return self.write(Role.JOURNAL, journal_arrays(deletes, requests), generation=generation)
