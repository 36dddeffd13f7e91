"""Byte codes of one vector field: a centre per dimension and one step for all, trained on the segment.

``vector ~= centre + step * (code - 128)``. The same vectors give the same bytes on every machine: the step is a rounded
float32 taken from a fixed sample, and everything after it is elementwise float32 arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from vecdb.errors import Corruption
from vecdb.kernels.arrays import (
    BLUR_ONE,
    COARSE_STRIDE_MIN,
    CODE_BLUR,
    UNIT_MIN,
    BuildSpace,
    Codes,
    Nibbles,
    Originals,
    QueryCodes,
    nibble_bytes,
    sketch_bytes,
    stride_bytes,
)
from vecdb.kernels.memory import aligned_empty
from vecdb.kernels.protocol import Kernels
from vecdb.types import AnyArray, F32Array, I32Array, Metric, U8Array

_SAMPLE_ROWS = 4096
_SAMPLE_COMPONENTS = 1 << 22
"""At most, whatever the dimension: training takes about twenty bytes for each of them."""
_CLIP_QUANTILES = (0.9995, 0.9999, 0.99999, 1.0)
"""Components beyond one of these quantiles of the sample are clipped: outliers should not coarsen the steps of all the
others, but what is clipped lies in the dimensions that count most."""

_STEP_BYTES = 2**20
"""Code rows that are looked at in one step."""

_NIBBLE_SAMPLE_ROWS = 2048
_NIBBLE_STEPS = range(4, 17)
_NEARNESS_MIN = 32
"""Nibbles are used where a row's nearest neighbour is farther than this many times what they blur."""


@dataclass(frozen=True, slots=True)
class ScalarCodes:
    """The code table of a vector field.

    Attributes
    ----------
    metric
        The field's metric.
    centre
        (dim,) float32; zero for the metric dot, whose order a shift would change.
    step
        Size of one code level, float32.
    codes
        (n, stride) uint8 and (n,) int32 norms.
    """

    metric: Metric
    centre: F32Array
    step: float
    codes: Codes

    @classmethod
    def encode(cls, kernels: Kernels, vectors: F32Array, metric: Metric) -> ScalarCodes:
        """Train on ``vectors`` ((n, dim) float32, finite, may be a read-only map) and encode them."""
        return cls.train(vectors, metric).encoded(kernels, vectors)

    @classmethod
    def train(cls, vectors: F32Array, metric: Metric) -> ScalarCodes:
        """A table without rows, trained on ``vectors``."""
        centre, step = _train(vectors, metric)
        stride = stride_bytes(vectors.shape[1])
        return cls(metric, centre, step, Codes(np.zeros((0, stride), np.uint8), np.zeros(0, np.int32)))

    def encoded(self, kernels: Kernels, vectors: F32Array) -> ScalarCodes:
        """The table with ``vectors`` as its rows; each is encoded alike, whatever the others are."""
        return replace(self, codes=kernels.encode(vectors, self.centre, self.step))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, AnyArray], metric: Metric) -> ScalarCodes:
        """The codes whose ``arrays()`` were stored.

        Raises
        ------
        Corruption
            An array is missing, or of the wrong shape or type.
        """
        table = stored_array(arrays, "codes", np.uint8, 2)
        norms = stored_array(arrays, "norms", np.int32, 1)
        centre = stored_array(arrays, "centre", np.float32, 1)
        step = stored_array(arrays, "step", np.float32, 1)
        _require(norms.shape == (table.shape[0],), "norms", norms)
        _require(table.shape[1] == stride_bytes(centre.shape[0]) and centre.shape[0] > 0, "codes", table)
        _require(step.shape == (1,) and bool(np.isfinite(step[0])) and step[0] > 0, "step", step)
        _require(bool(np.isfinite(centre).all()), "centre", centre)
        return cls(metric, centre, float(step[0]), Codes(table, norms))

    def arrays(self) -> dict[str, AnyArray]:
        """To store: ``codes`` (n, stride) uint8, ``norms`` (n,) int32, ``centre`` (dim,) and ``step`` (1,) float32."""
        return {
            "codes": self.codes.table,
            "norms": self.codes.norms,
            "centre": self.centre,
            "step": np.array([self.step], np.float32),
        }

    @property
    def rows(self) -> int:
        """Number of rows encoded."""
        return int(self.codes.table.shape[0])

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return int(self.centre.shape[0])

    def quantise(self, kernels: Kernels, queries: F32Array, reach: float = 0.0) -> QueryCodes:
        """Queries ((nq, dim) float32) in the units of this table; a walk by dot also needs the table's ``reach()``."""
        return kernels.quantise(queries, self.centre, self.step, self.metric, reach)

    def reach(self) -> float:
        """Length of the longest row in units of ``step``."""
        return math.sqrt(int(self.codes.norms.max(initial=0)))

    def originals(self, vectors: F32Array) -> Originals:
        """The vectors ((n, dim) float32) that were encoded, and how."""
        return Originals(vectors, self.centre, self.step, self.metric, self.reach())

    def sketches(self, kernels: Kernels) -> Generator[None, None, U8Array]:
        """Sketches of the rows for a graph search, in steps; none where rows are so short that they would not help."""
        n, stride = self.codes.table.shape
        if stride < COARSE_STRIDE_MIN:
            return np.zeros((0, sketch_bytes(stride)), np.uint8)
        sketches = aligned_empty((n, sketch_bytes(stride)), np.uint8)
        for some in self._pieces():
            piece = Codes(self.codes.table[some], self.codes.norms[some])
            sketches[some] = kernels.sketch(piece, self.dim)
            yield
        return sketches

    def nibbles(self, links: I32Array) -> Generator[None, None, Nibbles]:
        """Nibbles of the rows for a walk of the graph with these bottom ``links``, in steps.

        None where rows are so short that they would not help, or where neighbours are nearer than nibbles tell.
        """
        table = self.codes.table
        n, stride = table.shape
        width = nibble_bytes(stride)
        none = Nibbles(np.zeros((0, width), np.uint8), 16, CODE_BLUR)
        if stride < COARSE_STRIDE_MIN or n == 0:
            return none
        sample = np.arange(0, n, -(-n // _NIBBLE_SAMPLE_ROWS))
        levels = table[sample].astype(np.int32) - 128
        variances = (levels * levels).mean(axis=0, dtype=np.float64)
        # A component counts by how large those of queries are, which are taken to be like the rows.
        total = max(float(variances.sum()), 1.0)
        weights = np.bincount(table[sample].ravel(), np.tile(variances, sample.shape[0]), 256) / sample.shape[0]
        every = np.arange(256) - 128
        step, error = 16, np.inf
        for each in _NIBBLE_STEPS:
            nearest = np.clip(every // each, -8, 7) * each + each / 2.0
            missed = float((every - nearest) ** 2 @ weights) / total
            if missed < error:
                step, error = each, missed
        blur = math.sqrt(error)
        linked = links[sample, 0]
        there = linked >= 0
        gaps = table[linked[there]].astype(np.int32) - 128 - levels[there]
        nearness = (gaps * gaps).sum(axis=1) / 2.0 / np.maximum(np.sqrt(self.codes.norms[sample[there]]), 1.0)
        if nearness.shape[0] == 0 or float(np.median(nearness)) < _NEARNESS_MIN * blur:
            return none
        yield
        least = 128 - 8 * step
        packed = aligned_empty((n, width), np.uint8)
        for some in self._pieces():
            nibbles = np.clip(table[some], np.uint8(least), np.uint8(least + 16 * step - 1))
            nibbles -= np.uint8(least)
            nibbles //= np.uint8(step)
            packed[some] = nibbles[:, :width]
            packed[some, : stride - width] |= nibbles[:, width:] << np.uint8(4)
            yield
        return Nibbles(packed, step, math.ceil(blur * BLUR_ONE))

    def _pieces(self) -> Iterator[slice]:
        """The rows, few at a time."""
        n, stride = self.codes.table.shape
        size = max(1, _STEP_BYTES // stride)
        for at in range(0, n, size):
            yield slice(at, min(at + size, n))

    def build_space(self, kernels: Kernels) -> Generator[None, None, BuildSpace]:
        """The table with the terms that make rows comparable with each other, for building a graph, in steps."""
        norms = self.codes.norms
        sketches = yield from self.sketches(kernels)
        if self.metric is not Metric.DOT or norms.shape[0] == 0:
            return BuildSpace(self.codes.table, norms >> 1, sketches)
        half = (int(norms.max()) + 1) >> 1
        return BuildSpace(self.codes.table, np.full(norms.shape, half, np.int32), sketches)


def _train(vectors: F32Array, metric: Metric) -> tuple[F32Array, float]:
    """Centre and step for ``vectors``, from evenly spaced rows."""
    n, dim = vectors.shape
    if n == 0:
        return np.zeros(dim, np.float32), 1.0
    sample_rows = max(1, min(_SAMPLE_ROWS, _SAMPLE_COMPONENTS // dim))
    sample = vectors[:: -(-n // sample_rows)].astype(np.float32)
    centre = np.zeros(dim, np.float32)
    if metric is not Metric.DOT:
        centre = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
    reach = _reach(np.abs(sample.astype(np.float64) - centre))
    step = float(np.float32(min(reach, float(np.finfo(np.float32).max)) / 127.0))
    return centre, step if step > UNIT_MIN else 1.0


def _reach(sizes: AnyArray) -> float:
    """The size (of (s, dim) float64) that codes should end at: where clipping and rounding together err least."""
    largest = float(sizes.max())
    scale = largest if largest > 0.0 else 1.0
    variances = ((sizes / scale) ** 2).mean(axis=0)
    weights = variances / max(float(variances.mean()), 1e-300)
    ranks = [min(sizes.size - 1, int(sizes.size * quantile)) for quantile in _CLIP_QUANTILES]
    reaches = np.partition(sizes.ravel(), ranks)[ranks].tolist()
    best, least = largest, np.inf
    for reach in reaches:
        if reach > 0.0:
            clipped = (np.maximum(sizes - reach, 0.0) / scale) ** 2
            error = float((clipped.mean(axis=0) * weights).mean()) + (reach / scale / 127.0) ** 2 / 12.0
            if error < least:
                best, least = reach, error
    return best


def stored_array(arrays: Mapping[str, AnyArray], name: str, dtype: type[np.generic], ndim: int) -> AnyArray:
    """The named array, checked for type and dimensions."""
    array = arrays.get(name)
    if array is None:
        raise Corruption(f"array {name!r} is missing", field=name)
    if array.dtype != dtype or array.ndim != ndim or not array.flags.c_contiguous:
        raise Corruption(
            f"array {name!r} is not a C-ordered {ndim}-dimensional array of {np.dtype(dtype).name}",
            field=name,
            limit=np.dtype(dtype).name,
            value=f"{array.dtype.name} {array.shape}",
        )
    return array


def _require(holds: bool, name: str, array: AnyArray) -> None:
    if not holds:
        raise Corruption(f"array {name!r} does not fit the others", field=name, value=f"{array.shape}")
