"""The verbs that every device implements, on the arrays of ``vecdb.kernels.arrays``.

Two rules hold for every verb: the same arguments give the same result on every device (integers bit for bit, float32
distances to rounding), and inputs are never written to, except where a verb says that it grows a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from vecdb.kernels.arrays import (
    Answers,
    Beam,
    Candidates,
    Codes,
    Graph,
    Layer,
    Merged,
    Originals,
    Prune,
    QueryCodes,
    UpperLayers,
)
from vecdb.types import F32Array, I32Array, I64Array, Metric, TopK, U8Array, U64Array

Progress: TypeAlias = Callable[[str, float], None]
"""Called with the name of a kernel and the seconds it took to become ready."""


@dataclass(frozen=True, slots=True)
class WarmedKernel:
    """What ``warm_up`` did for one kernel: its name, the seconds until it was ready, whether it came from the cache."""

    name: str
    seconds: float
    cached: bool


class BoundGraph(Protocol):
    """A graph made ready to be searched often: what all searches share was checked, or copied to where they run."""

    def search(self, queries: F32Array, beam: Beam, k: int, count: int, allowed: U64Array | None = None) -> Candidates:
        """Beam search for the ``k`` rows nearest to ``queries`` ((nq, dim) float32) by the integer distance of codes.

        Found are at most ``count`` of the best rows: those that may be as near as the k-th. The walk starts at the row
        that a greedy descent through the upper layers arrives at, and at the entry point, so one with an ``ef`` of n
        and no slack meets every row. Where ``allowed`` is given the walk is among these rows, by the links of the
        others too; it finds at least ``min(k, ef, allowed rows)`` of them.
        """
        ...

    def answer(self, queries: F32Array, beam: Beam, k: int, count: int, allowed: U64Array | None = None) -> Answers:
        """What ``search`` finds, ranked by exact distance: all in one call, which reads vectors of ``Originals``."""
        ...

    def scan(self, queries: F32Array, k: int, count: int, allowed: U64Array | None = None) -> Candidates:
        """All allowed rows by the integer distance of their nibbles, or of their codes where the graph has none.

        Found are those that may be as near as the k-th, nearest first, ties by row: at least
        ``max(SCANNED_FACTOR * k, k + SCANNED_BEYOND)``, where there are so many, and at most ``count``. Where ``count``
        are found, there may be more.
        """
        ...

    def answer_scan(self, queries: F32Array, k: int, count: int, allowed: U64Array | None = None) -> Answers:
        """What ``scan`` finds, ranked by exact distance; where it may be more than ``count``, all allowed rows are."""
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

    def quantise(
        self, queries: F32Array, centre: F32Array, step: float, metric: Metric, reach: float = 0.0
    ) -> QueryCodes:
        """Quantise queries for a code table with this ``centre`` ((dim,) float32) and ``step``.

        ``reach`` is the length of the longest row of the table in units of ``step``; needed for a walk by dot only.
        """
        ...

    def sketch(self, codes: Codes, dim: int) -> U8Array:
        """Sketches of the rows of a code table: (n, sketch_bytes(stride)) uint8."""
        ...

    def bind_graph(self, codes: Codes, graph: Graph, originals: Originals) -> BoundGraph:
        """The graph over these codes, ready to be searched; none of the arrays changes while it is."""
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
