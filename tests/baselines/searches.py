"""Searches whose cost is on record: what they find and how much they look at, without a clock.

``python tests/baselines/searches.py`` writes ``searches.json`` anew. Do so when a change was meant to move the figures,
and say in the commit by how much.
"""

import json
from pathlib import Path

import numpy as np

from vecdb.bitmap import Bitmap
from vecdb.index.codes import ScalarCodes
from vecdb.index.hnsw import HnswBuilder, HnswIndex, HnswParams, beam_for_recall
from vecdb.kernels.arrays import Beam
from vecdb.kernels.cpu import CpuKernels
from vecdb.types import Metric

RECORD = Path(__file__).with_suffix(".json")
ROWS, QUERIES, K = 6_000, 200, 10
SETS = {
    "cosine-96": (Metric.COSINE, 96),
    "cosine-300": (Metric.COSINE, 300),
    "l2-300": (Metric.L2, 300),
    "dot-64": (Metric.DOT, 64),
}


def vectors_of(metric, dim):
    """Rows and queries with a falling spectrum, in uneven clusters: hard enough that breadth matters."""
    rng = np.random.default_rng([dim, len(metric.value)])
    spectrum = np.arange(1, dim + 1) ** -0.4
    centres = rng.normal(size=(40, dim)) * spectrum
    of = np.minimum(rng.geometric(0.06, ROWS + QUERIES) - 1, 39)
    found = centres[of] * 0.8 + rng.normal(size=(ROWS + QUERIES, dim)) * spectrum
    if metric is Metric.COSINE:
        found /= np.linalg.norm(found, axis=1, keepdims=True)
    found = np.ascontiguousarray(found, np.float32)
    return found[:ROWS], found[ROWS:]


def measured():
    """By data set and way of asking: recall, and distance computations and hops a query."""
    kernels = CpuKernels()
    out = {}
    for name, (metric, dim) in SETS.items():
        rows, queries = vectors_of(metric, dim)
        codes = ScalarCodes.encode(kernels, rows, metric)
        builder = HnswBuilder(kernels, codes, HnswParams())
        builder.run()
        index = HnswIndex.from_arrays(kernels, builder.arrays(), codes, rows)
        half = Bitmap.from_bools(np.arange(ROWS) % 2 == 0)
        ways = {f"recall {recall}": (beam_for_recall(K, recall), None) for recall in (0.9, 0.95, 0.99)}
        ways |= {"ef 64": (Beam(64), None), "half allowed, recall 0.95": (beam_for_recall(K, 0.95, 0.5), half)}
        for way, (beam, allowed) in ways.items():
            right = kernels.scan_topk(rows, queries, metric, K, None if allowed is None else allowed.words).slots
            answer = index.search(queries, K, beam=beam, allowed=allowed)
            hit = [len(set(a) & set(b)) for a, b in zip(answer.topk.slots.tolist(), right.tolist(), strict=True)]
            out[f"{name}, {way}"] = {
                "recall": round(float(np.mean(hit)) / K, 4),
                "distances": round(answer.distance_computations / QUERIES, 1),
                "hops": round(answer.hops / QUERIES, 2),
            }
    return out


if __name__ == "__main__":
    RECORD.write_text(json.dumps(measured(), indent=1) + "\n", encoding="utf-8")
