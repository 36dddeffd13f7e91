"""The arrays that travel through the kernels, and the constants of their layout.

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

Nibbles
-------
*Nibbles* are codes of four bits, two to a byte: byte ``j`` of a row of ``w`` bytes holds nibble ``j`` in its low half
and nibble ``j + w`` in its high half, zero beyond the stride. A nibble is ``clip((code - 128) // step, -8, 7) + 8``;
``dot(code - 128, q)`` is taken as ``step * dot(nibble, q) - (15 * step * sum(q) >> 1)``. A walk on them reads half as
many cache lines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vecdb.types import F32Array, I8Array, I32Array, I64Array, Metric, TopK, U8Array

STRIDE_BYTES = 64
"""Rows of codes are padded to a multiple of this many bytes: a cache line, and the widest vector register."""

DIMENSIONS_MAX = 65_536
"""Largest dimension for which no 32-bit sum of products of codes can overflow."""

RATIO_BITS = 30
"""Fractional bits of ``QueryCodes.ratios``."""

OFFSET_MAX = 1 << 40
"""``QueryCodes.offsets`` end here: a distance that they are added to is below 2**32."""

UNIT_MIN = 1e-30
"""Quantisation units at or below this are taken as 1: everything is zero at that scale, and reciprocals overflow."""

ALPHA_ONE = 64
"""Fixed-point one of the pruning factor alpha: 70 means 70 / 64."""

SLACK_BITS = 16
"""Fractional bits of ``Beam.slack``."""

SLACK_MAX = 4 << SLACK_BITS
"""Beyond this a walk hardly ends before its beam does; products with any distance stay far below 2**63."""

BLUR_ONE = 16
"""One of ``Nibbles.blur``."""

CODE_BLUR = 7
"""``Nibbles.blur`` of a walk on whole codes: sqrt(2 / 12), for the rounding of rows and of queries of like length."""

NEARNESS_BLURS = 3
"""Standard errors that two distances may differ by and yet be the same: rows that far behind the k-th are ranked."""

SCANNED_BLURS = 5
"""The same for a scan, which is to miss next to nothing: its few rows more cost little beside all that it looks at."""

SCANNED_FACTOR = 3
SCANNED_BEYOND = 32
"""A scan ranks ``max(SCANNED_FACTOR * k, k + SCANNED_BEYOND)`` rows, however far behind they are: not all errors of
codes are like chance. Components that are clipped err by more than rounding does."""

DETOUR_NEIGHBOURS_MIN = 24
"""A walk among allowed rows looks behind the links that are not allowed until it has this many neighbours of a row."""

SCATTERED_MIN = 32
"""A walk among allowed rows also starts at this many of them, evenly spaced by row, or at k where that is more."""

REMOTE_BITS = 4
"""Fractional bits of the two below."""

REMOTE_SHARE = 14
"""The k-th allowed row is remote where it has more than this share of the squared distance of the row descended to."""

REMOTE_GAIN = 64
"""By how many times what it has beyond that share the slack of a walk is granted on more than its squared distance.

Where allowed rows are farther than others the walk comes from one side upon many at about one distance.
"""

COARSE_STRIDE_MIN = 256
"""Code rows shorter than this many bytes have no sketches and no nibbles: reading one is hardly dearer."""

SKETCH_MARGIN = 12
"""Standard errors, in sixteenths, that a sketched distance is lowered by before a row is given up on its account."""


def sketch_bytes(stride: int) -> int:
    """Bytes of the sketch of a code row of ``stride`` bytes: a bit for each, two int32, rounded up to a cache line."""
    return stride_bytes(stride // 8 + 8)


def nibble_bytes(stride: int) -> int:
    """Bytes of the nibbles of a code row of ``stride`` bytes: half of it, rounded up to a cache line."""
    return stride_bytes(-(-stride // 2))


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
    offsets
        (nq,) int64: what makes an integer distance proportional to the squared Euclidean distance when it is added: to
        the row itself for L2 and cosine, and for dot to the row with one more coordinate, which gives all rows one
        length (Bachrach et al. 2014, "Speeding up the Xbox recommender system", section 3).
    """

    values: I8Array
    ratios: I64Array
    offsets: I64Array


@dataclass(frozen=True, slots=True)
class Beam:
    """How far a walk goes.

    Attributes
    ----------
    ef
        Rows that are kept to be expanded, at least 1. The literature's ef.
    slack
        With ``SLACK_BITS`` fractional bits: the walk ends where the nearest row that is not expanded has more than
        ``slack`` times the squared distance of the k-th nearest row found ("Distance adaptive beam search", Al-Jazzazi
        et al. 2025), however many rows are kept. 0: it ends where all rows kept are expanded.
    """

    ef: int
    slack: int = 0


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
class Originals:
    """The vectors that a code table was made of, and how.

    Attributes
    ----------
    vectors
        (n, dim) float32, C order; normalised for the metric cosine.
    centre, step
        (dim,) float32, and the size of one code level.
    metric
        What they are compared by.
    reach
        Length of the longest code row in units of ``step``.
    """

    vectors: F32Array
    centre: F32Array
    step: float
    metric: Metric
    reach: float


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
class Nibbles:
    """Codes of four bits, and what a walk has to know of their precision.

    Attributes
    ----------
    table
        (n, nibble_bytes(stride)) uint8, or (0, ...): whole codes are read instead.
    step
        Code levels in one of a nibble.
    blur
        Standard error of a distance of the walk, in ``BLUR_ONE``ths of the length of the query's code.
    """

    table: U8Array
    step: int
    blur: int


@dataclass(frozen=True, slots=True)
class Graph:
    """A finished HNSW graph: bottom links by row, and the upper layers.

    Attributes
    ----------
    links
        (n, degree) int32: rows, -1 after the last.
    sketches
        (n, sketch_bytes(stride)) uint8 of the code table, or (0, ...) to search without.
    nibbles
        Of the code table, or without rows to walk on whole codes.
    upper
        The layers above; at least one place when n > 0.
    """

    links: I32Array
    sketches: U8Array
    nibbles: Nibbles
    upper: UpperLayers


def unlinked(stride: int) -> Graph:
    """No graph over a code table with rows of ``stride`` bytes: its rows can only be scanned."""
    numbers, links = np.zeros(0, np.int32), np.zeros((0, 1), np.int32)
    upper = UpperLayers(numbers, np.zeros((0, stride), np.uint8), numbers, links, np.zeros(1, np.int64))
    nibbles = Nibbles(np.zeros((0, nibble_bytes(stride)), np.uint8), 16, CODE_BLUR)
    return Graph(links, np.zeros((0, sketch_bytes(stride)), np.uint8), nibbles, upper)


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


# Not frozen, as each search makes one: that would take four times as long.
@dataclass(slots=True)
class Answers:
    """The nearest rows by exact distance, and what finding them cost: ``Candidates``, ranked."""

    topk: TopK
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
