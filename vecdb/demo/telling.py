"""The demo's findings in words for a person."""

from __future__ import annotations

from pathlib import Path

from vecdb.demo.report import CrashReport, DemoReport, Measures
from vecdb.demo.screen import Screen
from vecdb.results.stats import CollectionStats

IN_FLIGHT = {
    "all": "one batch was begun and not acknowledged; all of it is there",
    "none": "one batch was begun and not acknowledged; none of it is there",
    "part": "one batch was begun and not acknowledged, and only a PART of it is there",
    "idle": "no batch: the kill came between two writes",
}


def tell_measures(measures: Measures, stats: CollectionStats, screen: Screen) -> None:
    """Quality, speed, and bytes on disk by role."""
    roles = sorted(stats.role_bytes.items(), key=lambda each: -each[1])
    screen.facts(
        [
            ("recall@10", f"{measures.recall_at_10:.3f} against exact search, {measures.queries} sentences as queries"),
            ("one search", f"{measures.latency_ms_p50:.2f} ms at the median, {measures.latency_ms_p99:.2f} ms at p99"),
            ("one thread", f"{measures.qps_single:,.0f} searches/s one by one, {measures.qps_batch:,.0f} in a batch"),
            ("on disk", f"{megabytes(stats.disk_bytes)}, {megabytes(stats.log_bytes)} of it log"),
            *((f"  {role}", megabytes(size)) for role, size in roles),
        ]
    )


def tell_crash(crash: CrashReport, settled_rows: int, screen: Screen) -> None:
    """What was acknowledged and what is there."""
    screen.facts(
        [
            ("killed", f"{crash.killed_after_s:.2f} s after the first acknowledgement"),
            ("acknowledged", f"{crash.acknowledged_row_writes:,} row writes in {crash.acknowledged_batches:,} batches"),
            ("lost", f"{crash.lost_rows:,} of the {crash.compared_rows:,} different rows that they wrote"),
            ("in flight", IN_FLIGHT[crash.in_flight]),
            ("older rows", f"{settled_rows:,} compared, {crash.disturbed_rows:,} changed or missing"),
            ("strays", f"{crash.stray_rows:,} rows that nobody wrote"),
            ("reopened in", f"{crash.reopened_in_s:.2f} s, recovery and first search included"),
        ]
    )


def tell_summary(report: DemoReport, kept: bool, screen: Screen) -> None:
    """The run in a few sentences, and what to type next if the database was ``kept``."""
    screen.heading("In short")
    crash = report.crash
    rest_s = report.total_s - report.compile_s
    took = f"It took {report.total_s:.0f} s: {report.compile_s:.0f} s to compile kernels, {rest_s:.0f} s for the rest."
    if not crash.kept:
        screen.say(
            f"The crash test FAILED: {crash.lost_rows} acknowledged rows lost, {crash.disturbed_rows} older rows "
            f"changed or missing, {crash.stray_rows} strays; in flight: {IN_FLIGHT[crash.in_flight]}. The database in "
            f"{report.path} is left as it was found. Please report this. {took}"
        )
        return
    screen.say(
        f"{report.passages:,} passages of real documentation are searchable by meaning; a search at default settings "
        f"finds {report.measures.recall_at_10:.1%} of the true ten nearest. A writer was killed "
        f"{'in the middle of a write' if crash.in_mid_write else 'between two writes'}, with "
        f"{crash.acknowledged_row_writes:,} row writes acknowledged: all {crash.compared_rows:,} rows that they wrote "
        f"are there as last acknowledged, {crash.lost_rows} lost. {took}"
    )
    for shortfall in report.shortfalls:
        screen.say(f"NOT REACHED: {shortfall}.")
    if not kept:
        return
    path, name = report.path, report.collection
    screen.say(f"The database stays in {path}, collection {name!r}. You may type next:")
    screen.commands(
        [
            f"vecdb search {path} {name} --embed wordllama --text 'sort a list'",
            f"vecdb serve {path}",
            f"python -c \"from vecdb import open; print(open('{path}').collection('{name}'))\"",
        ]
    )


def megabytes(size_bytes: int) -> str:
    """Bytes as decimal megabytes."""
    return f"{size_bytes / 1e6:,.1f} MB"


def short_path(path: Path) -> str:
    """``path`` with the home directory written ``~``."""
    try:
        return f"~/{path.relative_to(Path.home())}"
    except (ValueError, RuntimeError):
        return str(path)
