"""``vecdb check``: every byte of a database, read and verified."""

from __future__ import annotations

import argparse
import json
import time

from vecdb.cli.target import add_offline_arguments, offline_target

EXIT_PROBLEMS = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Read every byte of a database and say what is wrong, by file. Nothing is changed. Nobody else may have the "
        "database open. Exit status 1 if anything is wrong."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    add_offline_arguments(parser)


def run(namespace: argparse.Namespace) -> int:
    """Check, and name what is wrong."""
    path = offline_target(namespace)
    from vecdb.cli.terminal import Terminal
    from vecdb.engine.check import check_database

    terminal = Terminal()
    start = time.perf_counter()
    with terminal.steps("check") as progress:
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
