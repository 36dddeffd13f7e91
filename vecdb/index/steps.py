"""Work in steps of a few milliseconds each, between which whoever does it may stop: the result is that of one step."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

from vecdb.bitmap import Bitmap
from vecdb.index.protocol import EnsureRows, VectorIndex
from vecdb.kernels.protocol import Kernels
from vecdb.types import F32Array, TopK

Result = TypeVar("Result")

CALL_ROWS = 1 << 20
"""Rows that one call scans for each of its queries."""


def finished(steps: Generator[None, None, Result], go_on: Callable[[], None] | None = None) -> Result:
    """The result of all steps.

    Parameters
    ----------
    go_on
        Called after each step; whatever it raises ends the work, and what was done is lost.
    """
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            result: Result = ended.value
            return result
        if go_on is not None:
            try:
                go_on()
            except BaseException:
                # Not when the error is forgotten: what it tells of holds what was half done until then.
                steps.close()
                raise


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
