"""Growing one layer of a graph, as phases of work: the layer after each is a function of the layer before it.

Rows join a layer in batches: each row of a batch chooses its links in the layer as it was before the batch, then the
reverse links are added, grouped by target (batch insertion as in ParlayANN, Manohar et al. 2024). Refinement lets nodes
search the layer once more around themselves and choose their links anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from vecdb.index.hnsw.graft import LentGraph
from vecdb.index.hnsw.phase import Pace, Phase
from vecdb.kernels.arrays import BuildSpace, Layer, Prune, UpperLayers
from vecdb.kernels.memory import aligned_empty
from vecdb.kernels.protocol import Kernels
from vecdb.types import I32Array, I64Array

Phases: TypeAlias = Iterator[Phase | None]
"""Phases in their order; ``None`` where the work may be interrupted between two of them. What comes behind a phase may
be asked for only when it is done."""

_BATCH_DIVISOR = 8
_BATCH_MAX = 8192
"""A batch is an eighth of what is in the layer, at most this many rows: rows of one batch do not see each other."""

_SLACK_DIVISOR = 2
_RUN_ROWS = 8192
_CALL_ROWS_MAX = 4096
_CALL_NODES = 4096


@dataclass(frozen=True, slots=True)
class Site:
    """A layer that is being built.

    Attributes
    ----------
    upper
        The layers above it.
    bottom
        Whether its nodes are rows.
    prune
        How links are chosen, and how many a node keeps in the end. While it grows it may have half as many again, so
        that pruning is rare.
    """

    layer: Layer
    upper: UpperLayers
    bottom: bool
    prune: Prune


def empty_layer(space: BuildSpace, degree_max: int) -> Layer:
    """A layer without links over all rows of a space, with room to grow."""
    n = space.table.shape[0]
    capacity = degree_max + degree_max // _SLACK_DIVISOR
    links = aligned_empty((n, capacity), np.int32)
    links[:] = -1
    return Layer(space, links, np.zeros(n, np.int32))


class Growth:
    """What makes layers grow, and how fast it does: one for the whole of a build."""

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels
        self._proposing = Pace(16, _CALL_ROWS_MAX)
        self._accepting = Pace(256, _CALL_ROWS_MAX)
        self._sorting = Pace(_RUN_ROWS, 1 << 20)

    def insert(self, site: Site, nodes: I32Array, inserted: int, ef: int) -> Phases:
        """Add ``nodes[inserted:]`` to a layer that holds ``nodes[:inserted]``."""
        layer, degree_max = site.layer, site.prune.degree_max
        while inserted < nodes.shape[0]:
            size = max(1, min(inserted // _BATCH_DIVISOR, _BATCH_MAX))
            batch = nodes[inserted : inserted + size]
            proposals = np.empty((batch.shape[0], degree_max), np.int32)
            yield self._propose(site, batch, ef, proposals)
            layer.links[batch, :degree_max] = proposals
            layer.links[batch, degree_max:] = -1
            layer.degrees[batch] = (proposals >= 0).sum(axis=1)
            yield self.accept(site, by_target(batch, proposals), layer.links.shape[1])
            inserted += batch.shape[0]

    def refine(self, site: Site, nodes: I32Array, ef: int) -> Phases:
        """Choose the links of ``nodes`` (ascending) anew from the layer as it is, then add the reverse links.

        No node of the layer has more links than it may keep afterwards, if those that are not refined had not before.
        """
        layer, degree_max = site.layer, site.prune.degree_max
        if nodes.shape[0] == 0:
            return
        proposals = np.empty((nodes.shape[0], degree_max), np.int32)
        yield self._propose(site, nodes, ef, proposals)
        layer.links[nodes, :degree_max] = proposals
        layer.links[nodes, degree_max:] = -1
        layer.degrees[nodes] = (proposals >= 0).sum(axis=1)
        count = nodes.shape[0]
        runs: list[I64Array] = [np.zeros(0, np.int64)] * -(-count // _RUN_ROWS)

        def sort(first: int, end: int) -> None:
            for number in range(first, end):
                part = slice(number * _RUN_ROWS, (number + 1) * _RUN_ROWS)
                runs[number] = by_target(nodes[part], proposals[part])

        def regroup(first: int, end: int) -> None:
            pairs = np.concatenate([run[slice(*np.searchsorted(run, (first << 32, end << 32)))] for run in runs])
            pairs.sort()
            self._accept_pairs(site, *_grouped(pairs), degree_max)

        yield Phase(len(runs), sort, Pace(1, 1))
        yield Phase(layer.degrees.shape[0], regroup, self._accepting)

    def graft(self, site: Site, lent: LentGraph) -> Phases:
        """Give the rows of a lent graph the links that they had there; those that are gone are cut out."""
        layer, kept, width = site.layer, lent.kept(), lent.links.shape[1]

        def graft(first: int, end: int) -> None:
            rows = lent.rows[kept[first:end]]
            links, candidates = lent.links_of(kept[first:end])
            layer.links[rows, :width] = links
            layer.degrees[rows] = (links >= 0).sum(axis=1)
            self._accept_pairs(site, *_grouped(candidates), site.prune.degree_max)

        yield Phase(kept.shape[0], graft, Pace(64, _CALL_ROWS_MAX))

    def trim(self, site: Site) -> Phases:
        """Prune every node to as many links as it may keep."""
        long = np.flatnonzero(site.layer.degrees > site.prune.degree_max).astype(np.int32)
        starts = np.zeros(long.shape[0] + 1, np.int64)
        none = np.zeros(0, np.int32)
        limit = site.prune.degree_max
        yield Phase(
            long.shape[0],
            lambda first, end: self._kernels.accept_links(
                site.layer, long[first:end], starts[first : end + 1], none, limit, site.prune
            ),
            self._accepting,
        )

    def connect(self, site: Site, entry: int) -> Phases:
        """Leave no node unreachable."""
        walk = np.full((3, site.layer.degrees.shape[0]), -1, np.int32)
        walk[2] = 0
        walk[0, 0] = entry
        walk[1, entry] = entry
        state = np.array([0, 1, 0, 0, 0], np.int64)
        while not self._kernels.connect(site.layer, site.prune.degree_max, walk, state, _CALL_NODES):
            yield None

    def accept(self, site: Site, pairs: I64Array, limit: int) -> Phase:
        """Add the links in ``pairs`` (ascending, target << 32 | source)."""
        targets, bounds, sources = _grouped(pairs)
        return Phase(
            targets.shape[0],
            lambda first, end: self._accept_pairs(site, targets[first:end], bounds[first : end + 1], sources, limit),
            self._accepting,
        )

    def _accept_pairs(self, site: Site, targets: I32Array, bounds: I64Array, sources: I32Array, limit: int) -> None:
        self._kernels.accept_links(site.layer, targets, bounds, sources, limit, site.prune)

    def _propose(self, site: Site, nodes: I32Array, ef: int, proposals: I32Array) -> Phase:
        """Fill ``proposals`` for ``nodes``."""

        def propose(first: int, end: int) -> None:
            proposals[first:end] = self._kernels.propose_links(
                site.layer, site.upper, site.bottom, nodes[first:end], ef, site.prune
            )

        return Phase(nodes.shape[0], propose, self._proposing)


def by_target(nodes: I32Array, proposals: I32Array) -> I64Array:
    """The reverse of ``nodes[i] -> proposals[i, j]`` as ascending ``target << 32 | source``."""
    sources = np.broadcast_to(nodes[:, None].astype(np.int64), proposals.shape)
    real = proposals >= 0
    pairs: I64Array = (proposals[real].astype(np.int64) << 32) | sources[real]
    pairs.sort()
    return pairs


def _grouped(pairs: I64Array) -> tuple[I32Array, I64Array, I32Array]:
    """Ascending pairs as targets, the bounds of each one's sources, and all sources."""
    owners = pairs >> 32
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    bounds = np.append(starts, pairs.shape[0])
    return owners[starts].astype(np.int32), bounds, (pairs & 0xFFFF_FFFF).astype(np.int32)
