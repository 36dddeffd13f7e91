"""The result of a run as text for a terminal and as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from vecdb.bench.engines import REFERENCE
from vecdb.bench.plan import RECALLS
from vecdb.bench.result import EngineResult, RunResult

NONE = "-"
MEGABYTE = 1_000_000

MODE_TITLES = {"single": "one query a call", "batch": "all queries in one call"}


def table(result: RunResult) -> str:
    """The whole report as lines of text."""
    parts = [heading(result), _costs(result), *(_curves(result, mode) for mode in result.plan.modes), _remarks(result)]
    return "\n\n".join(part for part in parts if part)


def heading(result: RunResult) -> str:
    """Two lines: the data, and how it was measured."""
    data, machine, plan = result.dataset, result.machine, result.plan
    dimension = data["intrinsic_dimension"]
    hardness = "" if dimension is None else f", local intrinsic dimension {dimension:.0f}"
    where = "not pinned" if plan.core is None else f"pinned to core {plan.core}"
    return (
        f"{data['name']}: {data['rows']:,} x {data['dim']}, {data['metric']}, "
        f"{data['queries']:,} held-out queries{hardness}\n"
        f"{machine['cpu_model']}, {machine['cores']} cores; every engine on one thread, {where}; "
        f"k={plan.k}, {plan.rounds} rounds, medians; "
        f"load {result.load_before[0]:.1f} before, {result.load_after[0]:.1f} after"
    )


def _costs(result: RunResult) -> str:
    rows = [["", "build s", "rows/s", "memory added MB", "peak MB", "disk MB", "best recall"]]
    for engine in result.engines:
        if engine.error is None:
            seconds = engine.build_seconds
            best = max((point.recall for point in engine.points if point.turns), default=None)
            rows.append(
                [
                    engine.name,
                    number(seconds, "{:,.1f}"),
                    number(None if not seconds else result.dataset["rows"] / seconds, "{:,.0f}"),
                    megabytes(engine.memory_bytes),
                    megabytes(engine.peak_bytes),
                    megabytes(engine.disk_bytes),
                    number(best, "{:.4f}"),
                ]
            )
    return aligned(rows)


def _curves(result: RunResult, mode: str) -> str:
    single = mode == "single"
    heads = [f"QPS at {recall:.2f}" for recall in RECALLS] + [f"ratio {recall:.2f}" for recall in RECALLS]
    rows = [[MODE_TITLES[mode], *heads, *(["p50 us", "p99 us"] if single else [])]]
    for engine in result.engines:
        if engine.error is None:
            cells = [engine.name, *(_qps(result, engine, mode, recall) for recall in RECALLS)]
            for recall in RECALLS:
                ratio = result.ratio(engine, mode, recall)
                cells.append(NONE if ratio is None else f"{ratio.median:.2f}")
            rows.append(cells + (_latencies(engine) if single else []))
    return aligned(rows)


def _qps(result: RunResult, engine: EngineResult, mode: str, recall: float) -> str:
    at = result.at_recall(engine, mode, recall)
    return NONE if at is None else f"{'>=' if at.lower_bound else ''}{at.qps:,.0f}"


def _latencies(engine: EngineResult) -> list[str]:
    """Median and 99th percentile of the first effort that reaches a recall of 0.95, over all rounds."""
    for point in engine.points:
        if point.mode == "single" and point.turns and point.recall >= 0.95:
            middle = sorted(point.turns, key=lambda turn: turn.qps)[len(point.turns) // 2]
            return [number(middle.latency_us_p50, "{:,.0f}"), number(middle.latency_us_p99, "{:,.0f}")]
    return [NONE, NONE]


def _remarks(result: RunResult) -> str:
    lines = []
    if result.engine(REFERENCE) is not None:
        lines.append(
            f"ratio: QPS over {REFERENCE}'s at the same recall, within each round, then the median. "
            "-: the curve does not reach that recall. >=: every effort measured has more recall than that."
        )
    if "single" in result.plan.modes:
        lines.append("p50, p99: latency at the first effort with recall 0.95 or more.")
    return "\n".join([*lines, *doubts(result)])


def doubts(result: RunResult) -> list[str]:
    """Engines that were disturbed, and engines that are missing."""
    disturbed = [
        f"{engine.name}: something else used the core in {engine.disturbed:.0%} of its turns; take the figures again."
        for engine in result.engines
        if engine.disturbed > 0.1
    ]
    missing = [f"{engine.name}: left out: {engine.error}" for engine in result.engines if engine.error is not None]
    return disturbed + missing


def megabytes(size_bytes: int | None) -> str:
    """In millions of bytes."""
    return number(None if size_bytes is None else size_bytes / MEGABYTE, "{:,.0f}")


def number(value: float | None, form: str) -> str:
    """Formatted; a dash for what is not known."""
    return NONE if value is None else form.format(value)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a table: the first column to the left, the others to the right, a line below the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    cells = [
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in rows
    ]
    lines = ["  ".join(row) for row in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def write_json(result: RunResult, path: Path) -> None:
    """Write the JSON document; ``docs/benchmarks.md`` describes it."""
    path.write_text(json.dumps(result.document(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
