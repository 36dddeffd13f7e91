"""Writes a memtable's live rows, and a finished graph, into the files of a segment.

Every file is complete, synced and renamed when a function here returns; the directory is synced by the caller, once for
all of them, before the commit that names them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np

from vecdb.bitmap import Bitmap
from vecdb.errors import VecdbError
from vecdb.index.codes import ScalarCodes
from vecdb.kernels.protocol import Kernels
from vecdb.schema import CollectionSchema, VectorField
from vecdb.segment.ids import pack
from vecdb.segment.layout import ROLES_OF_FIELDS, Role, SegmentEntry, SegmentFile, file_name
from vecdb.segment.memtable import MemtableView
from vecdb.segment.vectors import FieldVectors
from vecdb.storage.array_file import write_array_file
from vecdb.storage.directory import MmapDirectory
from vecdb.types import AnyArray, SegmentId


class SegmentWriter:
    """Writes the files of one segment into a directory."""

    def __init__(self, directory: MmapDirectory, segment_id: SegmentId, schema: CollectionSchema) -> None:
        self._directory = directory
        self._segment_id = segment_id
        self._schema = schema
        self._files: list[SegmentFile] = []

    def write(self, role: Role, arrays: Mapping[str, AnyArray], field: str = "", generation: int = 0) -> SegmentFile:
        """Write the file of one role (of a field)."""
        number = [each.name for each in self._schema.vectors].index(field) if role in ROLES_OF_FIELDS else 0
        name = file_name(self._segment_id, role, number, generation)
        file = SegmentFile(role, field, generation, write_array_file(self._directory, name, role.value, arrays))
        self._files.append(file)
        return file

    def abandon(self) -> None:
        """Remove the files that were written: no commit names them, nor may have named them."""
        for file in self._files:
            with suppress(VecdbError):  # The next open removes what nothing names.
                self._directory.unlink(file.ref.name)
        self._files.clear()

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
        self._write_journal(memtable.deleted_keys, memtable.deleted_seqs, memtable.requests)
        return SegmentEntry(self._segment_id, count, memtable.seq_first, memtable.seq_last, tuple(self._files))

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
        codes = ScalarCodes.encode(kernels, vectors, declared.metric)
        self.write(Role.CODES, codes.arrays(), declared.name)

    def _write_journal(self, keys: Sequence[bytes], seqs: Sequence[int], requests: Sequence[bytes]) -> None:
        if not keys and not requests:
            return
        key_offsets, key_bytes = pack(keys)
        request_offsets, request_bytes = pack(requests)
        self.write(
            Role.JOURNAL,
            {
                "key_offsets": key_offsets,
                "keys": key_bytes,
                "seqs": np.asarray(seqs, np.uint64),
                "request_offsets": request_offsets,
                "requests": request_bytes,
            },
        )
