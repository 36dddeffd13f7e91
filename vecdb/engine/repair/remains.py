"""A segment as far as it can be read: which files are damaged, and of which rows everything is whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from vecdb.engine.fitting import misfits
from vecdb.engine.liveness import History
from vecdb.errors import Corruption
from vecdb.kernels.protocol import Kernels
from vecdb.schema import CollectionSchema, VectorField
from vecdb.segment.ids import Packed, hash_keys, id_of
from vecdb.segment.layout import Role, SegmentEntry, SegmentFile
from vecdb.segment.reader import SegmentReader
from vecdb.storage.array_file import ArrayFile
from vecdb.storage.array_salvage import Remains, Shapes, body_bytes_of, salvage
from vecdb.storage.directory import MmapDirectory
from vecdb.types import AnyArray, BoolArray, F32Array, I64Array, Metric, PointId, U64Array

_PAGE = 4096


@dataclass(frozen=True, slots=True)
class FieldRemains:
    """The vectors of one field.

    Attributes
    ----------
    whole
        (rows,) bool: rows that are known to lack the vector, or whose vector is whole.
    slots, slot_rows
        (m,) int64: the slots whose rows are known, and those rows; both ascending.
    sparse
        Whether some row lacks the vector.
    """

    whole: BoolArray
    slots: I64Array
    slot_rows: I64Array
    vectors: F32Array
    norms: F32Array | None
    sparse: bool


class SegmentRemains:
    """What can be read of a segment.

    Attributes
    ----------
    damaged
        What is wrong, by role and field. Of a role that is not in here everything is whole.
    key_whole, seq_whole, payload_whole
        (rows,) bool: whether the row's id, seq and payload can be read.
    """

    def __init__(
        self,
        directory: MmapDirectory,
        entry: SegmentEntry,
        schema: CollectionSchema,
        hash_key: bytes,
        kernels: Kernels,
    ) -> None:
        self.entry = entry
        self.rows = entry.rows
        self.schema = schema
        self.damaged: dict[tuple[Role, str], str] = {}
        self._directory = directory
        self._kernels = kernels
        self._hash_key = hash_key
        self._arrays: dict[tuple[Role, str], Mapping[str, AnyArray]] = {}
        self._remains: dict[tuple[Role, str], Remains] = {}
        self.fields: dict[str, FieldRemains] = {}
        for file in entry.files:
            self._open(file)
        if not self.damaged:
            self._find_misfits()
        nothing = np.zeros(self.rows, np.bool_)
        self.key_whole, self._keys = nothing, Packed(np.zeros(1, np.uint64), np.zeros(0, np.uint8))
        self.seq_whole, self.seqs = nothing, np.zeros(self.rows, np.uint64)
        self.payload_whole, self._payloads = nothing, self._keys
        if self.rows:
            self.key_whole, self._keys = self._packed(Role.IDS, "key_offsets", "keys")
            self.payload_whole, self._payloads = self._packed(Role.PAYLOAD, "offsets", "bytes")
            seqs = self._array(Role.SEQS, "", "seqs", (self.rows,), np.uint64)
            if seqs is not None:
                self.seqs = seqs
                self.seq_whole = self._whole_items(Role.SEQS, "", "seqs", self.rows)
            for declared in schema.vectors:
                self.fields[declared.name] = self._field(declared)
        self.deleted_keys, self.deleted_seqs, self.requests, self.journal_lost = self._journal()

    @property
    def data_whole(self) -> BoolArray:
        """(rows,) bool: whether id, payload and all vectors of a row can be read."""
        whole = self.key_whole & self.payload_whole
        for field in self.fields.values():
            whole = whole & field.whole
        return whole

    @property
    def rows_damaged(self) -> bool:
        """Whether anything but codes, graph and journal is damaged."""
        return any(role not in (Role.CODES, Role.GRAPH, Role.JOURNAL) for role, _ in self.damaged)

    def ids_of(self, rows: BoolArray) -> tuple[tuple[PointId, ...], int]:
        """The ids of these rows, (rows,) bool, and how many of them cannot be read."""
        readable = np.flatnonzero(rows & self.key_whole).tolist()
        return tuple(id_of(self.key_at(row)) for row in readable), int(rows.sum()) - len(readable)

    def key_at(self, row: int) -> bytes:
        """The encoded id of a row of ``key_whole``."""
        return self._keys[row]

    def payload_at(self, row: int) -> bytes:
        """The payload of a row of ``payload_whole``."""
        return self._payloads[row]

    def hashes_of(self, rows: I64Array) -> U64Array:
        """The hashes of the ids of some rows."""
        return hash_keys([self._keys[row] for row in rows.tolist()], self._hash_key)

    def history(self) -> History:
        """The rows whose ids can be read; one without a seq is as new as it can be, so that no older one comes back."""
        rows = np.flatnonzero(self.key_whole)
        seqs = np.where(self.seq_whole, self.seqs, np.uint64(self.entry.seq_last))
        return History(
            self.entry.segment_id,
            self.rows,
            rows,
            self.hashes_of(rows),
            seqs[rows],
            self.key_at,
            self.deleted_keys,
            self.deleted_seqs,
        )

    def vectors_of(self, name: str, kept: I64Array) -> tuple[F32Array, F32Array | None, I64Array | None]:
        """Vectors, norms and the places in ``kept`` (ascending rows) of those that have a vector; ``None``: all do."""
        field = self.fields[name]
        chosen = np.isin(field.slot_rows, kept)
        slots = field.slots[chosen]
        norms = None if field.norms is None else np.ascontiguousarray(field.norms[slots])
        places = np.searchsorted(kept, field.slot_rows[chosen]) if field.sparse else None
        return np.ascontiguousarray(field.vectors[slots]), norms, places

    def _open(self, file: SegmentFile) -> None:
        """Verify one file, or see what is left of it."""
        key = (file.role, file.field)
        try:
            opened = ArrayFile.open(self._directory, file.ref, role=file.role.value)
            opened.verify()
        except Corruption as error:
            self.damaged[key] = error.message
            if file.role in (Role.CODES, Role.GRAPH):
                return
            found = salvage(self._directory, file.ref, file.role.value, self._layouts(file))
            if found is not None:
                self._remains[key] = found
                self._arrays[key] = found.arrays
        else:
            self._arrays[key] = opened.arrays

    def _find_misfits(self) -> None:
        """What is whole and yet does not fit what it is derived from is derived again."""
        reader = SegmentReader(self._directory, self.entry, self.schema, self._kernels)
        try:
            for role, field, message in misfits(reader, self.entry, self._hash_key, self._kernels):
                self.damaged.setdefault((role, field), message)
        except Corruption as error:
            # The rows tell by themselves which of them can be read.
            self.damaged.setdefault((Role.IDS, ""), error.message)

    def _layouts(self, file: SegmentFile) -> Iterator[Shapes]:
        """What the arrays of a file may have been, should its header be damaged."""
        rows, body_bytes = self.rows, body_bytes_of(file.ref)
        u64, u32, u8, f32 = (np.dtype(code) for code in ("<u8", "<u4", "u1", "<f4"))
        if file.role is Role.SEQS:
            yield {"seqs": (u64, (rows,))}
        elif file.role in (Role.PAYLOAD, Role.IDS):
            heads: dict[str, tuple[np.dtype[np.generic], tuple[int, ...]]] = {"offsets": (u64, (rows + 1,))}
            last = "bytes"
            if file.role is Role.IDS:
                heads = {"hashes": (u64, (rows,)), "hash_rows": (u32, (rows,)), "key_offsets": (u64, (rows + 1,))}
                last = "keys"
            # The size of the last array is known but for the padding behind it and the gaps between arrays.
            fixed = sum(dtype.itemsize * shape[0] for dtype, shape in heads.values())
            for count in range(max(0, body_bytes - fixed - (len(heads) + 2) * _PAGE), body_bytes - fixed):
                yield {**heads, last: (u8, (count,))}
        elif file.role is Role.VECTORS:
            declared = self.schema.vector(file.field)
            norms = declared.metric is Metric.COSINE
            slot_bytes = 4 * (declared.dim + norms)
            for sparse in (False, True):
                most = min(rows, body_bytes // (slot_bytes + 4 * sparse))
                least = max(0, (body_bytes - 4 * _PAGE) // (slot_bytes + 4 * sparse)) if sparse else rows
                for slots in range(least, (most if sparse else rows) + 1):
                    shapes: dict[str, tuple[np.dtype[np.generic], tuple[int, ...]]] = {}
                    shapes["vectors"] = (f32, (slots, declared.dim))
                    if norms:
                        shapes["norms"] = (f32, (slots,))
                    if sparse:
                        shapes["slot_rows"] = (u32, (slots,))
                    yield shapes

    def _array(
        self, role: Role, field: str, name: str, shape: tuple[int, ...] | None, dtype: type[np.generic]
    ) -> AnyArray | None:
        found = self._arrays.get((role, field), {}).get(name)
        if found is None or found.dtype != dtype or (shape is not None and found.shape != shape):
            if (role, field) not in self.damaged and self.entry.file(role, field) is None:
                self.damaged[(role, field)] = f"segment {self.entry.segment_id} has no {role.value} file"
            return None
        return found

    def _whole_items(self, role: Role, field: str, name: str, count: int) -> BoolArray:
        remains = self._remains.get((role, field))
        return np.ones(count, np.bool_) if remains is None else remains.whole_items(name)

    def _packed(self, role: Role, offsets_name: str, data_name: str, field: str = "") -> tuple[BoolArray, Packed]:
        """Which parts of a packed array can be read, and the parts."""
        offsets = self._array(role, field, offsets_name, (self.rows + 1,), np.uint64)
        data = self._array(role, field, data_name, None, np.uint8)
        if offsets is None or data is None:
            return np.zeros(self.rows, np.bool_), Packed(np.zeros(1, np.uint64), np.zeros(0, np.uint8))
        return self._whole_parts(role, offsets_name, data_name, offsets, data), Packed(offsets, data)

    def _whole_parts(
        self, role: Role, offsets_name: str, data_name: str, offsets: AnyArray, data: AnyArray
    ) -> BoolArray:
        begins, ends = offsets[:-1].astype(np.int64), offsets[1:].astype(np.int64)
        remains = self._remains.get((role, ""))
        if remains is None:
            sound: BoolArray = (begins >= 0) & (begins <= ends) & (ends <= data.shape[0])
            return sound
        numbers = np.arange(begins.shape[0])
        return remains.whole(offsets_name, numbers, numbers + 2) & remains.whole(data_name, begins, ends)

    def _field(self, declared: VectorField) -> FieldRemains:
        role, name = Role.VECTORS, declared.name
        vectors = self._array(role, name, "vectors", None, np.float32)
        slots = -1 if vectors is None or vectors.ndim != 2 else vectors.shape[0]
        norms = self._array(role, name, "norms", (slots,), np.float32) if declared.metric is Metric.COSINE else None
        lacking = declared.metric is Metric.COSINE and norms is None
        if vectors is None or slots < 0 or vectors.shape[1] != declared.dim or lacking:
            none = np.zeros(0, np.int64)
            return FieldRemains(
                np.zeros(self.rows, np.bool_), none, none, np.zeros((0, declared.dim), np.float32), None, False
            )
        slot_whole = self._whole_items(role, name, "vectors", slots)
        if norms is not None:
            slot_whole = slot_whole & self._whole_items(role, name, "norms", slots)
        stored = self._arrays[(role, name)].get("slot_rows")
        if stored is None:
            whole = np.zeros(self.rows, np.bool_)
            whole[: min(slots, self.rows)] = slot_whole[: self.rows]
            numbers = np.arange(min(slots, self.rows))
            return FieldRemains(whole, numbers, numbers, vectors, norms, False)
        known, of_slot, doubtful = _slot_rows(stored, self._whole_items(role, name, "slot_rows", slots), self.rows)
        whole = ~doubtful
        whole[of_slot[known]] = slot_whole[known]
        numbers = np.flatnonzero(known)
        return FieldRemains(whole, numbers, of_slot[known], vectors, norms, True)

    def _journal(self) -> tuple[list[bytes], U64Array, list[bytes], int]:
        """Deleted keys, their seqs, requests, and how many of both cannot be read (-1: nobody knows)."""
        nothing: tuple[list[bytes], U64Array, list[bytes], int] = ([], np.zeros(0, np.uint64), [], 0)
        if self.entry.file(Role.JOURNAL) is None:
            return nothing
        arrays = self._arrays.get((Role.JOURNAL, ""), {})
        wanted = ("key_offsets", "keys", "seqs", "request_offsets", "requests")
        if any(name not in arrays for name in wanted) or arrays["seqs"].shape[0] + 1 != arrays["key_offsets"].shape[0]:
            self.damaged.setdefault((Role.JOURNAL, ""), "the journal lacks arrays")
            return (*nothing[:3], -1)
        key_whole = self._whole_parts(Role.JOURNAL, "key_offsets", "keys", arrays["key_offsets"], arrays["keys"])
        key_whole = key_whole & self._whole_items(Role.JOURNAL, "", "seqs", key_whole.shape[0])
        request_whole = self._whole_parts(
            Role.JOURNAL, "request_offsets", "requests", arrays["request_offsets"], arrays["requests"]
        )
        keys = Packed(arrays["key_offsets"], arrays["keys"])
        requests = Packed(arrays["request_offsets"], arrays["requests"])
        return (
            [keys[number] for number in np.flatnonzero(key_whole).tolist()],
            arrays["seqs"][key_whole].astype(np.uint64),
            [requests[number] for number in np.flatnonzero(request_whole).tolist()],
            int((~key_whole).sum() + (~request_whole).sum()),
        )


def _slot_rows(stored: AnyArray, whole: BoolArray, rows: int) -> tuple[BoolArray, I64Array, BoolArray]:
    """Which slots have a known row, the row of each, and which rows may or may not have a vector.

    Slots ascend through the rows, so a gap between two known ones is known too where it has as many rows as slots.
    """
    known = whole.copy()
    of_slot = np.where(whole, stored.astype(np.int64), -1)
    doubtful = np.zeros(rows, np.bool_)
    at = np.flatnonzero(whole)
    before = zip([-1, *at.tolist()], [-1, *of_slot[at].tolist()], strict=True)
    behind = zip([*at.tolist(), stored.shape[0]], [*of_slot[at].tolist(), rows], strict=True)
    for (slot, row), (next_slot, next_row) in zip(before, behind, strict=True):
        slots_between, rows_between = next_slot - slot - 1, next_row - row - 1
        if slots_between == 0:
            continue
        if slots_between == rows_between:
            of_slot[slot + 1 : next_slot] = np.arange(row + 1, next_row)
            known[slot + 1 : next_slot] = True
        else:
            doubtful[row + 1 : next_row] = True
    return known, of_slot, doubtful
