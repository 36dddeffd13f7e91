"""Building an HNSW graph in small steps, from codes alone.

Layers are built from the top down. Rows join a layer in batches: each row of a batch chooses its links in the layer as
it was before the batch, then the reverse links are added, grouped by target (batch insertion as in ParlayANN, Manohar
et al. 2024). So the graph does not depend on how the work is cut into steps. The bottom layer is then refined: every
row searches the finished graph around itself and chooses its links anew, with the factor alpha of Vamana (Subramanya et
al. 2019), and whatever row no walk from the entry point would meet is linked in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from vecdb.index.codes import ScalarCodes
from vecdb.index.hnsw.levels import insertion_order
from vecdb.index.hnsw.params import HnswParams
from vecdb.kernels.arrays import ALPHA_ONE, BuildSpace, Layer, Prune, UpperLayers
from vecdb.kernels.protocol import Kernels
from vecdb.types import AnyArray, I32Array, I64Array, Metric

_BATCH_DIVISOR = 8
_BATCH_MAX = 8192
"""A batch is an eighth of what is in the layer, at most this many rows: rows of one batch do not see each other."""

_ALPHA = 70
"""In ``ALPHA_ONE``ths. More keeps longer links and crowds out near ones, less keeps too few."""

_REFINE_EF = 32
"""Refinement starts amid a row's neighbours, so a narrow beam is enough to correct what early batches could not see."""

_SLACK_DIVISOR = 2
_CALL_SECONDS = 0.005
_CALL_ROWS_MAX = 4096
_CALL_TARGETS = 512
_RUN_ROWS = 8192
_CALL_NODES = 4096


class HnswBuilder:
    """A graph in the making. Not safe to share between threads; everything is in memory until ``arrays()``.

    Parameters
    ----------
    kernels
        The device.
    codes
        Codes of every row; no vector is ever looked at.
    params
        How to build.
    """

    def __init__(self, kernels: Kernels, codes: ScalarCodes, params: HnswParams) -> None:
        self._kernels = kernels
        self._params = params
        self._codes = codes
        self._rows = codes.rows
        self._alpha = ALPHA_ONE if codes.metric is Metric.DOT else _ALPHA
        self._arrays: dict[str, AnyArray] | None = None
        self._chunk = 16
        self._units_done = 0
        self._units = 1
        self._work = self._build()

    @property
    def done(self) -> bool:
        """Whether the graph is finished."""
        return self._arrays is not None

    @property
    def progress(self) -> float:
        """Share of the work that is done, 0 to 1."""
        return 1.0 if self.done else min(0.99, self._units_done / self._units)

    def step(self, seconds_max: float = 0.02) -> bool:
        """Work for about ``seconds_max`` seconds; returns ``done``."""
        end = time.perf_counter() + seconds_max
        while not self.done:
            next(self._work, None)
            if time.perf_counter() >= end:
                break
        return self.done

    def run(self, cancelled: Callable[[], bool] | None = None) -> bool:
        """Work to the end, or until ``cancelled`` (asked about every 20 ms) says so; returns ``done``."""
        while not self.step():
            if cancelled is not None and cancelled():
                break
        return self.done

    def arrays(self) -> dict[str, AnyArray]:
        """The finished graph.

        Returns
        -------
        ``links`` (n, 2 m) int32: rows linked from each row, -1 after the last; ``upper_rows`` (u,) int32: rows on the
        layers above, entry point first; ``upper_links`` (t, m) int32: their links, layer 1 first, as indexes into
        ``upper_rows``; ``level_starts`` (levels + 1,) int64: where each layer begins in ``upper_links``. C order.
        """
        assert self._arrays is not None, "the graph is not finished"
        return self._arrays

    def _build(self) -> Iterator[None]:
        """The whole work, giving way between bounded calls."""
        m = self._params.m
        order, counts = insertion_order(self._rows, m, self._params.seed)
        self._units = 2 * self._rows + int(counts.sum()) + 1
        yield
        space = self._codes.build_space(self._kernels)
        yield
        places = order[: counts[0]] if counts.shape[0] else order[:0]
        above_space = BuildSpace(space.table[places], space.halves[places], space.sketches[:0])
        finished: list[I32Array] = []
        above = np.full((0, m), -1, np.int32)
        for count in counts[::-1].tolist():
            nodes = np.arange(count, dtype=np.int32)
            site = _Site(
                _empty_layer(_first(above_space, count), m), _upper(places, above_space, finished, m), False, m
            )
            _seed(site.layer, nodes, above, nodes)
            yield from self._insert(site, nodes, max(1, above.shape[0]))
            yield from self._trim(site)
            above = site.layer.links[:, :m].copy()
            finished.insert(0, above)
        site = _Site(_empty_layer(space, 2 * m), _upper(places, above_space, finished, m), True, 2 * m)
        if self._rows:
            _seed(site.layer, places, above, places)
            yield from self._insert(site, order, max(1, places.shape[0]))
            yield from self._refine(site)
            yield from self._connect(site, int(places[0]))
        self._arrays = {
            "links": np.ascontiguousarray(site.layer.links[:, : 2 * m]),
            "upper_rows": places,
            "upper_links": site.upper.links,
            "level_starts": site.upper.level_starts,
        }

    def _insert(self, site: _Site, nodes: I32Array, inserted: int) -> Iterator[None]:
        """Add ``nodes[inserted:]`` to a layer that holds ``nodes[:inserted]``."""
        layer = site.layer
        while inserted < nodes.shape[0]:
            size = max(1, min(inserted // _BATCH_DIVISOR, _BATCH_MAX))
            batch = nodes[inserted : inserted + size]
            proposals = np.empty((batch.shape[0], site.degree_max), np.int32)
            yield from self._propose(site, batch, self._params.ef_construction, proposals)
            layer.links[batch, : site.degree_max] = proposals
            layer.degrees[batch] = (proposals >= 0).sum(axis=1)
            yield from self._accept(site, _by_target(batch, proposals), layer.links.shape[1])
            inserted += batch.shape[0]

    def _propose(self, site: _Site, nodes: I32Array, ef: int, proposals: I32Array) -> Iterator[None]:
        """Fill ``proposals`` for ``nodes``, as many a call as take a few milliseconds."""
        prune = Prune(site.degree_max, self._alpha)
        at = 0
        while at < nodes.shape[0]:
            some = nodes[at : at + self._chunk]
            start = time.perf_counter()
            found = self._kernels.propose_links(site.layer, site.upper, site.bottom, some, ef, prune)
            # The pace follows the clock; no result depends on it.
            wanted = int(some.shape[0] * _CALL_SECONDS / max(time.perf_counter() - start, 1e-6))
            self._chunk = max(1, min(wanted, self._chunk * 2, _CALL_ROWS_MAX))
            proposals[at : at + some.shape[0]] = found
            self._units_done += some.shape[0]
            at += some.shape[0]
            yield

    def _accept(self, site: _Site, pairs: I64Array, limit: int) -> Iterator[None]:
        """Add the links in ``pairs`` (sorted, target << 32 | source)."""
        prune = Prune(site.degree_max, self._alpha)
        owners = pairs >> 32
        starts = np.flatnonzero(np.diff(owners, prepend=-1))
        targets = owners[starts]
        bounds = np.append(starts, pairs.shape[0])
        sources = (pairs & 0xFFFF_FFFF).astype(np.int32)
        for at in range(0, targets.shape[0], _CALL_TARGETS):
            some = targets[at : at + _CALL_TARGETS].astype(np.int32)
            self._kernels.accept_links(site.layer, some, bounds[at : at + some.shape[0] + 1], sources, limit, prune)
            yield

    def _trim(self, site: _Site) -> Iterator[None]:
        """Prune every node to as many links as it may keep."""
        prune = Prune(site.degree_max, self._alpha)
        long = np.flatnonzero(site.layer.degrees > site.degree_max)
        none = np.zeros(0, np.int32)
        for at in range(0, long.shape[0], _CALL_TARGETS):
            some = long[at : at + _CALL_TARGETS].astype(np.int32)
            starts = np.zeros(some.shape[0] + 1, np.int64)
            self._kernels.accept_links(site.layer, some, starts, none, site.degree_max, prune)
            yield

    def _refine(self, site: _Site) -> Iterator[None]:
        """Choose every row's links anew from the finished layer, then add the reverse links."""
        layer = site.layer
        proposals = np.empty((self._rows, site.degree_max), np.int32)
        nodes = np.arange(self._rows, dtype=np.int32)
        yield from self._propose(site, nodes, min(_REFINE_EF, self._params.ef_construction), proposals)
        layer.links[:] = -1
        layer.links[:, : site.degree_max] = proposals
        layer.degrees[:] = (proposals >= 0).sum(axis=1)
        runs = []
        for at in range(0, self._rows, _RUN_ROWS):
            runs.append(_by_target(nodes[at : at + _RUN_ROWS], proposals[at : at + _RUN_ROWS]))
            yield
        for at in range(0, self._rows, _RUN_ROWS):
            low, high = at << 32, (at + _RUN_ROWS) << 32
            pairs = np.concatenate([run[np.searchsorted(run, low) : np.searchsorted(run, high)] for run in runs])
            pairs.sort()
            yield from self._accept(site, pairs, site.degree_max)

    def _connect(self, site: _Site, entry: int) -> Iterator[None]:
        """Leave no row unreachable."""
        walk = np.full((3, self._rows), -1, np.int32)
        walk[2] = 0
        walk[0, 0] = entry
        walk[1, entry] = entry
        state = np.array([0, 1, 0, 0, 0], np.int64)
        while not self._kernels.connect(site.layer, site.degree_max, walk, state, _CALL_NODES):
            yield


@dataclass(frozen=True, slots=True)
class _Site:
    """A layer that is being built, those above it, whether its nodes are rows, and how many links a node keeps."""

    layer: Layer
    upper: UpperLayers
    bottom: bool
    degree_max: int


def _upper(places: I32Array, space: BuildSpace, finished: list[I32Array], m: int) -> UpperLayers:
    """The layers finished so far, lowest first."""
    links = np.concatenate([*finished, np.full((0, m), -1, np.int32)])
    starts = np.cumsum([0, *(layer.shape[0] for layer in finished)], dtype=np.int64)
    return UpperLayers(places, space.table, space.halves, links, starts)


def _empty_layer(space: BuildSpace, degree_max: int) -> Layer:
    """A layer without links, with room for half as many again while it grows, so that pruning is rare."""
    n = space.table.shape[0]
    capacity = degree_max + degree_max // _SLACK_DIVISOR
    return Layer(space, np.full((n, capacity), -1, np.int32), np.zeros(n, np.int32))


def _first(space: BuildSpace, count: int) -> BuildSpace:
    """The first ``count`` rows of a space."""
    return BuildSpace(space.table[:count], space.halves[:count], space.sketches)


def _seed(layer: Layer, nodes: I32Array, above: I32Array, names: I32Array) -> None:
    """Give the nodes of the layer above the links that they have there; ``names`` translates those links."""
    if above.shape[0] == 0:
        return
    linked = np.where(above >= 0, names[np.maximum(above, 0)], -1)
    layer.links[nodes[: above.shape[0]], : above.shape[1]] = linked
    layer.degrees[nodes[: above.shape[0]]] = (above >= 0).sum(axis=1)


def _by_target(nodes: I32Array, proposals: I32Array) -> I64Array:
    """The reverse of ``nodes[i] -> proposals[i, j]`` as sorted ``target << 32 | source``."""
    sources = np.broadcast_to(nodes[:, None].astype(np.int64), proposals.shape)
    real = proposals >= 0
    pairs: I64Array = (proposals[real].astype(np.int64) << 32) | sources[real]
    pairs.sort()
    return pairs
