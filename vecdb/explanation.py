"""An explanation: how one search was planned, what each part of the collection cost it, and where its time went.

It tells of one search that was run for it, with its counts and clocks. ``str`` makes a table of it that fits a terminal
of 100 columns.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

MEMTABLE = "memtable"
TEXT_WIDTH = 80
"""Columns of what is not the table."""
SHOWN_S_MIN = 5e-6
"""A stage that was shorter is not named in the table, where it would be 0.00 ms."""


@dataclass(frozen=True, slots=True)
class PartExplanation:
    """One segment or memtable in one search.

    Attributes
    ----------
    segment_id
        Number of the segment; ``None`` for a memtable.
    rows
        Rows with a vector in the field, deleted ones included. Where none is allowed all rows, for nothing more of it
        is read.
    allowed_rows
        Those of them that are live and match the filter.
    selectivity_estimate, selectivity
        Share of the rows that is allowed: as it was planned for, and as it is. The allowed rows are counted before
        planning, so that the two are the same wherever a plan does not say that it estimated.
    strategy
        What was planned: ``"exact"``, ``"scan"``, ``"graph"`` or ``"nothing"``.
    ef
        Size of the candidate list of a graph search; 0 for the other strategies.
    recall_estimate
        Mean recall expected within this part.
    distance_computations
        Rows compared with the query, by code or by float32 vector, those reranked not counted again.
    hops
        Graph nodes expanded; 0 where no graph was walked.
    reranked
        Rows found by code whose float32 distances were computed; 0 where no codes were used.
    fell_back
        Whether the graph found fewer rows than there are, so that the codes of all allowed rows were scanned as well.
    filter_s, open_s, search_s
        Seconds of evaluating the filter, of opening files and verifying codes or graph, and of the search itself.
    """

    segment_id: int | None
    rows: int
    allowed_rows: int
    selectivity_estimate: float
    selectivity: float
    strategy: str
    ef: int = 0
    recall_estimate: float = 1.0
    distance_computations: int = 0
    hops: int = 0
    reranked: int = 0
    fell_back: bool = False
    filter_s: float = 0.0
    open_s: float = 0.0
    search_s: float = 0.0

    @property
    def name(self) -> str:
        """``"segment 7"``, or ``"memtable"``."""
        return MEMTABLE if self.segment_id is None else f"segment {self.segment_id}"

    @property
    def total_s(self) -> float:
        """Seconds that the part took in all."""
        return self.filter_s + self.open_s + self.search_s


@dataclass(frozen=True, slots=True)
class Explanation:
    """What ``explain`` found out about one search. ``str()`` of it is a table.

    Attributes
    ----------
    k, recall, ef
        What was asked for; ``recall`` is ``None`` where ``ef`` was given in its place, and ``ef`` where it was not.
    parts
        Segments, then memtables; those that hold no rows at all are left out.
    strategy, recall_estimate, complete, unindexed_rows
        As of the ``Hits`` of the search.
    hits_found
        Number of hits.
    plan_s, merge_s, fetch_s
        Seconds of planning (filters and files not counted), of merging the parts' rankings, and of reading ids and
        payloads. ``filter_s``, ``open_s`` and ``search_s`` are the sums over the parts. Waiting for
        ``read_after_seq``, and the network, are in none of them.
    advice
        Short sentences on what would make such a search better or cheaper.
    """

    k: int
    recall: float | None
    ef: int | None
    parts: Sequence[PartExplanation]
    strategy: str
    recall_estimate: float
    hits_found: int
    complete: bool
    unindexed_rows: int
    plan_s: float = 0.0
    merge_s: float = 0.0
    fetch_s: float = 0.0
    advice: Sequence[str] = ()

    @property
    def rows(self) -> int:
        """Rows of all parts."""
        return sum(part.rows for part in self.parts)

    @property
    def allowed_rows(self) -> int:
        """Allowed rows of all parts."""
        return sum(part.allowed_rows for part in self.parts)

    @property
    def selectivity(self) -> float:
        """Share of the rows of all parts that is allowed; 1.0 where there are none."""
        return share(self.allowed_rows, self.rows)

    @property
    def distance_computations(self) -> int:
        """Rows of all parts that were compared with the query."""
        return sum(part.distance_computations for part in self.parts)

    @property
    def hops(self) -> int:
        """Graph nodes expanded in all parts."""
        return sum(part.hops for part in self.parts)

    @property
    def reranked(self) -> int:
        """Rows of all parts that were found by code and ranked again."""
        return sum(part.reranked for part in self.parts)

    @property
    def filter_s(self) -> float:
        """Seconds of evaluating the filter."""
        return sum(part.filter_s for part in self.parts)

    @property
    def open_s(self) -> float:
        """Seconds of opening files and verifying codes and graphs: next to nothing once they are open."""
        return sum(part.open_s for part in self.parts)

    @property
    def search_s(self) -> float:
        """Seconds of searching the parts."""
        return sum(part.search_s for part in self.parts)

    @property
    def total_s(self) -> float:
        """Seconds of the whole search."""
        return self.plan_s + self.filter_s + self.open_s + self.search_s + self.merge_s + self.fetch_s

    def __str__(self) -> str:
        asked = f"recall {self.recall:g}" if self.ef is None else f"ef {self.ef}"
        hits = f"{self.hits_found:,} hit{'' if self.hits_found == 1 else 's'} by {self.strategy}"
        expected = "" if self.recall_estimate >= 1.0 else f", recall about {self.recall_estimate:.3g}"
        told = _wrapped(f"k = {self.k:,}, {asked}: {hits}{expected}, {'complete' if self.complete else 'INCOMPLETE'}")
        told += ["", *_table(self)] if self.parts else []
        stages = [
            ("plan", self.plan_s), ("filter", self.filter_s), ("open files", self.open_s), ("search", self.search_s),
            ("merge", self.merge_s), ("ids and payloads", self.fetch_s),
        ]  # fmt: skip
        shown = ", ".join(f"{name} {milliseconds(seconds)}" for name, seconds in stages if seconds >= SHOWN_S_MIN)
        told += ["", *_wrapped(f"{milliseconds(self.total_s)} ms" + (f": {shown}" if shown else ""))]
        told += ["", *(line for each in self.advice for line in _wrapped(f"- {each}"))] if self.advice else []
        return "\n".join(told)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, TEXT_WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def share(count: int, of: int) -> float:
    """``count`` as a share of ``of``; 1.0 where there is nothing to have a share of."""
    return count / of if of else 1.0


def percent(part: float) -> str:
    """A share for people."""
    if 0 < part < 1e-4:
        return "<0.01 %"
    return f"{100 * part:.3g} %" if part >= 0.1 else f"{100 * part:.2g} %"


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds for people."""
    value = 1e3 * seconds
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the table.

    Attributes
    ----------
    cell
        What it says of a part.
    total
        What it says of all parts.
    """

    title: str
    cell: Callable[[PartExplanation], str]
    total: str = ""

    def is_telling(self, parts: Sequence[PartExplanation]) -> bool:
        """Whether any part has something to say here."""
        return any(self.cell(part) for part in parts)


def _table(told: Explanation) -> Iterator[str]:
    """A line for the titles, one a part, and one for all of them; columns in which nothing is told are left out."""
    parts = told.parts
    estimated = any(_percent(part.selectivity_estimate) != _percent(part.selectivity) for part in parts)
    columns = [
        _Column("segment", lambda part: MEMTABLE if part.segment_id is None else str(part.segment_id), "all"),
        _Column("rows", lambda part: _count(part.rows), _count(told.rows)),
        _Column("allowed", lambda part: _count(part.allowed_rows), _count(told.allowed_rows)),
        _Column("share", lambda part: _percent(part.selectivity), _percent(told.selectivity)),
        _Column("est.", lambda part: _percent(part.selectivity_estimate) if estimated else ""),
        _Column("strategy", lambda part: part.strategy + "+scan" * part.fell_back),
        _Column("ef", lambda part: _some(part.ef)),
        _Column(
            "recall",
            lambda part: f"{part.recall_estimate:.3g}" if part.allowed_rows else "",
            f"{told.recall_estimate:.3g}",
        ),
        _Column("compared", lambda part: _some(part.distance_computations), _count(told.distance_computations)),
        _Column("hops", lambda part: _some(part.hops), _count(told.hops)),
        _Column("rerank", lambda part: _some(part.reranked), _count(told.reranked)),
        _Column("ms", lambda part: milliseconds(part.total_s), milliseconds(sum(part.total_s for part in parts))),
    ]
    columns = [column for column in columns if column.is_telling(parts)]
    lines = [[column.title for column in columns]]
    lines += [[column.cell(part) for column in columns] for part in parts]
    lines += [[column.total for column in columns]] if len(parts) > 1 else []
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        # What is read as a word begins at the left, as words do.
        for at, column in enumerate(columns):
            if column.title in ("segment", "strategy"):
                cells[at] = line[at].ljust(widths[at])
        yield "  ".join(cells).rstrip()


def _percent(part: float) -> str:
    return percent(part).replace(" ", "")


def _count(number: int) -> str:
    """A number of at most seven characters below ten billions."""
    return f"{number:,}" if number < 1_000_000 else f"{number / 1e6:.4g}M"


def _some(number: int) -> str:
    return _count(number) if number else ""
