"""Exact nearest neighbours by plain NumPy, and recall measured against them.

Distances here are float64 and follow the engine's inner convention: squared Euclidean, minus the dot product, and
1 - cosine; smaller is nearer. Candidates come from one float32 matrix product a block and are then ordered by their
float64 distances, so that rounding of the product decides nothing.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidArgument
from vecdb.types import AnyArray, F32Array, I64Array, Metric

F64Array: TypeAlias = NDArray[np.float64]

BLOCK_ROWS = 65_536
CANDIDATES_SPARE = 32
"""Candidates kept beyond k, so that float32 rounding at the k-th place loses no true neighbour."""

TIE_SHARE = 1e-6
TIE_ULPS = 4.0
"""A distance above the k-th true one by at most ``TIE_SHARE`` of it is a tie, and so is one that exceeds it by no more
than this many units of float32 rounding of the quantities that an engine may subtract to get it."""


def unit_rows(vectors: F32Array) -> F32Array:
    """Each row divided by its Euclidean norm; (n, dim) float32, C order.

    Raises
    ------
    InvalidArgument
        For a row of zeros, which has no direction.
    """
    unit = np.empty(vectors.shape, np.float32)
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = np.asarray(vectors[start : start + BLOCK_ROWS], np.float64)
        norms = np.linalg.norm(block, axis=1, keepdims=True)
        if not norms.all():
            row = start + int(np.flatnonzero(norms[:, 0] == 0)[0])
            raise InvalidArgument(f"row {row} is a zero vector, which has no direction", field="vectors", value=row)
        unit[start : start + BLOCK_ROWS] = block / norms
    return unit


def distances_of(train: F32Array, queries: F32Array, neighbours: I64Array, metric: Metric) -> F64Array:
    """Exact distances between each query and the rows named for it.

    Parameters
    ----------
    train
        (n, dim) float32.
    queries
        (nq, dim) float32.
    neighbours
        (nq, c) int64 rows of ``train``; -1 where there is none.

    Returns
    -------
    (nq, c) float64; +inf where a neighbour is -1.
    """
    distances = np.empty(neighbours.shape, np.float64)
    for at, query in enumerate(np.asarray(queries, np.float64)):
        rows = np.asarray(train[neighbours[at]], np.float64)
        if metric is Metric.L2:
            distances[at] = np.square(rows - query).sum(axis=1)
        elif metric is Metric.DOT:
            distances[at] = -(rows @ query)
        else:
            distances[at] = 1.0 - (rows @ query) / (np.linalg.norm(rows, axis=1) * np.linalg.norm(query))
    distances[neighbours < 0] = np.inf
    return distances


def tie_margins(train: F32Array, queries: F32Array, neighbours: I64Array, metric: Metric) -> F64Array:
    """By how much another row may be farther than each of ``neighbours`` and still count as equally near.

    float32 engines compute |q|^2 + |x|^2 - 2qx under L2, 1 - cos under cosine and a sum of products under dot: what
    they cannot tell apart is relative to |q|^2 + |x|^2, to 1 and to |q||x|, not to the distance, which may be far less.

    Parameters
    ----------
    train, queries
        (n, dim) and (nq, dim) float32.
    neighbours
        (nq, c) int64 rows of ``train``.

    Returns
    -------
    (nq, c) float64, positive.
    """
    query_norms = np.linalg.norm(np.asarray(queries, np.float64), axis=1)[:, np.newaxis]
    scales = np.ones(neighbours.shape, np.float64)
    if metric is not Metric.COSINE:
        for at, rows in enumerate(neighbours):
            scales[at] = np.linalg.norm(np.asarray(train[rows], np.float64), axis=1)
        scales = np.square(scales) + np.square(query_norms) if metric is Metric.L2 else scales * query_norms
    floors = TIE_ULPS * float(np.finfo(np.float32).eps) * scales
    margins: F64Array = np.maximum(TIE_SHARE * np.abs(distances_of(train, queries, neighbours, metric)), floors)
    return margins


def exact_neighbours(train: F32Array, queries: F32Array, k: int, metric: Metric) -> I64Array:
    """The ``k`` rows of ``train`` nearest to each query, nearest first, ties by row.

    Returns
    -------
    (nq, min(k, n)) int64.
    """
    k = min(k, len(train))
    wanted = min(k + CANDIDATES_SPARE, len(train))
    sought = unit_rows(queries) if metric is Metric.COSINE else queries
    best_rows = np.empty((len(queries), 0), np.int64)
    best = np.empty((len(queries), 0), np.float32)
    for start in range(0, len(train), BLOCK_ROWS):
        block = np.asarray(train[start : start + BLOCK_ROWS], np.float32)
        keys = -(sought @ (unit_rows(block) if metric is Metric.COSINE else block).T)
        if metric is Metric.L2:
            keys = 2.0 * keys + np.square(block).sum(axis=1)
        rows = np.broadcast_to(np.arange(start, start + len(block)), keys.shape)
        best = np.concatenate([best, keys], axis=1)
        best_rows = np.concatenate([best_rows, rows], axis=1)
        if best.shape[1] > wanted:
            kept = np.argpartition(best, wanted - 1, axis=1)[:, :wanted]
            best = np.take_along_axis(best, kept, axis=1)
            best_rows = np.take_along_axis(best_rows, kept, axis=1)
    distances = distances_of(train, queries, best_rows, metric)
    order = np.lexsort((best_rows, distances), axis=1)[:, :k]
    return np.take_along_axis(best_rows, order, axis=1)


def recall_at(k: int, found: AnyArray, found_distances: F64Array, true_distances: F64Array, margins: F64Array) -> float:
    """Mean share of the ``k`` nearest that were found; any row as near as the k-th true neighbour counts as right.

    Parameters
    ----------
    found
        (nq, c) integer rows; -1 where fewer were found. A row that is repeated counts once.
    found_distances
        (nq, c) exact distances of ``found``.
    true_distances
        (nq, at least k) exact distances of the true neighbours, ascending.
    margins
        (nq, at least k) ``tie_margins`` of the true neighbours.
    """
    if true_distances.shape[1] < k:
        raise InvalidArgument(
            f"recall@{k} needs {k} true neighbours a query, got {true_distances.shape[1]}",
            field="k",
            limit=true_distances.shape[1],
            value=k,
        )
    reach = true_distances[:, k - 1] + margins[:, k - 1]
    right = 0
    for rows, near in zip(found[:, :k], found_distances[:, :k] <= reach[:, np.newaxis], strict=True):
        right += len(np.unique(rows[near & (rows >= 0)]))
    return right / (len(found) * k) if len(found) else 0.0


def local_intrinsic_dimension(true_distances: F64Array, metric: Metric) -> float | None:
    """Mean dimension that the data has around the queries, as a measure of how hard the set is.

    The maximum-likelihood estimate of Levina and Bickel (2004) from Euclidean distances to the nearest neighbours.
    ``None`` for the dot product, which is no distance, and where neighbours coincide.
    """
    if metric is Metric.DOT or true_distances.shape[1] < 2:
        return None
    squared = true_distances * 2.0 if metric is Metric.COSINE else true_distances
    radii = np.sqrt(np.maximum(squared, 0.0))
    usable = radii[(radii[:, 0] > 0) & (radii[:, 0] < radii[:, -1])]
    if not len(usable):
        return None
    logs = np.log(usable[:, -1:] / usable[:, :-1]).mean(axis=1)
    return float(np.mean(1.0 / logs[logs > 0]))
