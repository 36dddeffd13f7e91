"""``vecdb demo``: the demo on a terminal."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

EXIT_NOT_SHOWN = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Index the documentation that this machine's Python packages bring along, ask questions in plain words, "
        "measure recall and speed, then kill a writing process with -9 and count what was lost. Needs no network once "
        "it is installed."
    )
    parser.add_argument(
        "--path", type=Path, default=Path("vecdb-demo"), help="directory of the database (default: vecdb-demo)"
    )
    parser.add_argument("--rows", type=int, metavar="N", help="passages to read (default: 24000)")
    parser.add_argument(
        "--keep", action=argparse.BooleanOptionalAction, default=True, help="leave the database there (default: yes)"
    )
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object instead")


def run(namespace: argparse.Namespace) -> int:
    """Run the demo; 1 if a promise was broken, recall too low, or too little text found."""
    from vecdb.cli.terminal import SilentScreen, Terminal
    from vecdb.demo.run import ROWS_DEFAULT, DemoOptions
    from vecdb.demo.run import run as run_demo

    options = DemoOptions(namespace.path, ROWS_DEFAULT if namespace.rows is None else namespace.rows, namespace.keep)
    report = run_demo(options, SilentScreen() if namespace.json else Terminal())
    if namespace.json:
        print(json.dumps(report.as_json(), indent=2))
    return 0 if report.ok else EXIT_NOT_SHOWN
