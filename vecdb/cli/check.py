"""``vecdb check``: every byte of a database, read and verified."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from vecdb.cli.settings import Settings, add_config_argument
from vecdb.cli.target import existing
from vecdb.errors import InvalidArgument

EXIT_PROBLEMS = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Read every byte of a database and say what is wrong, by file. Nothing is changed. Nobody else may have the "
        "database open. Exit status 1 if anything is wrong."
    )
    parser.add_argument("path", nargs="?", type=Path, metavar="PATH", help="directory of the database")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    add_config_argument(parser)


def run(namespace: argparse.Namespace) -> int:
    """Check, and name what is wrong."""
    path = Settings.of(namespace).choose("path", namespace.path)
    if path is None:
        raise InvalidArgument("name the directory of a database", field="path")
    from vecdb.cli.terminal import ProgressBar, Terminal
    from vecdb.engine.check import check_database
    from vecdb.engine.database import COLLECTIONS

    # A database that lost its marker is damaged and worth a check; anything else is left alone.
    if not (path / COLLECTIONS).is_dir():
        existing(path)

    terminal = Terminal()
    start = time.perf_counter()
    with ProgressBar("check", None, "steps", terminal.width) as bar:

        def progress(what: str) -> None:
            bar.note(what)
            bar.advance(1)

        report = check_database(path, progress=progress)
    seconds = time.perf_counter() - start
    if namespace.json:
        print(json.dumps({**report.as_object(), "seconds": round(seconds, 3)}, ensure_ascii=False, indent=2))
        return 0 if report.ok else EXIT_PROBLEMS
    for problem in report.problems:
        print(f"{problem.file}: {problem.message}")
    terminal.say(
        f"collections: {report.collections}, points: {report.points:,}, files: {report.files}; "
        f"{report.size_bytes / 1e6:,.1f} MB read in {seconds:.1f} s: "
        + ("everything is as it was written." if report.ok else f"{len(report.problems)} PROBLEMS.")
    )
    return 0 if report.ok else EXIT_PROBLEMS
