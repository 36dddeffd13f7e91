"""A finished HNSW graph, searchable: traversal on byte codes, then exact float32 distances of the best.

Nothing is rebuilt when it is opened: the arrays are used as they were stored, and may be read-only maps. They are
checked once, so that a kernel never follows a link that leads out of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace

import numpy as np

from vecdb.bitmap import Bitmap
from vecdb.errors import Corruption
from vecdb.index.codes import ScalarCodes, stored_array
from vecdb.index.flat import CodedFlatIndex, ensure_slots
from vecdb.index.hnsw.breadth import DEFAULT_BREADTH, K_WALKED_MIN, Breadth
from vecdb.index.hnsw.curves import RecallCurves
from vecdb.index.protocol import EnsureRows, IndexAnswer
from vecdb.index.steps import finished
from vecdb.kernels.arrays import Beam, Graph, UpperLayers
from vecdb.kernels.memory import aligned_copy
from vecdb.kernels.protocol import Kernels
from vecdb.types import AnyArray, F32Array, I32Array, Metric, TopK

_DEFAULT_RECALL = 0.95
_RERANK_FACTOR = 4
_RERANK_MIN = 32
"""At most so many rows are ranked by their vectors; mostly the walk is precise enough for far fewer."""


class HnswIndex:
    """An HNSW graph over the rows of one code table. Made by ``from_arrays``; safe to share between threads."""

    __slots__ = ("_bound", "_codes", "_kernels", "_vectors", "breadth", "graph", "rows", "scan")

    def __init__(
        self,
        kernels: Kernels,
        graph: Graph,
        codes: ScalarCodes,
        vectors: F32Array,
        breadth: Breadth = DEFAULT_BREADTH,
    ) -> None:
        self._kernels = kernels
        self.breadth = breadth
        self.graph = graph
        self._codes = codes
        self._vectors = vectors
        self.rows = codes.rows
        """Number of slots."""
        self._bound = kernels.bind_graph(codes.codes, graph, codes.originals(vectors))
        self.scan = CodedFlatIndex(kernels, codes, vectors, self._bound)
        """The rows without their links."""

    @classmethod
    def from_arrays(
        cls,
        kernels: Kernels,
        arrays: Mapping[str, AnyArray],
        codes: ScalarCodes,
        vectors: F32Array,
        go_on: Callable[[], None] | None = None,
    ) -> HnswIndex:
        """The graph whose ``HnswBuilder.arrays()`` were stored, over the same codes and vectors ((n, dim) float32).

        Parameters
        ----------
        go_on
            Called every few milliseconds; whatever it raises ends the opening.

        Raises
        ------
        Corruption
            An array is missing, of the wrong shape or type, holds a link that leads nowhere, or is no recall curve.
        """
        return finished(cls.opening(kernels, arrays, codes, vectors), go_on)

    @classmethod
    def opening(
        cls, kernels: Kernels, arrays: Mapping[str, AnyArray], codes: ScalarCodes, vectors: F32Array
    ) -> Generator[None, None, HnswIndex]:
        """As ``from_arrays``, in steps."""
        assert vectors.shape == (codes.rows, codes.dim), (vectors.shape, codes.rows, codes.dim)
        n = codes.rows
        links = stored_array(arrays, "links", np.int32, 2)
        rows = stored_array(arrays, "upper_rows", np.int32, 1)
        upper_links = stored_array(arrays, "upper_links", np.int32, 2)
        starts = stored_array(arrays, "level_starts", np.int64, 1)
        _hold(links.shape[0] == n and links.shape[1] > 0, "links", f"{links.shape} for {n} rows")
        _hold(rows.shape[0] <= n and (rows.shape[0] > 0) == (n > 0), "upper_rows", f"{rows.shape} for {n} rows")
        _hold(upper_links.shape[1] > 0, "upper_links", f"{upper_links.shape}")
        counts = np.diff(starts)
        _hold(
            starts.shape[0] > 0
            and int(starts[0]) == 0
            and int(starts[-1]) == upper_links.shape[0]
            and bool((counts > 0).all())
            and bool((np.diff(counts) <= 0).all())
            and (int(counts[0]) if counts.shape[0] else 0) == rows.shape[0],
            "level_starts",
            f"{starts.tolist()[:20]}",
        )
        _within(links, n, "links")
        if rows.shape[0]:
            _within(rows, n, "upper_rows", least=0)
        for level, count in enumerate(counts.tolist()):
            _within(upper_links[starts[level] : starts[level + 1]], count, "upper_links")
        table, norms = aligned_copy(codes.codes.table[rows]), codes.codes.norms[rows]
        sketches = yield from codes.sketches(kernels)
        nibbles = yield from codes.nibbles(links)
        for derived in (table, norms, sketches, nibbles.table):
            derived.flags.writeable = False
        upper = UpperLayers(rows, table, norms, upper_links, starts)
        breadth = RecallCurves.from_arrays(arrays) or DEFAULT_BREADTH
        return cls(kernels, Graph(links, sketches, nibbles, upper), codes, vectors, breadth)

    @property
    def derived_bytes(self) -> int:
        """Bytes of what was computed when the graph was opened, and is in no file."""
        upper = self.graph.upper
        return int(
            self.graph.sketches.nbytes + self.graph.nibbles.table.nbytes + upper.table.nbytes + upper.norms.nbytes
        )

    @property
    def metric(self) -> Metric:
        """The metric that distances are reported in."""
        return self._codes.metric

    def search(
        self,
        queries: F32Array,
        k: int,
        *,
        beam: Beam | None = None,
        allowed: Bitmap | None = None,
        ensure: EnsureRows | None = None,
    ) -> IndexAnswer:
        """As ``VectorIndex.search``; the ``ef`` of the beam is raised to ``k`` where it is less."""
        if beam is None:
            share = 1.0 if allowed is None else max(1, allowed.count()) / max(1, self.rows)
            beam = self.breadth.beam(k, _DEFAULT_RECALL, share)
        answer = self._search(queries, max(k, K_WALKED_MIN), beam, allowed, ensure)
        if k >= K_WALKED_MIN:
            return answer
        nearest = TopK(answer.topk.slots[:, :k].copy(), answer.topk.distances[:, :k].copy())
        return replace(answer, topk=nearest, fewest=min(k, answer.fewest))

    def _search(
        self, queries: F32Array, k: int, beam: Beam, allowed: Bitmap | None, ensure: EnsureRows | None
    ) -> IndexAnswer:
        """The answer for so many results that the distance of the last is no chance."""
        ef = max(beam.ef, k)
        if ef > self.rows:
            ef = max(1, self.rows)
        count = min(ef, k * _RERANK_FACTOR + _RERANK_MIN)
        if beam.ef != ef:
            beam = Beam(ef, beam.slack)
        words = None if allowed is None else allowed.words
        if ensure is None:
            answer = self._bound.answer(queries, beam, k, count, words)
            found = answer.fewest
            return IndexAnswer(answer.topk, min(k, found), answer.distance_computations, answer.hops, found)
        walked = self._bound.search(queries, beam, k, count, words)
        ensure_slots(walked.slots, ensure)
        topk = self._kernels.rerank(self._vectors, queries, walked.slots, self._codes.metric, k)
        return IndexAnswer(topk, min(k, walked.fewest), walked.distance_computations, walked.hops, walked.fewest)

    def check(self) -> list[str]:
        """Whether every row can be reached on the bottom layer, and links are on all layers as a builder makes them."""
        problems: list[str] = []
        links = self.graph.links
        n = links.shape[0]
        if n == 0:
            return problems
        upper = self.graph.upper
        problems += _told(_misplaced(links), "")
        alone = (links < 0).all(axis=1) & (n > 1)
        lost = ~_reachable(links, int(upper.rows[0]))
        problems += _told({"have no links": alone, "cannot be reached from the entry point": lost}, "")
        if np.unique(upper.rows).shape[0] != upper.rows.shape[0]:
            problems.append("some row is on the upper layers twice")
        # On the layers above only few rows need be reachable: the bottom layer is what answers.
        for level, (first, end) in enumerate(itertools.pairwise(upper.level_starts.tolist()), 1):
            problems += _told(_misplaced(upper.links[first:end]), f" on layer {level}")
        return problems


def _misplaced(links: I32Array) -> dict[str, AnyArray]:
    """Which rows of a layer, (n,) bool, have links that no builder makes, by what is wrong with them."""
    ordered = np.sort(links, axis=1)
    repeated = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    return {
        "link to themselves": (links == np.arange(links.shape[0])[:, None]).any(axis=1),
        "link twice to one row": repeated.any(axis=1),
        "have a link behind the end of their links": ((links[:, 1:] >= 0) & (links[:, :-1] < 0)).any(axis=1),
    }


def _told(found: Mapping[str, AnyArray], where: str) -> list[str]:
    return [
        f"{int(rows.sum())} rows{where} {what}, the first is {int(np.argmax(rows))}"
        for what, rows in found.items()
        if rows.any()
    ]


def _reachable(links: I32Array, entry: int) -> AnyArray:
    """(n,) bool: the rows a walk from ``entry`` meets."""
    met = np.zeros(links.shape[0], np.bool_)
    met[entry] = True
    front = np.array([entry])
    while front.shape[0]:
        ahead = np.unique(links[front])
        ahead = ahead[ahead >= 0]
        front = ahead[~met[ahead]]
        met[front] = True
    return met


def _hold(holds: bool, name: str, found: str) -> None:
    if not holds:
        raise Corruption(f"array {name!r} of a graph does not fit the others", field=name, value=found)


def _within(ids: I32Array, count: int, name: str, least: int = -1) -> None:
    """Every id lies in [least, count)."""
    if ids.size and (int(ids.min()) < least or int(ids.max()) >= count):
        raise Corruption(
            f"array {name!r} of a graph holds a link that leads nowhere",
            field=name,
            limit=f"{least}..{count - 1}",
            value=f"{int(ids.min())}..{int(ids.max())}",
        )
