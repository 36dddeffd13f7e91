"""Exact search in the background: the same answer as of one scan, in calls of a few milliseconds each."""

from __future__ import annotations

from collections.abc import Generator

from vecdb.bitmap import Bitmap
from vecdb.index.protocol import EnsureRows, VectorIndex
from vecdb.kernels.protocol import Kernels
from vecdb.types import F32Array, TopK

CALL_ROWS = 1 << 20
"""Rows that one call scans for each of its queries."""


def scan_in_steps(
    kernels: Kernels,
    index: VectorIndex,
    queries: F32Array,
    k: int,
    allowed: Bitmap | None,
    ensure: EnsureRows | None = None,
) -> Generator[None, None, TopK]:
    """The k nearest allowed rows of each query by an index that looks at every row; yields between calls.

    Parameters
    ----------
    queries
        (nq, dim) float32; a call scans up to ``CALL_ROWS`` rows for all of them, so hand over few at a time.
    """
    members = Bitmap.full(index.rows) if allowed is None else allowed
    best: TopK | None = None
    for start in range(0, max(index.rows, 1), CALL_ROWS):
        some = members if index.rows <= CALL_ROWS else _within(members, start, start + CALL_ROWS)
        answer = index.search(queries, k, allowed=some, ensure=ensure).topk
        if best is None:
            best = answer
        else:
            merged = kernels.merge([best, answer])
            best = TopK(merged.slots, merged.distances)
        yield
    assert best is not None
    return best


def _within(members: Bitmap, start: int, end: int) -> Bitmap:
    """The members from ``start`` up to ``end``, multiples of 64."""
    words = members.words.copy()
    words[: start // 64] = 0
    words[end // 64 :] = 0
    return Bitmap(words, members.size)
