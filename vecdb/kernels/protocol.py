"""The verbs that every device implements, and the arrays that travel through them.

Two rules hold for every verb: the same arguments give the same result on every device (integers bit for bit, float32
distances to rounding), and inputs are never written to, except where a verb says that it grows a graph.

Codes
-----
A *code table* holds one row of unsigned bytes per vector: ``x ~= centre + step * (code - 128)``, padded with 128 to a
multiple of ``STRIDE_BYTES`` bytes, so that padding contributes nothing to a dot product of ``code - 128``. A query is
quantised to signed bytes, padded with 0. Only such integers decide the structure of a graph.

The integer distance of a query ``q`` to a row ``v`` is ``((norms[v] * ratio) >> RATIO_BITS) - dot(code[v] - 128, q)``,
where ``ratio`` is 0 unless the metric is L2. For dimensions up to ``DIMENSIONS_MAX`` every sum of ``code * q`` is below
255 * 127 * 65,536 < 2**31, so 32-bit accumulators cannot overflow.

Sketches
--------
A *sketch* holds the sign bit of every code of a row (bit ``j`` of byte ``i``: code ``8 * i + j`` is at least 128) and,
as the last two int32 of the line, ``factor = 256 * norm // size`` and
``error = isqrt((factor**2 - 65,536 * norm // dim) >> 8)``, where ``norm`` is the sum of squares and ``size`` the sum of
magnitudes of ``code - 128``. With ``s`` the sum of ``q`` over set bits, ``(2 * s - sum(q)) * factor >> 8`` estimates
``dot(code - 128, q)`` without bias, and ``error / 16 * norm(q)`` is about its standard error (Gao and Long 2024,
"RaBitQ", section 3, without the rotation). A beam that is full does not read the codes of a row whose estimate, lowered
by ``SKETCH_MARGIN`` sixteenths of that error, is beyond the worst of the beam.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from vecdb.types import F32Array, I8Array, I32Array, I64Array, Metric, TopK, U8Array, U64Array

STRIDE_BYTES = 64
"""Rows of codes are padded to a multiple of this many bytes: a cache line, and the widest vector register."""

DIMENSIONS_MAX = 65_536
"""Largest dimension for which no 32-bit sum of products of codes can overflow."""

RATIO_BITS = 30
"""Fractional bits of ``QueryCodes.ratios``."""

UNIT_MIN = 1e-30
"""Quantisation units at or below this are taken as 1: everything is zero at that scale, and reciprocals overflow."""

ALPHA_ONE = 64
"""Fixed-point one of the pruning factor alpha: 70 means 70 / 64."""

ROWS_MAX = 2**31 - 1
"""Largest number of rows of one graph: ids travel as int32."""

SKETCH_STRIDE_MIN = 256
"""Code rows shorter than this many bytes are not sketched: reading one is hardly dearer than reading its sketch."""

SKETCH_MARGIN = 12
"""Standard errors, in sixteenths, that a sketched distance is lowered by before a row is given up on its account."""

Progress: TypeAlias = Callable[[str, float], None]
"""Called with the name of a kernel and the seconds it took to become ready."""


def sketch_bytes(stride: int) -> int:
    """Bytes of the sketch of a code row of ``stride`` bytes: a bit for each, two int32, rounded up to a cache line."""
    return stride_bytes(stride // 8 + 8)


def stride_bytes(dim: int) -> int:
    """Bytes of one row of codes: ``dim`` rounded up to a multiple of ``STRIDE_BYTES``."""
    return -(-dim // STRIDE_BYTES) * STRIDE_BYTES


@dataclass(frozen=True, slots=True)
class QueryCodes:
    """A batch of queries in the units of one code table.

    Attributes
    ----------
    values
        (nq, stride) int8, C order, zero beyond the dimension.
    ratios
        (nq,) int64: weight of a row's norm with ``RATIO_BITS`` fractional bits; 0 for dot and cosine.
    """

    values: I8Array
    ratios: I64Array


@dataclass(frozen=True, slots=True)
class Codes:
    """A code table as kernels read it.

    Attributes
    ----------
    table
        (n, stride) uint8, C order.
    norms
        (n,) int32: sum of ``(code - 128) ** 2`` over each row.
    """

    table: U8Array
    norms: I32Array


@dataclass(frozen=True, slots=True)
class BuildSpace:
    """A code table with the terms that make distances between its rows comparable, and never negative.

    ``distance(i, j) = halves[i] + halves[j] - dot(code[i] - 128, code[j] - 128)``: half the squared Euclidean distance;
    for the metric dot, where all halves are one constant, minus the dot product but for a constant.

    Attributes
    ----------
    table
        (n, stride) uint8, C order.
    halves
        (n,) int32: half of each row's squared norm, rounded down; for dot half of the largest, rounded up.
    sketches
        (n, sketch_bytes(stride)) uint8, or (0, ...) for a space that is searched without.
    """

    table: U8Array
    halves: I32Array
    sketches: U8Array


@dataclass(frozen=True, slots=True)
class UpperLayers:
    """The layers above the bottom of an HNSW graph, on codes of their own.

    A *place* numbers the rows of the upper layers, highest layer first; layer ``l`` (from 1) holds the places below
    ``level_starts[l] - level_starts[l - 1]``. Place 0 is the entry point.

    Attributes
    ----------
    rows
        (u,) int32: the row of each place.
    table
        (u, stride) uint8, by place.
    norms
        (u,) int32, by place: ``Codes.norms`` where the layers serve a search, ``BuildSpace.halves`` in a build.
    links
        (t, m) int32: links of layer 1, then of layer 2, ...; places, -1 after the last.
    level_starts
        (levels + 1,) int64: first row of each layer in ``links``, and the total.
    """

    rows: I32Array
    table: U8Array
    norms: I32Array
    links: I32Array
    level_starts: I64Array


@dataclass(frozen=True, slots=True)
class Graph:
    """A finished HNSW graph: bottom links by row, and the upper layers.

    Attributes
    ----------
    links
        (n, degree) int32: rows, -1 after the last.
    sketches
        (n, sketch_bytes(stride)) uint8 of the code table, or (0, ...) to search without.
    upper
        The layers above; at least one place when n > 0.
    """

    links: I32Array
    sketches: U8Array
    upper: UpperLayers


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a graph under construction. ``links`` and ``degrees`` are written by the verbs that grow it.

    Attributes
    ----------
    space
        Codes of the layer's nodes; a node is an index into it.
    links
        (n, capacity) int32, -1 after the last.
    degrees
        (n,) int32: number of links.
    """

    space: BuildSpace
    links: I32Array
    degrees: I32Array


@dataclass(frozen=True, slots=True)
class Prune:
    """How links are chosen: nearest candidates first, dropping one that is nearer to a chosen one than to the node.

    Attributes
    ----------
    degree_max
        Links kept.
    alpha
        A candidate c is dropped for a chosen s when ``alpha * distance(c, s) < distance(node, c) * ALPHA_ONE``.
    """

    degree_max: int
    alpha: int


@dataclass(frozen=True, slots=True)
class Candidates:
    """Slots found by integer distance, nearest first, and what finding them cost.

    Attributes
    ----------
    slots
        (nq, count) int32, -1 after the last found.
    fewest
        The least number of slots found for one query.
    distance_computations
        Rows scored for the whole batch, on all layers, by sketch, by code or by both.
    hops
        Nodes expanded on the bottom layer for the whole batch.
    """

    slots: I32Array
    fewest: int
    distance_computations: int
    hops: int


@dataclass(frozen=True, slots=True)
class Merged:
    """The nearest of several rankings.

    Attributes
    ----------
    sources
        (nq, k) int32: the place of the ranking that each hit comes from; -1 after the last hit.
    slots, distances
        (nq, k) int32 and float32, as in ``TopK``.
    """

    sources: I32Array
    slots: I32Array
    distances: F32Array


@dataclass(frozen=True, slots=True)
class WarmedKernel:
    """What ``warm_up`` did for one kernel: its name, the seconds until it was ready, whether it came from the cache."""

    name: str
    seconds: float
    cached: bool


class BoundGraph(Protocol):
    """A graph made ready to be searched often: what all searches share was checked, or copied to where they run."""

    def search(self, queries: QueryCodes, ef: int, count: int, allowed: U64Array | None = None) -> Candidates:
        """Beam search by integer distance: at most ``count`` of the best ``ef`` rows found, those allowed only.

        Rows that are not allowed are walked through. ``ef`` at least 1. The walk starts at the row that a greedy
        descent through the upper layers arrives at, and at the entry point, so one with ``ef`` of n meets every row.
        """
        ...


class Kernels(Protocol):
    """The verbs. All arrays are C order; a float32 vector array is (n, dim) and may be a read-only map."""

    @property
    def name(self) -> str:
        """The device and instruction set, for people."""
        ...

    def is_ready(self, *verbs: str) -> bool:
        """Whether these verbs run at once; one that is not ready is compiled when it is first used."""
        ...

    def scan_topk(
        self, vectors: F32Array, queries: F32Array, metric: Metric, k: int, allowed: U64Array | None = None
    ) -> TopK:
        """Exact nearest rows by float32 distance; ties by row.

        Parameters
        ----------
        vectors
            (n, dim) float32; normalised for the metric cosine, as are the queries.
        queries
            (nq, dim) float32.
        metric
            Which distance.
        k
            Width of the result, at least 1; may exceed n.
        allowed
            (ceil(n / 64),) uint64 bit set of the rows to look at; None for all. Only these rows are read.
        """
        ...

    def rerank(self, vectors: F32Array, queries: F32Array, candidates: I32Array, metric: Metric, k: int) -> TopK:
        """Exact nearest rows among ``candidates`` ((nq, c) int32, no row twice in a line, -1 is skipped)."""
        ...

    def encode(self, vectors: F32Array, centre: F32Array, step: float) -> Codes:
        """Quantise rows to bytes: ``128 + clip(rint((x - centre) / step), -127, 127)``."""
        ...

    def quantise(self, queries: F32Array, centre: F32Array, step: float, metric: Metric) -> QueryCodes:
        """Quantise queries for a code table with this ``centre`` ((dim,) float32) and ``step``."""
        ...

    def sketch(self, codes: Codes, dim: int) -> U8Array:
        """Sketches of the rows of a code table: (n, sketch_bytes(stride)) uint8."""
        ...

    def scan_codes(self, codes: Codes, queries: QueryCodes, count: int, allowed: U64Array | None = None) -> Candidates:
        """Nearest rows by integer distance over the allowed rows; ties by row."""
        ...

    def bind_graph(self, codes: Codes, graph: Graph) -> BoundGraph:
        """The graph over these codes, ready to be searched; neither changes while it is."""
        ...

    def merge(self, rankings: Sequence[TopK]) -> Merged:
        """The nearest of at least one ranking of the same queries, as wide as each of them; ties by ranking, slot."""
        ...

    def propose_links(
        self, layer: Layer, upper: UpperLayers, bottom: bool, nodes: I32Array, ef: int, prune: Prune
    ) -> I32Array:
        """Choose links for ``nodes`` from a beam search of ``layer``, which is not changed.

        Parameters
        ----------
        layer
            The graph to search. The search for a node that has links already starts at the node itself, and the links
            are further candidates.
        upper
            The layers above this one (there may be none yet); any other search descends through them to its start.
        bottom
            Whether nodes of the layer are rows; otherwise they are places.
        nodes
            (b,) int32.
        ef
            Width of the beam.
        prune
            How to choose.

        Returns
        -------
        (b, degree_max) int32, nearest first, -1 after the last.
        """
        ...

    def accept_links(
        self, layer: Layer, targets: I32Array, starts: I64Array, sources: I32Array, limit: int, prune: Prune
    ) -> None:
        """Add links ``target -> source`` to ``layer``; prune a node that would have more than ``limit`` of them.

        Parameters
        ----------
        layer
            The graph to grow: ``links`` and ``degrees`` of the targets are written.
        targets
            (t,) int32, each once.
        starts
            (t + 1,) int64: the sources of target i are ``sources[starts[i]:starts[i + 1]]``.
        sources
            (e,) int32; one that is linked already is skipped.
        limit
            At most the capacity of ``layer.links``.
        prune
            How to choose when there are more than ``limit``.
        """
        ...

    def connect(self, layer: Layer, degree_max: int, walk: I32Array, state: I64Array, budget: int) -> bool:
        """Make every node reachable from node ``walk[0, 0]``; a bounded part of that work a call.

        A breadth-first walk; when it ends, the first node not met is linked from one that was (preferably one that it
        links to itself), never at the price of a link that the walk used, and the walk goes on.

        Parameters
        ----------
        layer
            The graph: ``links`` and ``degrees`` may be written.
        degree_max
            No node gets more links than this; none may have more already.
        walk
            (3, n) int32, written: nodes in the order met, parent of each node (-1 where not met yet; the entry is its
            own parent), number of walk links out of each node. The caller sets the entry, the rest to -1, -1, 0.
        state
            (5,) int64, written: nodes expanded, nodes met, next node to look at, next adopter to try, links added. The
            caller sets 0, 1, 0, 0, 0.
        budget
            Nodes to expand or examine in this call.

        Returns
        -------
        True when every node was met.
        """
        ...

    def warm_up(self, progress: Progress | None = None) -> tuple[WarmedKernel, ...]:
        """Make every kernel ready to run, compiling it or loading it from the cache."""
        ...
