"""The result of a run of databases as text for a terminal: one row each, the best of every column marked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vecdb.bench.curve import median
from vecdb.bench.databases import ASKED, RECALL, UNFILTERED, DatabaseResult, filtered
from vecdb.bench.engines.database import BATCH_ROWS
from vecdb.bench.report import MEGABYTE, NONE, aligned, doubts, heading, number
from vecdb.bench.result import Point, RunResult

BEST = "*"


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes
    ----------
    head
        Its title.
    value
        The figure of a row; ``None`` where there is none.
    form
        How the figure is written.
    beside
        What stands beside the figure.
    better
        Of two figures, the better one; ``None``: none is better.
    """

    head: str
    value: Callable[[DatabaseResult], float | None]
    form: str
    beside: Callable[[DatabaseResult], str] | None = None
    better: Callable[[Sequence[float]], float] | None = None

    def cells(self, rows: Sequence[DatabaseResult]) -> list[str]:
        """The title and the cell of every row."""
        values = [self.value(row) for row in rows]
        known = [value for value in values if value is not None]
        best = self.better(known) if self.better is not None and known else None
        cells = [self.head]
        for row, value in zip(rows, values, strict=True):
            if value is None:
                cells.append(NONE)
            else:
                mark = BEST if value == best else ""
                cells.append(f"{mark}{self.form.format(value)}{self.beside(row) if self.beside is not None else ''}")
        return cells


def database_table(result: RunResult) -> str:
    """The whole report as lines of text."""
    rows = [each for each in result.engines if isinstance(each, DatabaseResult) and each.error is None]
    parts = [heading(result)]
    if rows:
        parts += [_table(rows, _costs(result)), _table(rows, _searches(result))]
    return "\n\n".join([*parts, "\n".join([*_remarks(result), *doubts(result)])])


def _table(rows: Sequence[DatabaseResult], columns: Sequence[Column]) -> str:
    names = ["", *(row.name for row in rows)]
    return aligned(list(zip(names, *(column.cells(rows) for column in columns), strict=True)))


def _costs(result: RunResult) -> list[Column]:
    count: int = result.dataset["rows"]

    def rate(seconds: float | None) -> float | None:
        return count / seconds if seconds else None

    def megabytes(name: str) -> Callable[[DatabaseResult], float | None]:
        def value(row: DatabaseResult) -> float | None:
            size_bytes: int | None = getattr(row, name)
            return None if size_bytes is None else size_bytes / MEGABYTE

        return value

    def cold_start(row: DatabaseResult) -> float | None:
        return median(row.cold_seconds) if row.cold_seconds else None

    return [
        Column(
            "insert rows/s", lambda row: rate(row.insert_seconds), "{:,.0f}",
            lambda row: " durable" if row.durable else "        ", better=max,
        ),
        Column("to indexed rows/s", lambda row: rate(row.build_seconds), "{:,.0f}", better=max),
        Column("cold start s", cold_start, "{:.2f}", better=min),
        Column("memory added MB", megabytes("memory_bytes"), "{:,.0f}", better=min),
        Column("libraries MB", megabytes("process_bytes"), "{:,.0f}", better=min),
        Column("peak loading MB", megabytes("peak_bytes"), "{:,.0f}", better=min),
        Column("disk MB", megabytes("disk_bytes"), "{:,.0f}", better=min),
    ]  # fmt: skip


def _searches(result: RunResult) -> list[Column]:
    def at_recall(row: DatabaseResult) -> float | None:
        at = result.at_recall(row, UNFILTERED, RECALL)
        return None if at is None else at.qps

    def bound(row: DatabaseResult) -> str:
        at = result.at_recall(row, UNFILTERED, RECALL)
        return " or more" if at is not None and at.lower_bound else ""

    return [
        Column(f"QPS at {RECALL:.2f}", at_recall, "{:,.0f}", bound, better=max),
        _answers("asked", ASKED),
        *(_answers(f"{below / 10:g} % match", filtered(below), better=max) for below in result.plan.filters),
    ]


def _answers(head: str, mode: str, better: Callable[[Sequence[float]], float] | None = None) -> Column:
    def qps(row: DatabaseResult) -> float | None:
        point = row.measured(mode)
        return None if point is None else point.qps

    def quality(row: DatabaseResult) -> str:
        point = row.measured(mode)
        return "" if point is None else f" ({point.recall:.3f}{_faults(point)})"

    return Column(head, qps, "{:,.0f}", quality, better)


def _faults(point: Point) -> str:
    """Short answers and errors, all rounds together."""
    asked = sum(turn.asked or 0 for turn in point.turns)
    found = [
        (sum(turn.short or 0 for turn in point.turns), "short"),
        (sum(turn.errors or 0 for turn in point.turns), "errors"),
    ]
    return "".join(f", {count / asked:.1%} {what}" for count, what in found if count)


def _remarks(result: RunResult) -> list[str]:
    asked = [turn.asked or 0 for each in result.engines for point in each.points for turn in point.turns]
    fewest = f" At least {min(asked):,} queries a turn." if asked else ""
    bare = number(result.process_seconds, "{:.2f}")
    return [
        f"insert: batches of {BATCH_ROWS:,} rows with an integer and a text; durable: synced when the insert returns.",
        "to indexed: everything from the first row to the last index.",
        f"cold start: a new process to its first answer, files in the page cache; {bare} s are the benchmark's own.",
        f"QPS: one query a call; in brackets recall@{result.plan.k}, short answers and calls that failed.{fewest}",
        f"asked: a recall of {RECALL} and no effort. Filters: the least effort with {RECALL} unfiltered, or asked for.",
        f"{BEST}: the best of its column.",
    ]
