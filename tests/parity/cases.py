"""Every kernel on many shapes, as named arrays: in this process with any kernels, or as a script with those of the CPU.

``python cases.py OUT.npz`` writes what ``CpuKernels`` gives under the current ``VECDB_CPU``. Names that end in ``.f32``
hold float32 distances; everything else must be equal bit for bit on every device.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from vecdb.bitmap import Bitmap
from vecdb.index.codes import ScalarCodes
from vecdb.index.hnsw import HnswBuilder, HnswIndex, HnswParams
from vecdb.index.steps import finished
from vecdb.kernels.arrays import Beam, Layer, Prune, unlinked
from vecdb.kernels.protocol import Kernels
from vecdb.types import AnyArray, Metric

SHAPES = ((0, 7), (1, 1), (2, 3), (5, 16), (63, 17), (64, 64), (65, 65), (130, 100), (90, 256), (150, 384), (12, 1030))
METRICS = (Metric.COSINE, Metric.DOT, Metric.L2)
QUERIES = 6


def vectors_of(n: int, dim: int, metric: Metric, seed: int) -> AnyArray:
    """Clustered rows, some of them twice, with a few large components."""
    rng = np.random.default_rng([seed, n, dim])
    centres = rng.normal(size=(4, dim)) * 2
    found = centres[rng.integers(0, 4, n)] + rng.normal(size=(n, dim))
    found *= np.where(rng.random((n, 1)) < 0.1, 7.0, 1.0)
    if n > 8:
        found[n // 2] = found[1]
        found[n - 1] = found[1]
    if metric is Metric.COSINE and n:
        found /= np.linalg.norm(found, axis=1, keepdims=True)
    return np.ascontiguousarray(found, np.float32)


def signs_of(n: int, dim: int, seed: int) -> AnyArray:
    """Rows of signs: many components lie halfway between two levels of a code, where rounding shows."""
    return np.where(np.random.default_rng(seed).random((n, dim)) < 0.5, -1, 1).astype(np.float32)


def subsets(n: int) -> Iterator[tuple[str, Bitmap | None]]:
    """All rows, none, and a third of them."""
    yield "all", None
    yield "none", Bitmap.empty(n)
    yield "third", Bitmap.from_bools(np.arange(n) % 3 == 0)


def run(kernels: Kernels) -> dict[str, AnyArray]:
    """The results of every verb on every shape."""
    out: dict[str, AnyArray] = {}
    for n, dim in SHAPES:
        for metric in METRICS:
            vectors, queries = vectors_of(n, dim, metric, 1), vectors_of(QUERIES, dim, metric, 2)
            out |= {f"{metric.value}/{n}x{dim}/{name}": array for name, array in one(kernels, vectors, queries, metric)}
    signs = signs_of(66, 1024, 3)
    return out | {f"l2/signs/{name}": array for name, array in one(kernels, signs, signs[:30], Metric.L2)}


def one(kernels: Kernels, vectors: AnyArray, queries: AnyArray, metric: Metric) -> Iterator[tuple[str, AnyArray]]:
    """The results of every verb on some rows."""
    n, dim = vectors.shape
    codes = ScalarCodes.encode(kernels, vectors, metric)
    asked = codes.quantise(kernels, queries, codes.reach())
    yield "table", codes.codes.table
    yield "norms", codes.codes.norms
    yield "values", asked.values
    yield "ratios", asked.ratios
    yield "offsets", asked.offsets
    sketches = kernels.sketch(codes.codes, dim)
    yield "sketches", sketches
    builder = HnswBuilder(kernels, codes, HnswParams(m=3, ef_construction=12, seed=n))
    builder.run()
    arrays = builder.arrays()
    yield from arrays.items()
    index = HnswIndex.from_arrays(kernels, arrays, codes, vectors)
    originals = codes.originals(vectors)
    bound = kernels.bind_graph(codes.codes, index.graph, originals)
    plain = kernels.bind_graph(codes.codes, unlinked(codes.codes.table.shape[1]), originals)
    for ef, slack, k in ((40, 0, 3), (40, 72_000, 5), (8, 65_600, 1)):
        answer = bound.answer(queries, Beam(ef, slack), k, min(ef, 10))
        yield f"answer/{ef}/{slack}/rerank", answer.topk.slots
        yield f"answer/{ef}/{slack}.f32", answer.topk.distances
        yield f"answer/{ef}/{slack}/cost", np.array([answer.fewest, answer.distance_computations, answer.hops])
    everything = max(n, 1)
    yield "graph/everything", bound.search(queries, Beam(everything), everything, everything).slots
    candidates = np.random.default_rng(3).permuted(np.tile(np.arange(-3, n), (queries.shape[0], 1)), axis=1)[:, :40]
    candidates = np.maximum(candidates, -1).astype(np.int32)
    for name, allowed in subsets(n):
        words = None if allowed is None else allowed.words
        for k in (1, 5, n + 3):
            exact = kernels.scan_topk(vectors, queries, metric, k, words)
            yield f"scan/{name}/{k}", exact.slots
            yield f"scan/{name}/{k}.f32", exact.distances
            for kind, scanned in (("codes", plain), ("nibbles", bound)):
                for count in (k, 2 * k + 1):
                    found = scanned.scan(queries, k, count, words)
                    yield f"{kind}/{name}/{k}/{count}", found.slots
                    yield f"{kind}/{name}/{k}/{count}/cost", np.array([found.fewest, found.distance_computations])
                    ranked = scanned.answer_scan(queries, k, count, words)
                    yield f"{kind}/{name}/{k}/{count}/ranked", ranked.topk.slots
                    yield f"{kind}/{name}/{k}/{count}.f32", ranked.topk.distances
        for ef, slack in ((1, 0), (8, 0), (40, 0), (8, 65_600), (40, 72_000), (500, 80_000)):
            walked = bound.search(queries, Beam(ef, slack), 3, min(ef, 10), words)
            yield f"graph/{name}/{ef}/{slack}", walked.slots
            yield (
                f"graph/{name}/{ef}/{slack}/cost",
                np.array([walked.fewest, walked.distance_computations, walked.hops]),
            )
        walked = bound.search(queries, Beam(90, 72_000), max(1, min(n, 70)), max(1, min(n, 80)), words)
        yield f"graph/{name}/many", walked.slots
        yield f"graph/{name}/many/cost", np.array([walked.fewest, walked.distance_computations, walked.hops])
        answer = index.search(queries, 3, beam=Beam(16), allowed=allowed)
        yield f"index/{name}.f32", answer.topk.distances
    for k in (1, 5, n + 3):
        # Every third row is in each of two parts: equal distances, and more hits than rows where k exceeds them.
        parts = [None, *(Bitmap.from_bools(np.arange(n) % 3 == first).words for first in (0, 1))]
        merged = kernels.merge([kernels.scan_topk(vectors, queries, metric, k, words) for words in parts])
        yield f"merge/{k}/sources", merged.sources
        yield f"merge/{k}", merged.slots
        yield f"merge/{k}.f32", merged.distances
    best = kernels.rerank(vectors, queries, candidates, metric, 4)
    yield "rerank", best.slots
    yield "rerank.f32", best.distances
    yield from grown(kernels, codes)


def grown(kernels: Kernels, codes: ScalarCodes) -> Iterator[tuple[str, AnyArray]]:
    """The verbs that write a layer, on links that leave rows unreachable."""
    n = codes.rows
    if n < 3:
        return
    space = finished(codes.build_space(kernels))
    layer = Layer(space, np.full((n, 6), -1, np.int32), np.zeros(n, np.int32))
    targets = np.arange(0, n, 2, dtype=np.int32)
    rng = np.random.default_rng(n)
    lists = [rng.permutation(n)[: rng.integers(0, 12)] for _ in targets]
    lists = [one[one != target] for one, target in zip(lists, targets, strict=True)]
    starts = np.cumsum([0] + [len(one) for one in lists]).astype(np.int64)
    sources = np.concatenate(lists).astype(np.int32)
    kernels.accept_links(layer, targets, starts, sources, 6, Prune(4, 70))
    yield "accepted", layer.links.copy()
    kernels.accept_links(layer, targets, np.zeros_like(starts), sources[:0], 4, Prune(4, 64))
    yield "trimmed", layer.links.copy()
    walk = np.full((3, n), -1, np.int32)
    walk[0, 0] = walk[1, 0] = walk[2] = 0
    state = np.array([0, 1, 0, 0, 0], np.int64)
    while not kernels.connect(layer, 4, walk, state, 7):
        yield f"walk/{int(state.sum())}", walk.copy()
    yield "walk", walk
    yield "connected", layer.links
    yield "degrees", layer.degrees


if __name__ == "__main__":
    from vecdb.kernels.cpu import CpuKernels

    np.savez(sys.argv[1], **run(CpuKernels()))
