"""One vector field of a segment: its vectors, and what searches them.

Codes and graph are opened, verified whole, when they are first asked for; vectors are verified by ``ensure``, block by
block, before one is read.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vecdb.errors import Corruption
from vecdb.index.codes import ScalarCodes
from vecdb.index.flat import CodedFlatIndex, FlatIndex
from vecdb.index.hnsw import Breadth, HnswIndex
from vecdb.kernels.protocol import Kernels
from vecdb.schema import VectorField
from vecdb.segment.files import SegmentFiles
from vecdb.segment.layout import Role
from vecdb.segment.room import Room
from vecdb.segment.vectors import FieldVectors
from vecdb.segment.windows import windowed
from vecdb.types import F32Array, I64Array, Metric


class SegmentField:
    """The vectors of one field, and what searched them when this was made.

    Parameters
    ----------
    go_on
        Called every few milliseconds while a graph is opened; whatever it raises ends that, and nothing is kept of it.

    Raises
    ------
    Corruption
        The file of the vectors is damaged, or they are not those of the field.
    """

    def __init__(
        self,
        files: SegmentFiles,
        declared: VectorField,
        kernels: Kernels,
        room: Room | None,
        go_on: Callable[[], None] | None = None,
    ) -> None:
        self._file = files.array_file(Role.VECTORS, declared.name)
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
        elif vectors.shape[0] != files.rows:
            raise Corruption(
                f"{self._file.ref.name}: {vectors.shape[0]} vectors for {files.rows} rows", field=self._file.ref.name
            )
        self.vectors = FieldVectors(vectors, norms, slot_rows)
        self.slots = vectors.shape[0]
        # One that is attached later comes with another SegmentField.
        self.has_graph = files.entry.file(Role.GRAPH, declared.name) is not None
        self._files = files
        self._declared = declared
        self._room = room
        self._go_on = go_on
        self._kernels = kernels if room is None else windowed(kernels, self._file, room)
        self._codes: ScalarCodes | None = None
        self._graph: HnswIndex | None = None
        self._scan: CodedFlatIndex | None = None

    @property
    def codes(self) -> ScalarCodes:
        """The quantised vectors, verified."""
        codes = self._codes
        if codes is None:
            arrays = self._files.array_file(Role.CODES, self._declared.name).arrays
            codes = ScalarCodes.from_arrays(arrays, self._declared.metric)
            if codes.rows != self.slots or codes.dim != self._declared.dim:
                segment = f"segment {self._files.entry.segment_id}"
                raise Corruption(
                    f"{segment}: codes are {codes.rows} x {codes.dim}, vectors {self.slots} x {self._declared.dim}",
                    field=segment,
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
        graph = self._graph
        if graph is not None:
            self._settle()
            return graph.scan
        scan = self._scan
        if scan is None:
            scan = self._scan = CodedFlatIndex(self._kernels, self.codes, self.vectors.vectors)
        self._settle()
        return scan

    @property
    def graph(self) -> HnswIndex:
        """Graph search with a float32 rerank."""
        # Held here: to keep to a budget another thread may give up the one that is kept.
        graph = self._graph
        if graph is None:
            arrays = self._files.array_file(Role.GRAPH, self._declared.name).arrays
            vectors = self.vectors.vectors
            graph = self._graph = HnswIndex.from_arrays(self._kernels, arrays, self.codes, vectors, self._go_on)
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
