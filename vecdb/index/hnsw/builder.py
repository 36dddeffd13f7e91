"""Building an HNSW graph in small steps, by any number of threads, from codes alone.

Layers are built from the top down, each by batches of rows (``vecdb.index.hnsw.growth``). The bottom layer is then
refined: every row searches the finished graph around itself and chooses its links anew, with the factor alpha of Vamana
(Subramanya et al. 2019), and whatever row no walk from the entry point would meet is linked in. The graph is a function
of the codes and the parameters: it does not depend on the number of threads, nor on how the work is cut.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from vecdb.index.codes import ScalarCodes
from vecdb.index.hnsw.graft import LentGraph
from vecdb.index.hnsw.growth import Growth, Phases, Site, empty_layer
from vecdb.index.hnsw.levels import insertion_order
from vecdb.index.hnsw.params import HnswParams
from vecdb.index.hnsw.phase import ALONE, Crew, Phase
from vecdb.kernels.arrays import ALPHA_ONE, BuildSpace, Layer, Prune, UpperLayers
from vecdb.kernels.memory import aligned_copy
from vecdb.kernels.protocol import Kernels
from vecdb.types import AnyArray, I32Array, Metric

_ALPHA = 70
"""In ``ALPHA_ONE``ths. More keeps longer links and crowds out near ones, less keeps too few."""

_REFINE_EF = 32
"""Refinement starts amid a row's neighbours, so a narrow beam is enough to correct what early batches could not see."""


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
    crew
        The threads that build it: the one that calls ``run``, and those that help it.
    """

    def __init__(
        self,
        kernels: Kernels,
        codes: ScalarCodes,
        params: HnswParams,
        crew: Crew = ALONE,
        lent: LentGraph | None = None,
    ) -> None:
        self._kernels = kernels
        self._params = params
        self._codes = codes
        self._crew = crew
        self._lent = lent
        self._alpha = ALPHA_ONE if codes.metric is Metric.DOT else _ALPHA
        self._arrays: dict[str, AnyArray] | None = None
        self._growth = Growth(kernels)
        self._phase: Phase | None = None
        self._work = self._build()

    @property
    def done(self) -> bool:
        """Whether the graph is finished."""
        return self._arrays is not None

    def step(self, seconds_max: float = 0.02) -> bool:
        """Work for about ``seconds_max`` seconds; returns ``done``."""
        end = time.perf_counter() + seconds_max
        return self.run(lambda: time.perf_counter() >= end)

    def run(self, cancelled: Callable[[], bool] = lambda: False) -> bool:
        """Work to the end, or until ``cancelled`` (asked every few milliseconds) says so; returns ``done``.

        Raises
        ------
        Exception
            Whatever a kernel raised; the graph is lost then.
        """
        while not self.done:
            if self._phase is None:
                self._phase = next(self._work, None)
            if self._phase is not None and self._crew.work_on(self._phase, cancelled):
                self._phase = None
            if cancelled():
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

    def _build(self) -> Phases:
        """The whole work."""
        m, ef, growth = self._params.m, self._params.ef_construction, self._growth
        order, counts = insertion_order(self._codes.rows, m, self._params.seed)
        yield None
        space = yield from self._codes.build_space(self._kernels)
        yield None
        places = order[: counts[0]] if counts.shape[0] else order[:0]
        above_space = BuildSpace(aligned_copy(space.table[places]), space.halves[places], space.sketches[:0])
        finished: list[I32Array] = []
        above = np.full((0, m), -1, np.int32)
        for count in counts[::-1].tolist():
            nodes = np.arange(count, dtype=np.int32)
            layer = empty_layer(_first(above_space, count), m)
            site = Site(layer, _upper(places, above_space, finished, m), False, Prune(m, self._alpha))
            _seed(layer, nodes, above, nodes)
            yield from growth.insert(site, nodes, max(1, above.shape[0]), ef)
            yield from growth.trim(site)
            above = layer.links[:, :m].copy()
            finished.insert(0, above)
        layer = empty_layer(space, 2 * m)
        site = Site(layer, _upper(places, above_space, finished, m), True, Prune(2 * m, self._alpha))
        if self._codes.rows:
            if self._lent is None:
                _seed(layer, places, above, places)
                yield from growth.insert(site, order, max(1, places.shape[0]), ef)
                yield from growth.refine(site, np.sort(order), min(_REFINE_EF, ef))
            else:
                yield from self._extend(site, order, above, self._lent)
            yield from growth.connect(site, int(places[0]))
        self._arrays = {
            "links": aligned_copy(layer.links[:, : 2 * m]),
            "upper_rows": places,
            "upper_links": site.upper.links,
            "level_starts": site.upper.level_starts,
        }

    def _extend(self, site: Site, order: I32Array, above: I32Array, lent: LentGraph) -> Phases:
        """Fill the bottom layer by a lent graph and the rows that it does not have."""
        growth, ef = self._growth, self._params.ef_construction
        yield from growth.graft(site, lent)
        linked = site.layer.degrees > 0
        fresh = order[~linked[order]]
        places = site.upper.rows
        bare = ~linked[places]
        _seed(site.layer, places[bare], above[bare], places)
        nodes = np.concatenate([np.flatnonzero(linked).astype(np.int32), fresh])
        yield from growth.insert(site, nodes, nodes.shape[0] - fresh.shape[0], ef)
        yield from growth.refine(site, np.sort(fresh), min(_REFINE_EF, ef))
        yield from growth.trim(site)


def _upper(places: I32Array, space: BuildSpace, finished: list[I32Array], m: int) -> UpperLayers:
    """The layers finished so far, lowest first."""
    links = np.concatenate([*finished, np.full((0, m), -1, np.int32)])
    starts = np.cumsum([0, *(layer.shape[0] for layer in finished)], dtype=np.int64)
    return UpperLayers(places, space.table, space.halves, links, starts)


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
