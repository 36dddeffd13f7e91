"""A segment's files, opened for reading.

Nothing is served unverified: ids, seqs, codes and graphs are checked whole before their first use, vectors and payloads
block by block before a row of them is read. Files are mapped lazily, so that opening a collection costs no reads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import overload
from weakref import ref

import numpy as np

from vecdb.errors import Corruption
from vecdb.index.codes import ScalarCodes
from vecdb.index.flat import CodedFlatIndex, FlatIndex
from vecdb.index.hnsw import Breadth, HnswIndex
from vecdb.kernels.protocol import Kernels
from vecdb.schema import CollectionSchema, VectorField
from vecdb.segment.ids import Packed, PackedKeys, find_keys
from vecdb.segment.layout import Role, SegmentEntry, SegmentFile
from vecdb.segment.room import Room
from vecdb.segment.vectors import FieldVectors
from vecdb.segment.windows import windowed
from vecdb.storage.array_file import ArrayFile
from vecdb.storage.directory import MmapDirectory
from vecdb.types import AnyArray, F32Array, I64Array, Metric, U32Array, U64Array

_WHOLE = frozenset({Role.IDS, Role.SEQS, Role.CODES, Role.GRAPH, Role.JOURNAL})


class SegmentReader:
    """One segment. Safe to use from many threads; replaced roles appear by ``attach``.

    Parameters
    ----------
    directory
        Where the files are.
    entry
        What the manifest says of the segment.
    room
        The budget of memory that it keeps to, if there is one.
    go_on
        Called every few milliseconds while a graph is opened; whatever it raises ends that, and nothing is kept of it.

    Attributes
    ----------
    searched_s
        When it was last searched, by the monotonic clock; 0.0: never.
    """

    def __init__(
        self,
        directory: MmapDirectory,
        entry: SegmentEntry,
        schema: CollectionSchema,
        kernels: Kernels,
        room: Room | None = None,
        go_on: Callable[[], None] | None = None,
    ) -> None:
        self.entry = entry
        self.rows = entry.rows
        self.room = room
        self.go_on = go_on
        self.searched_s = 0.0
        self._directory = directory
        self._schema = schema
        self._kernels = kernels
        self._lock = threading.Lock()
        self._files: dict[tuple[Role, str], ArrayFile] = {}
        self._mapped: dict[tuple[Role, str], ArrayFile] = {}
        """Files that were mapped ahead of their first use, and not verified."""
        self._fields: dict[str, SegmentField] = {}
        self._packed_payloads: tuple[ArrayFile | None, Packed | None] = (None, None)
        self.keys = _Keys(self)
        self.payloads = _Payloads(self)

    @property
    def segment_id(self) -> int:
        """The segment's number."""
        return self.entry.segment_id

    @property
    def field_names(self) -> list[str]:
        """The names of the vector fields."""
        return [each.name for each in self._schema.vectors]

    def attach(self, file: SegmentFile) -> None:
        """Use ``file`` for its role from now on."""
        with self._lock:
            self._attach(file, None)

    def take(self, entry: SegmentEntry, *, damaged: bool = False) -> None:
        """Use the files of a newer entry of the segment; all of them are mapped on return, none is verified for it.

        For who does not own the directory: what is mapped stays readable when the owner unlinks it.

        Parameters
        ----------
        damaged
            Files may be missing or damaged; such a one is left to be an error where it is needed.

        Raises
        ------
        Corruption
            A file is missing or its frame is damaged; the reader is as it was.
        """
        with self._lock:
            there = {each.ref for each in (*self._files.values(), *self._mapped.values())}
        new: list[tuple[SegmentFile, ArrayFile | None]] = []
        for file in entry.files:
            if file.ref in there:
                continue
            try:
                new.append((file, ArrayFile.open(self._directory, file.ref, role=file.role.value)))
            except Corruption:
                if not damaged:
                    raise
                new.append((file, None))
        with self._lock:
            for file, mapped in new:
                self._attach(file, mapped)
            self.entry = entry

    def _attach(self, file: SegmentFile, mapped: ArrayFile | None) -> None:
        self.entry = self.entry.with_file(file)
        key = (file.role, file.field)
        self._files.pop(key, None)
        self._mapped.pop(key, None)
        if mapped is not None:
            self._mapped[key] = mapped
        self._fields.pop(file.field, None)

    def array_file(self, role: Role, field: str = "") -> ArrayFile:
        """The open file of a role; those that are read whole are verified here."""
        opened = self._files.get((role, field))
        return self._opened(role, field) if opened is None else opened

    def _opened(self, role: Role, field: str) -> ArrayFile:
        with self._lock:
            opened = self._files.get((role, field))
            if opened is None:
                named = self.entry.file(role, field)
                if named is None:
                    raise Corruption(
                        f"segment {self.segment_id} has no {role.value} file",
                        field=f"segment {self.segment_id}",
                        value=role.value,
                    )
                opened = self._mapped.get((role, field)) or ArrayFile.open(self._directory, named.ref, role=role.value)
                if role in _WHOLE:
                    opened.verify()
                self._files[(role, field)] = opened
                self._mapped.pop((role, field), None)
        return opened

    def array(self, role: Role, name: str, field: str = "") -> AnyArray:
        """One array of a role."""
        file = self.array_file(role, field)
        try:
            return file.arrays[name]
        except KeyError:
            raise Corruption(f"{file.ref.name} has no array {name!r}", field=file.ref.name, value=name) from None

    def _row_array(self, role: Role, name: str, rows: int) -> AnyArray:
        """An array that must have ``rows`` entries."""
        found = self.array(role, name)
        if found.shape != (rows,):
            raise Corruption(
                f"segment {self.segment_id}: {role.value}/{name} has shape {found.shape}, the manifest says {rows}",
                field=f"segment {self.segment_id}",
                limit=rows,
                value=found.shape,
            )
        return found

    @property
    def hashes(self) -> U64Array:
        """(n,) uint64, ascending."""
        return self._row_array(Role.IDS, "hashes", self.rows)

    @property
    def hash_rows(self) -> U32Array:
        """(n,) uint32: the row of each of ``hashes``."""
        return self._row_array(Role.IDS, "hash_rows", self.rows)

    @property
    def seqs(self) -> U64Array:
        """(n,) uint64: the write batch that made each row."""
        return self._row_array(Role.SEQS, "seqs", self.rows)

    def locate(self, keys: Sequence[bytes], hashes: U64Array) -> I64Array:
        """The row of each key, dead or alive, (len(keys),) int64, -1 where the segment has none."""
        if self.rows == 0:
            return np.full(len(keys), -1, np.int64)
        return find_keys(keys, hashes, self.hashes, self.hash_rows, self.keys)

    @property
    def payloads_verified(self) -> bool:
        """Whether every payload is verified."""
        return self.array_file(Role.PAYLOAD).verified

    def ensure_payloads(self, rows: I64Array) -> None:
        """Verify the payloads of ``rows`` before they are read."""
        file = self.array_file(Role.PAYLOAD)
        if file.verified:
            return
        ends = np.concatenate([rows, rows + 1])
        file.ensure("offsets", ends)
        offsets = self._row_array(Role.PAYLOAD, "offsets", self.rows + 1)
        data = self.array(Role.PAYLOAD, "bytes")
        for row in rows.tolist():
            first, end = int(offsets[row]), int(offsets[row + 1])
            if not first <= end <= data.shape[0]:
                raise Corruption(
                    f"{file.ref.name}: payload {row} ends before it begins", field=file.ref.name, value=row
                )
            if end > first:
                # Blocks are larger than most payloads; touching one byte of each verifies all of them.
                file.ensure("bytes", np.append(np.arange(first, end, 4096), end - 1))

    @property
    def packed_payloads(self) -> Packed:
        """The payloads as they are stored; ``ensure_payloads`` comes before one is read."""
        file = self.array_file(Role.PAYLOAD)
        of, packed = self._packed_payloads
        if packed is None or of is not file:
            packed = Packed(self.array(Role.PAYLOAD, "offsets"), self.array(Role.PAYLOAD, "bytes"))
            self._packed_payloads = (file, packed)
        return packed

    def field(self, name: str) -> SegmentField:
        """The vectors of a field and what searches them."""
        found = self._fields.get(name)
        self.searched_s = time.monotonic()
        if found is None:
            found = SegmentField(self, self._schema.vector(name), self._kernels)
            with self._lock:
                self._fields[name] = found
        return found

    def open_field(self, name: str) -> SegmentField | None:
        """The same if it was asked for before: opens nothing."""
        self.searched_s = time.monotonic()
        return self._fields.get(name)

    def mapped_files(self) -> Iterator[tuple[Role, ArrayFile]]:
        """The files that are mapped now."""
        for files in (self._files, self._mapped):
            for (role, _), file in list(files.items()):
                yield role, file

    @property
    def derived_bytes(self) -> int:
        """Bytes of memory of what was computed from the files and is kept."""
        return sum(field.derived_bytes for field in list(self._fields.values()))

    def forget_derived(self) -> None:
        """Give up what was computed from the files; it is computed again when it is needed."""
        for field in list(self._fields.values()):
            field.forget_derived()

    def has_open_rows(self, with_payloads: bool) -> bool:
        """Whether the ids, and the payloads too, are open and verified."""
        payloads = self._files.get((Role.PAYLOAD, ""))
        return (Role.IDS, "") in self._files and (not with_payloads or (payloads is not None and payloads.verified))

    def verify(self, file: SegmentFile) -> None:
        """Check every byte of one file, in a fresh look at the disk."""
        ArrayFile.open(self._directory, file.ref, role=file.role.value).verify()


class SegmentField:
    """One vector field of one segment, and what searched it when this was made."""

    def __init__(self, reader: SegmentReader, declared: VectorField, kernels: Kernels) -> None:
        self._file = reader.array_file(Role.VECTORS, declared.name)
        arrays = self._file.arrays
        vectors = arrays.get("vectors")
        if vectors is None or vectors.ndim != 2 or vectors.shape[1] != declared.dim or vectors.dtype != np.float32:
            raise Corruption(
                f"{self._file.ref.name}: vectors are not {declared.dim}-d float32", field=self._file.ref.name
            )
        norms = arrays.get("norms")
        if (norms is not None) != (declared.metric is Metric.COSINE):
            raise Corruption(
                f"{self._file.ref.name}: norms do not go with {declared.metric.value}", field=self._file.ref.name
            )
        slot_rows = arrays.get("slot_rows")
        if slot_rows is not None:
            self._file.ensure("slot_rows", None)
        elif vectors.shape[0] != reader.rows:
            raise Corruption(
                f"{self._file.ref.name}: {vectors.shape[0]} vectors for {reader.rows} rows", field=self._file.ref.name
            )
        self.vectors = FieldVectors(vectors, norms, slot_rows)
        self.slots = vectors.shape[0]
        # One that is attached later comes with another SegmentField.
        self.has_graph = reader.entry.file(Role.GRAPH, declared.name) is not None
        # Weak, as in what else belongs to a reader: a reader is gone, and its files may be removed, as soon as nobody
        # holds it, without waiting for the garbage collector.
        self._reader_of = ref(reader)
        self._declared = declared
        self._room = reader.room
        self._kernels = kernels if reader.room is None else windowed(kernels, self._file, reader.room)
        self._codes: ScalarCodes | None = None
        self._graph: HnswIndex | None = None

    @property
    def codes(self) -> ScalarCodes:
        """The quantised vectors, verified."""
        codes = self._codes
        if codes is None:
            reader = _held(self._reader_of)
            arrays = reader.array_file(Role.CODES, self._declared.name).arrays
            codes = ScalarCodes.from_arrays(arrays, self._declared.metric)
            if codes.rows != self.slots or codes.dim != self._declared.dim:
                raise Corruption(
                    f"segment {reader.segment_id}: codes are {codes.rows} x {codes.dim}, "
                    f"vectors {self.slots} x {self._declared.dim}",
                    field=f"segment {reader.segment_id}",
                )
            self._codes = codes
        return codes

    @property
    def has_codes(self) -> bool:
        """A segment always has codes."""
        return True

    @property
    def has_open_codes(self) -> bool:
        """Whether the codes were opened before."""
        return self._codes is not None

    @property
    def has_open_graph(self) -> bool:
        """Whether the graph was opened before."""
        return self._graph is not None

    @property
    def exact(self) -> FlatIndex:
        """Exact search over float32; the caller verifies by ``ensure`` first."""
        self._settle()
        return FlatIndex(self._kernels, self.vectors.vectors, self._declared.metric)

    @property
    def scan(self) -> CodedFlatIndex:
        """A scan of the codes with a float32 rerank."""
        self._settle()
        return CodedFlatIndex(self._kernels, self.codes, self.vectors.vectors)

    @property
    def graph(self) -> HnswIndex:
        """Graph search with a float32 rerank."""
        # Held here: to keep to a budget another thread may give up the one that is kept.
        graph = self._graph
        if graph is None:
            reader = _held(self._reader_of)
            arrays = reader.array_file(Role.GRAPH, self._declared.name).arrays
            vectors = self.vectors.vectors
            graph = self._graph = HnswIndex.from_arrays(self._kernels, arrays, self.codes, vectors, reader.go_on)
            if self._room is not None:
                self._room.note_built()
        self._settle()
        return graph

    @property
    def derived_bytes(self) -> int:
        """Bytes of memory of what was computed from the files and is kept."""
        graph = self._graph
        return 0 if graph is None else graph.derived_bytes

    def forget_derived(self) -> None:
        """Give up what was computed from the files; a search that uses it goes on."""
        self._graph = None

    def _settle(self) -> None:
        """Between the parts of a search: each may take as much memory as all of them together are allowed."""
        if self._room is not None:
            self._room.settle()

    @property
    def breadth(self) -> Breadth:
        """How far walks through the graph have to go; opens its file."""
        return self.graph.breadth

    @property
    def verified(self) -> bool:
        """Whether every vector is verified."""
        return self._file.verified

    def ensure(self, slots: I64Array | None) -> None:
        """Verify the float32 vectors (and norms) of ``slots``, or of all, before they are read."""
        if self._file.verified:
            return
        self._file.ensure("vectors", slots)
        if self.vectors.norms is not None:
            self._file.ensure("norms", slots)

    def original(self, slot: int) -> F32Array:
        """The vector of a slot as it was given, to float32 rounding, (dim,) float32; verified."""
        at = np.array([slot], np.int64)
        self.ensure(at)
        if self._room is None or self._room.fits:
            return self.vectors.original(slot)
        # A page would bring its surroundings along, megabytes for one vector.
        read: F32Array = self._file.read_rows("vectors", at)[0]
        return self.vectors.unnormalised(read, slot)


def _held(reader_of: ref[SegmentReader]) -> SegmentReader:
    reader = reader_of()
    assert reader is not None, "the segment is gone"
    return reader


class _Keys(Sequence[bytes]):
    """The encoded id of each row."""

    __slots__ = ("_packed", "_reader_of", "_rows")

    def __init__(self, reader: SegmentReader) -> None:
        self._reader_of = ref(reader)
        self._rows = reader.rows
        self._packed: PackedKeys | None = None

    @property
    def packed(self) -> PackedKeys:
        """The keys as they are stored."""
        packed = self._packed
        if packed is None:
            reader = _held(self._reader_of)
            packed = self._packed = PackedKeys(reader.array(Role.IDS, "key_offsets"), reader.array(Role.IDS, "keys"))
        return packed

    def __len__(self) -> int:
        return self._rows

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[bytes]: ...
    def __getitem__(self, at: int | slice) -> bytes | Sequence[bytes]:
        packed = self.packed
        if isinstance(at, slice):
            return [packed[row] for row in range(*at.indices(self._rows))]
        return packed[at]


class _Payloads(Sequence[bytes]):
    """The payload of each row, verified on the way."""

    __slots__ = ("_reader_of",)

    def __init__(self, reader: SegmentReader) -> None:
        # Weak: whoever remembers something about these payloads must not keep the segment itself.
        self._reader_of = ref(reader)

    def __len__(self) -> int:
        return _held(self._reader_of).rows

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[bytes]: ...
    def __getitem__(self, at: int | slice) -> bytes | Sequence[bytes]:
        reader = _held(self._reader_of)
        if isinstance(at, slice):
            rows = range(*at.indices(reader.rows))
            if not rows:
                return []
            reader.array_file(Role.PAYLOAD).ensure("offsets", None)
            reader.array_file(Role.PAYLOAD).ensure("bytes", None)
            low, high = min(rows), max(rows)
            offsets = reader.array(Role.PAYLOAD, "offsets")[low : high + 2].tolist()
            data = reader.array(Role.PAYLOAD, "bytes")[offsets[0] : offsets[-1]].tobytes()
            starts = [offset - offsets[0] for offset in offsets]
            if reader.room is not None:
                reader.room.settle()
            return [data[starts[row - low] : starts[row - low + 1]] for row in rows]
        reader.ensure_payloads(np.array([at], np.int64))
        return reader.packed_payloads[at]
