"""``vecdb compact``: give the space of deleted and replaced points back."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from vecdb.cli.settings import Settings
from vecdb.cli.target import add_connect_arguments, open_target, split_target
from vecdb.errors import InvalidArgument

if TYPE_CHECKING:
    from vecdb.api import Collection
    from vecdb.results.compaction import CompactionReport

TIMEOUT_S = 24 * 3600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.usage = "vecdb compact [PATH | --connect HOST:PORT] [COLLECTION] [--dry-run | --purge] [--json]"
    parser.description = (
        "Merge the segments of one or all collections into as few as there can be, and drop the rows of deleted and "
        "replaced points. A database that is open does this by itself, where it is worth it."
    )
    parser.add_argument(
        "words", nargs="*", metavar="[PATH] [COLLECTION]", help="a directory; one collection instead of all"
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--dry-run", action="store_true", help="only say what it would reclaim")
    kind.add_argument(
        "--purge", action="store_true", help="see to it that nothing deleted is left in any file of the collection"
    )
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="SECONDS", help="give up after this long")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    add_connect_arguments(parser)


def run(namespace: argparse.Namespace) -> int:
    """Compact, and say what came of it."""
    settings = Settings.of(namespace)
    connect = settings.choose("connect", namespace.connect)
    path, words = split_target(namespace.words, connect, settings)
    if len(words) > 1:
        raise InvalidArgument(f"name one collection or none, got {words}", field="collection", limit="1", value=words)
    with open_target(path, connect, namespace, settings, read_only=namespace.dry_run) as database:
        reports = {name: _compact(database.collection(name), namespace) for name in words or database.collections()}
    if namespace.json:
        print(json.dumps({name: asdict(report) for name, report in reports.items()}, ensure_ascii=False, indent=2))
    else:
        _show(reports, "would be" if namespace.dry_run else "were")
    return 0


def _compact(collection: Collection, namespace: argparse.Namespace) -> CompactionReport:
    if namespace.purge:
        return collection.purge(namespace.timeout)
    return collection.compact(namespace.timeout, dry_run=namespace.dry_run)


def _show(reports: dict[str, CompactionReport], were: str) -> None:
    from vecdb.cli.terminal import Terminal, printable
    from vecdb.demo.telling import megabytes

    terminal = Terminal()
    for name, report in reports.items():
        terminal.heading(printable(name))
        before, after = megabytes(report.size_bytes_before), megabytes(report.size_bytes_after)
        terminal.facts(
            [
                ("segments", f"{report.segments_before:,} before, {report.segments_after:,} after"),
                ("segment files", f"{before} before, {after} after"),
                ("dead rows", f"{report.rows_dropped:,} {were} dropped"),
            ]
        )
    if not reports:
        terminal.say("There are no collections.")
