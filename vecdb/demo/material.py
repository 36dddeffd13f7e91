"""The text a run of the demo works on: read, embedded, and told apart by what it is used for."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from vecdb.demo.corpus import Passage, first_sentence, passages
from vecdb.demo.embedder import Embedder
from vecdb.demo.report import Stopwatch
from vecdb.demo.row import Row
from vecdb.demo.screen import Screen
from vecdb.types import F32Array, Payload

QUERIES_MAX = 300
HELD_BACK_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Material:
    """Three disjoint parts of the text.

    Attributes
    ----------
    rows
        What is indexed.
    held_back
        What the writer inserts that is killed.
    queries
        (nq, dim) float32: first sentences of passages that are in neither.
    """

    rows: list[Row]
    held_back: list[Row]
    queries: F32Array

    @property
    def vectors(self) -> F32Array:
        """(n, dim) float32: the vectors of ``rows``."""
        return np.stack([row.vector for row in self.rows])


def gather(rows_max: int, embedder: Embedder, screen: Screen, stopwatch: Stopwatch) -> Material:
    """Read at most ``rows_max`` passages of this machine and embed them."""
    screen.heading("Real text on this machine")
    found = _read(rows_max, screen, stopwatch)
    # Queries are spread over everything, so that every package is asked about.
    step = max(len(found) // min(QUERIES_MAX, len(found) // 10), 1)
    asked = found[step - 1 :: step]
    kept = [each for position, each in enumerate(found) if position % step != step - 1]
    with stopwatch.measuring("embed"), screen.bar("embed", len(found), "passages") as bar:
        vectors = embedder.embed([each.text for each in kept], bar.advance)
        queries = embedder.embed([first_sentence(each.text) for each in asked], bar.advance)
    rows = [Row(each.id, payload_of(each), vector) for each, vector in zip(kept, vectors, strict=True)]
    held_back = min(HELD_BACK_MAX, len(rows) // 10)
    screen.say(
        f"Turned into {embedder.dim}-dimensional vectors by wordllama, offline, in {stopwatch.seconds['embed']:.1f} s. "
        f"{len(rows) - held_back:,} are indexed now, {held_back:,} are kept for the crash test below, {len(asked)} "
        f"only serve as queries."
    )
    return Material(rows[:-held_back], rows[-held_back:], queries)


def payload_of(passage: Passage) -> Payload:
    """What is stored beside the vector: everything but the id."""
    payload = asdict(passage)
    del payload["id"]
    return payload


def _read(rows_max: int, screen: Screen, stopwatch: Stopwatch) -> list[Passage]:
    before = 0
    with stopwatch.measuring("read text"), screen.bar("read", rows_max, "passages") as bar:

        def progress(count: int) -> None:
            nonlocal before
            bar.advance(count - before)
            before = count

        found = passages(rows_max, progress)
    packages = len({each.package for each in found})
    screen.say(
        f"{len(found):,} passages of documentation from {packages} packages and modules, read in "
        f"{stopwatch.seconds['read text']:.1f} s from the source files of Python's standard library and of what is "
        f"installed; nothing was run."
    )
    return found
