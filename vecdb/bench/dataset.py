"""A data set to search: vectors, held-out queries and the true neighbours of each query.

The true neighbours are exact and belong to exactly these bytes: they are cached under a digest of the vectors, the
queries and the metric, and neighbours that came with a file are believed only after a sample of them was recomputed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from vecdb.bench.truth import (
    BLOCK_ROWS,
    F64Array,
    distances_of,
    exact_neighbours,
    local_intrinsic_dimension,
    tie_margins,
)
from vecdb.errors import InvalidArgument
from vecdb.types import F32Array, I64Array, Metric

TRUE_NEIGHBOURS = 100
"""Neighbours computed for each query, at least; the estimate of the intrinsic dimension uses all of them."""

QUERIES_CHECKED = 32
"""Queries whose neighbours from a file are recomputed before the file's are used."""


@dataclass(frozen=True, slots=True)
class RawVectors:
    """What a source hands over, before neighbours are known.

    Attributes
    ----------
    name
        For tables and plots.
    source
        Where the vectors come from, in words that let another person get the same ones.
    metric
        How they are compared.
    train
        (n, dim) float32, C order.
    queries
        (nq, dim) float32, C order; none of them is a row of ``train`` by construction.
    neighbours
        (nq, c) int64, nearest first, where the source brings them.
    """

    name: str
    source: str
    metric: Metric
    train: F32Array
    queries: F32Array
    neighbours: I64Array | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Vectors, queries and the exact neighbours of each query.

    Attributes
    ----------
    raw
        The vectors.
    neighbours, distances
        (nq, c) int64 and float64, nearest first, c at least the k that will be asked for.
    margins
        (nq, c) float64: what is not farther than a neighbour by more than this is a tie with it.
    truth
        Where ``neighbours`` come from: ``"computed"``, ``"cached"`` or ``"file, checked"``.
    digest
        xxh3-128 of train, queries and metric, in hexadecimal.
    """

    raw: RawVectors
    neighbours: I64Array
    distances: F64Array
    margins: F64Array
    truth: str
    digest: str

    @property
    def intrinsic_dimension(self) -> float | None:
        """How many dimensions the data has around the queries."""
        return local_intrinsic_dimension(self.distances, self.raw.metric)


def private_cache() -> Path:
    """The directory of cached ground truth, made on first use with mode 0700: ``$XDG_CACHE_HOME/vecdb/bench``."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vecdb" / "bench"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    return root


def digest_of(raw: RawVectors) -> str:
    """xxh3-128 of everything that the true neighbours depend on."""
    hasher = xxhash.xxh3_128(f"{raw.metric.value} {raw.train.shape} {raw.queries.shape}".encode())
    for array in (raw.train, raw.queries):
        for start in range(0, len(array), BLOCK_ROWS):
            hasher.update(np.ascontiguousarray(array[start : start + BLOCK_ROWS]).data)
    return str(hasher.hexdigest())


def with_truth(raw: RawVectors, k: int, cache: Path | None = None) -> Dataset:
    """The data set of these vectors, with at least ``k`` true neighbours a query.

    Parameters
    ----------
    cache
        Directory of cached neighbours; ``None``: ``private_cache()``.

    Raises
    ------
    InvalidArgument
        Where there are fewer than ``k`` vectors, or values that are not finite.
    """
    _check(raw, k)
    digest = digest_of(raw)
    depth = min(max(k, TRUE_NEIGHBOURS), len(raw.train))
    neighbours, truth = raw.neighbours, "file, checked"
    if neighbours is None or neighbours.shape[1] < k or not _agrees(raw, neighbours):
        path = (private_cache() if cache is None else cache) / f"{digest}-{depth}.npy"
        neighbours, truth = _cached(path, (len(raw.queries), depth), len(raw.train)), "cached"
        if neighbours is None:
            neighbours, truth = exact_neighbours(raw.train, raw.queries, depth, raw.metric), "computed"
            _store(path, neighbours)
    distances = distances_of(raw.train, raw.queries, neighbours, raw.metric)
    order = np.argsort(distances, axis=1, kind="stable")
    neighbours = np.take_along_axis(neighbours, order, axis=1)
    distances = np.take_along_axis(distances, order, axis=1)
    margins = tie_margins(raw.train, raw.queries, neighbours, raw.metric)
    return Dataset(raw, neighbours, distances, margins, truth, digest)


def _check(raw: RawVectors, k: int) -> None:
    for name, array in (("train", raw.train), ("queries", raw.queries)):
        if array.ndim != 2 or array.dtype != np.float32 or not len(array):
            raise InvalidArgument(
                f"{name} must be (n, dim) float32 with n > 0, got {array.shape} {array.dtype}",
                field=name,
                value=array.shape,
            )
        for start in range(0, len(array), BLOCK_ROWS):
            if not np.isfinite(array[start : start + BLOCK_ROWS]).all():
                raise InvalidArgument(f"{name} holds values that are not finite", field=name)
    if raw.train.shape[1] != raw.queries.shape[1]:
        raise InvalidArgument(
            f"queries have {raw.queries.shape[1]} dimensions and train {raw.train.shape[1]}",
            field="queries",
            limit=raw.train.shape[1],
            value=raw.queries.shape[1],
        )
    if len(raw.train) < k:
        raise InvalidArgument(
            f"k={k} neighbours of {len(raw.train)} vectors do not exist", field="k", limit=len(raw.train), value=k
        )


def _agrees(raw: RawVectors, neighbours: I64Array) -> bool:
    """Whether the neighbours of a sample of queries lie, but for rounding, as near as the nearest by brute force."""
    if len(neighbours) != len(raw.queries) or neighbours.min() < 0 or neighbours.max() >= len(raw.train):
        return False
    sample = np.unique(np.linspace(0, len(raw.queries) - 1, QUERIES_CHECKED).astype(np.int64))
    queries, given = raw.queries[sample], neighbours[sample]
    if any(len(np.unique(rows)) < given.shape[1] for rows in given):
        return False
    exact = exact_neighbours(raw.train, queries, given.shape[1], raw.metric)
    claimed = np.sort(distances_of(raw.train, queries, given, raw.metric), axis=1)
    true = distances_of(raw.train, queries, exact, raw.metric)
    return bool(np.all(np.abs(claimed - true) <= tie_margins(raw.train, queries, exact, raw.metric)))


def _cached(path: Path, shape: tuple[int, int], rows: int) -> I64Array | None:
    """The cached neighbours, or ``None`` where there are none that fit."""
    if not path.is_file():
        return None
    try:
        neighbours = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError):
        return None  # half written or foreign: it is computed again and replaced
    fits = neighbours.shape == shape and neighbours.dtype == np.int64
    return neighbours if fits and neighbours.min() >= 0 and neighbours.max() < rows else None


def _store(path: Path, neighbours: I64Array) -> None:
    """Put the neighbours in the cache, whole or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        np.save(file, neighbours, allow_pickle=False)
    part.replace(path)
