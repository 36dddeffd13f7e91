"""The memtable: the rows that are not yet in a segment, and what happened beside them.

Only the writer changes it, and only by appending; a reader holds a ``MemtableView`` that fixes how many rows it sees
and which of them are live, so what it sees never changes. Arrays that grow are replaced by larger copies; a view keeps
those it was made of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np

from vecdb.bitmap import LiveRows
from vecdb.index.flat import FlatIndex
from vecdb.index.hnsw import DEFAULT_BREADTH
from vecdb.kernels.protocol import Kernels
from vecdb.requests import UpsertRequest
from vecdb.schema import CollectionSchema, VectorField
from vecdb.segment.ids import hash_keys, key_of
from vecdb.segment.vectors import FieldVectors, normalised
from vecdb.types import AnyArray, F32Array, I64Array, Metric, PointId, U32Array, U64Array

_Array = TypeVar("_Array", bound=AnyArray)

ROW_OVERHEAD_BYTES = 250
"""What a row costs beside its vectors and payload: its id, hash, seq and the entries of Python's containers."""


@dataclass(frozen=True, slots=True)
class PreparedField:
    """Vectors of one field of a batch, ready to be stored: normalised under cosine."""

    values: F32Array
    norms: F32Array | None
    rows: U32Array | None


@dataclass(frozen=True, slots=True)
class PreparedBatch:
    """An upsert with all that can be computed before the writer has to look at it.

    Attributes
    ----------
    keys, hashes
        The encoded ids and their hashes, (n,) uint64.
    fields
        By name of the vector field.
    size_bytes
        What the batch adds to a memtable.
    """

    ids: tuple[PointId, ...]
    keys: tuple[bytes, ...]
    hashes: U64Array
    fields: Mapping[str, PreparedField]
    payloads: tuple[bytes, ...]
    size_bytes: int


def prepare(request: UpsertRequest, schema: CollectionSchema, hash_key: bytes) -> PreparedBatch:
    """The batch of a request that was checked against the schema."""
    keys = tuple([key_of(each) for each in request.ids])
    fields: dict[str, PreparedField] = {}
    size_bytes = len(keys) * ROW_OVERHEAD_BYTES + sum(map(len, keys)) + sum(map(len, request.payloads))
    for name, column in request.vectors.items():
        declared = schema.vector(name)
        if column.values.shape[0] == 0:
            continue
        if declared.metric is Metric.COSINE:
            values, norms = normalised(column.values)
            fields[name] = PreparedField(values, norms, column.rows)
        else:
            fields[name] = PreparedField(column.values, None, column.rows)
        size_bytes += column.values.nbytes
    return PreparedBatch(request.ids, keys, hash_keys(keys, hash_key), fields, request.payloads, size_bytes)


ROWS_FIRST = 256
_GROWTH = 4
"""Arrays begin small, unless much is expected, and grow by this factor: a thousand collections of a few rows must not
cost gigabytes, nor the time to map them."""


def _grown(array: _Array, slots: int, slots_max: int) -> _Array:
    """The array, or a copy with room for at least ``slots``, ``slots_max`` at most; views of the old one keep it."""
    if slots <= array.shape[0]:
        return array
    room = min(max(slots, _GROWTH * array.shape[0]), slots_max)
    grown = np.empty((room, *array.shape[1:]), array.dtype)
    grown[: array.shape[0]] = array
    return cast(_Array, grown)


class _FieldRows:
    """The growing vectors of one field."""

    __slots__ = ("dense", "norms", "slot_rows", "slots", "vectors")

    def __init__(self, declared: VectorField, rows: int) -> None:
        self.vectors: F32Array = np.empty((rows, declared.dim), np.float32)
        self.norms: F32Array | None = np.empty(rows, np.float32) if declared.metric is Metric.COSINE else None
        self.slot_rows: U32Array = np.empty(rows, np.uint32)
        self.slots = 0
        self.dense = True

    def reserve(self, more: int, slots_max: int) -> None:
        """Make room for so many more vectors."""
        slots = self.slots + more
        self.vectors = _grown(self.vectors, slots, slots_max)
        if self.norms is not None:
            self.norms = _grown(self.norms, slots, slots_max)
        self.slot_rows = _grown(self.slot_rows, slots, slots_max)

    def append(self, prepared: PreparedField | None, row_first: int, count: int) -> None:
        if prepared is None:
            self.dense = self.dense and count == 0
            return
        at = slice(self.slots, self.slots + prepared.values.shape[0])
        self.vectors[at] = prepared.values
        if self.norms is not None and prepared.norms is not None:
            self.norms[at] = prepared.norms
        if prepared.rows is None:
            self.slot_rows[at] = np.arange(row_first, row_first + count, dtype=np.uint32)
        else:
            self.slot_rows[at] = prepared.rows + np.uint32(row_first)
        self.slots = at.stop
        self.dense = self.dense and self.slots == row_first + count

    def view(self) -> FieldVectors:
        norms = None if self.norms is None else self.norms[: self.slots]
        return FieldVectors(self.vectors[: self.slots], norms, None if self.dense else self.slot_rows[: self.slots])


class Memtable:
    """Rows in the order in which they were written.

    Parameters
    ----------
    schema
        Of the collection.
    rows_max
        Capacity; an append beyond it is a bug of the caller.
    seq_first
        Seq of the first batch that may be put in.
    rows_expected
        Room to begin with, which costs no memory before it is used.
    """

    def __init__(
        self, schema: CollectionSchema, rows_max: int, seq_first: int, rows_expected: int = ROWS_FIRST
    ) -> None:
        self.schema = schema
        self.rows_max = rows_max
        self.rows = 0
        self.size_bytes = 0
        self.seq_first = seq_first
        self.seq_last = seq_first - 1
        self.ids: list[PointId] = []
        self.keys: list[bytes] = []
        self.payloads: list[bytes] = []
        room = min(rows_max, rows_expected)
        self.hashes: U64Array = np.empty(room, np.uint64)
        self.seqs: U64Array = np.empty(room, np.uint64)
        self.deleted_keys: list[bytes] = []
        self.deleted_seqs: list[int] = []
        self.requests: list[bytes] = []
        self._fields = {each.name: _FieldRows(each, room) for each in schema.vectors}
        self._row_of: dict[PointId, int] = {}
        self.holds = self._row_of.__contains__
        """Whether some row ever held an id."""
        self._older_rows: dict[PointId, list[int]] = {}
        self._sorted: tuple[int, I64Array] = (0, np.zeros(0, np.int64))

    def fits(self, rows: int) -> bool:
        """Whether so many more rows have room."""
        return self.rows + rows <= self.rows_max

    def reserve(self, batches: Sequence[PreparedBatch]) -> None:
        """Make room for batches that will be appended; without memory for them nothing has changed."""
        rows = self.rows + sum(len(batch.ids) for batch in batches)
        assert rows <= self.rows_max, (rows, self.rows_max)
        for name, field in self._fields.items():
            fields = [batch.fields[name] for batch in batches if name in batch.fields]
            field.reserve(sum(each.values.shape[0] for each in fields), self.rows_max)
        self.hashes = _grown(self.hashes, rows, self.rows_max)
        self.seqs = _grown(self.seqs, rows, self.rows_max)

    def append(self, batch: PreparedBatch, seq: int, seqs: U64Array | None = None) -> list[int]:
        """Add the rows of a batch; return the earlier rows of this memtable that they replace.

        ``seqs``, (n,) uint64, are those of the rows where the batch was made of several writes, the last of them
        ``seq``; of rows with the same id the last one stays.
        """
        first, count = self.rows, len(batch.ids)
        self.reserve([batch])
        self.hashes[first : first + count] = batch.hashes
        self.seqs[first : first + count] = seq if seqs is None else seqs
        self.ids.extend(batch.ids)
        self.keys.extend(batch.keys)
        self.payloads.extend(batch.payloads)
        for name, field in self._fields.items():
            field.append(batch.fields.get(name), first, count)
        replaced: list[int] = []
        row_of = self._row_of
        for row, each in enumerate(batch.ids, first):
            old = row_of.get(each)
            if old is not None:
                replaced.append(old)
                # A reader of an older view looks for the row it may still see.
                self._older_rows.setdefault(each, []).append(old)
            row_of[each] = row
        self.rows = first + count
        self.size_bytes += batch.size_bytes
        self.seq_last = seq
        return replaced

    def note_delete(self, keys: Sequence[bytes], seq: int) -> None:
        """Remember that a batch deleted these ids, wherever their rows are."""
        self.deleted_keys.extend(keys)
        self.deleted_seqs.extend([seq] * len(keys))
        self.size_bytes += sum(map(len, keys)) + 64 * len(keys)
        self.seq_last = seq

    def note_request(self, encoded: bytes) -> None:
        """Remember an applied request."""
        self.requests.append(encoded)
        self.size_bytes += len(encoded) + 64

    def view(self, live: LiveRows) -> MemtableView:
        """What a reader sees from now on."""
        return MemtableView(self, self.rows, live, {name: each.view() for name, each in self._fields.items()})

    def empty_view(self) -> MemtableView:
        """What a reader sees before the first row."""
        return self.view(LiveRows.full(0))

    def rows_of(self, point_id: PointId) -> list[int]:
        """The rows that ever held the id, newest first."""
        newest = self._row_of.get(point_id)
        if newest is None:
            return []
        return [newest, *reversed(self._older_rows.get(point_id, ()))]

    def sorted_by_hash(self, rows: int) -> I64Array:
        """The first ``rows`` rows in order of (hash, key), (rows,) int64."""
        known, order = self._sorted
        if known != rows:
            order = np.argsort(self.hashes[:rows], kind="stable")
            self._sorted = (rows, order)
        return order


@dataclass(frozen=True, slots=True)
class MemtableView:
    """What one reader sees of a memtable.

    Attributes
    ----------
    rows
        Rows that exist for this reader.
    live
        Which of them are not deleted or replaced.
    fields
        Vectors by field name.
    """

    memtable: Memtable
    rows: int
    live: LiveRows
    fields: Mapping[str, FieldVectors]

    def id_getter(self) -> Callable[[int], PointId]:
        """What gives the id of a row."""
        return self.memtable.ids.__getitem__

    def payload_getter(self) -> Callable[[int], bytes]:
        """What gives the payload of a row."""
        return self.memtable.payloads.__getitem__

    def id_at(self, row: int) -> PointId:
        """The id of a row."""
        return self.memtable.ids[row]

    def ids_at(self, rows: I64Array) -> list[PointId]:
        """The ids of (n,) rows, in their order."""
        ids = self.memtable.ids
        return [ids[row] for row in rows.tolist()]

    def with_live(self, live: LiveRows) -> MemtableView:
        """The same rows with another set of live ones."""
        return MemtableView(self.memtable, self.rows, live, self.fields)

    def locate(self, point_id: PointId) -> int:
        """The live row of an id, -1 where there is none."""
        for row in self.memtable.rows_of(point_id):
            if row < self.rows and self.live.has(row):
                return row
        return -1

    def locate_many(self, ids: Sequence[PointId]) -> list[tuple[int, int]]:
        """(position in ``ids``, live row) of each id that has one."""
        holds = self.memtable.holds
        known = [position for position, each in enumerate(ids) if holds(each)]
        found = [(position, self.locate(ids[position])) for position in known]
        return [(position, row) for position, row in found if row >= 0]


class MemtableField:
    """One vector field of a memtable view, as search sees it: always exact, always verified."""

    __slots__ = ("_kernels", "_metric", "slots", "vectors")
    verified = True
    has_codes = has_open_codes = False
    has_graph = has_open_graph = False
    breadth = DEFAULT_BREADTH

    def __init__(self, view: MemtableView, declared: VectorField, kernels: Kernels) -> None:
        self.vectors = view.fields[declared.name]
        self.slots = self.vectors.slots
        self._metric = declared.metric
        self._kernels = kernels

    @property
    def exact(self) -> FlatIndex:
        """Exact search over float32."""
        return FlatIndex(self._kernels, self.vectors.vectors, self._metric)

    @property
    def scan(self) -> FlatIndex:
        """The exact search: a memtable has no codes."""
        return self.exact

    @property
    def graph(self) -> FlatIndex:
        """The exact search: a memtable has no graph."""
        return self.exact

    def ensure(self, slots: I64Array | None) -> None:
        """Nothing to verify: these vectors were never on disk."""
