"""What the steps of a search cost on this machine, in nanoseconds: what plans weigh scans and walks by.

Costs are values that are handed to the planner, so that a plan stays a function of what it is given. They are measured
once per process and length of code rows, in some milliseconds, which nobody who searches waits for, and only by kernels
that are compiled already.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vecdb.kernels.arrays import (
    COARSE_STRIDE_MIN,
    CODE_BLUR,
    Beam,
    Codes,
    Graph,
    Nibbles,
    Originals,
    UpperLayers,
)
from vecdb.kernels.protocol import Kernels
from vecdb.types import Metric, U64Array

_DEGREE = 32
_EF = 64
_ROWS_MAX = 8192
_TABLE_BYTES_MAX = 4 * 2**20
_ROUNDS = 3
_NEEDED = ("answer_scan", "answer_graph_allowed")


@dataclass(frozen=True, slots=True)
class SearchCosts:
    """Costs for code rows of one length.

    Attributes
    ----------
    row_ns
        To look at one allowed row, in a scan or in a walk.
    hop_ns
        To expand a row of a walk, beside the rows that are looked at for it.
    detour_ns
        To read the links of a row that is not allowed and to test which of them are.
    """

    row_ns: float
    hop_ns: float
    detour_ns: float


DEFAULT_COSTS = SearchCosts(row_ns=14.0, hop_ns=300.0, detour_ns=40.0)
"""On one core of an AMD Zen 5, 384 dimensions: for as long as nothing can be measured."""

_measured: dict[tuple[str, int], SearchCosts] = {}
_measuring = threading.Lock()


def costs_of(kernels: Kernels, stride: int) -> SearchCosts:
    """The costs for code rows of ``stride`` bytes, as far as they were measured."""
    return _measured.get((kernels.name, stride), DEFAULT_COSTS)


def lacks_costs(kernels: Kernels, stride: int) -> bool:
    """Whether the costs were not measured yet, and measuring them compiles nothing."""
    return (kernels.name, stride) not in _measured and kernels.name != "reference" and kernels.is_ready(*_NEEDED)


def measure_costs(kernels: Kernels, stride: int) -> None:
    """Measure the costs if they are lacking; it takes some milliseconds."""
    with _measuring:
        if lacks_costs(kernels, stride):
            _measured[(kernels.name, stride)] = measured(kernels, stride)


def measured(kernels: Kernels, stride: int) -> SearchCosts:
    """Measure the costs on rows of chance, linked by chance."""
    chance = np.random.default_rng(stride)
    rows = max(1024, min(_ROWS_MAX, _TABLE_BYTES_MAX // stride))
    table = chance.integers(0, 256, (rows, stride), np.uint8)
    norms = np.full(rows, stride << 12, np.int32)
    codes = Codes(table, norms)
    sketches = kernels.sketch(codes, stride) if stride >= COARSE_STRIDE_MIN else None
    links = chance.integers(0, rows, (rows, _DEGREE), np.int32)
    first = np.zeros(1, np.int32)
    none = np.zeros((0, 64), np.uint8)
    upper = UpperLayers(first, table[:1], norms[:1], np.full((1, 1), -1, np.int32), np.array([0, 1]))
    graph = Graph(links, none if sketches is None else sketches, Nibbles(none, 16, CODE_BLUR), upper)
    # What only finds rows reads no vectors.
    originals = Originals(np.zeros((1, stride), np.float32), np.zeros(stride, np.float32), 1.0, Metric.DOT, 1.0)
    bound = kernels.bind_graph(codes, graph, originals)
    queries = chance.standard_normal((1, stride), np.float32)
    everything, few = _allowed(rows, 1), _allowed(rows, _DEGREE)
    scanned = _allowed(rows, 2)

    row_ns = _least_ns(lambda: bound.scan(queries, 1, _EF, scanned)) / (rows / 2)
    walk = bound.search(queries, Beam(_EF), 1, 1, everything)
    walk_ns = _least_ns(lambda: bound.search(queries, Beam(_EF), 1, 1, everything))
    hop_ns = max(walk_ns - walk.distance_computations * row_ns, 0.0) / walk.hops
    detours = bound.search(queries, Beam(_EF), 1, 1, few)
    detours_ns = _least_ns(lambda: bound.search(queries, Beam(_EF), 1, 1, few))
    spent = max(detours_ns - detours.distance_computations * row_ns - detours.hops * hop_ns, 0.0)
    return SearchCosts(row_ns, hop_ns, spent / (detours.hops * _DEGREE))


def _allowed(rows: int, one_in: int) -> U64Array:
    """Every so many-th row."""
    members = np.zeros(-(-rows // 64) * 64, np.uint8)
    members[:rows:one_in] = 1
    return np.packbits(members, bitorder="little").view(np.uint64)


def _least_ns(run: Callable[[], object]) -> float:
    """Nanoseconds that a call takes where nothing else interrupts it."""
    least = np.inf
    for _ in range(_ROUNDS):
        start = time.perf_counter_ns()
        run()
        least = min(least, time.perf_counter_ns() - start)
    return float(least)
