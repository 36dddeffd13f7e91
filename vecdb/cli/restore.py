"""``vecdb restore``: a database made of backup files, in a new directory."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Make a database of a backup, in a missing or empty directory, once every byte is verified. For an incremental "
        "backup name the earlier ones that it needs before it."
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="the backup, after those that it needs")
    parser.add_argument("path", type=Path, metavar="DIR", help="where the database is to be")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(namespace: argparse.Namespace) -> int:
    """Restore, and say what."""
    from vecdb.cli.terminal import ProgressBar, Terminal, printable
    from vecdb.engine.restore import restore

    terminal = Terminal()
    with ProgressBar("restore", None, "bytes", terminal.width) as bar:
        report = restore(namespace.files, namespace.path, progress=bar.advance)
    if namespace.json:
        print(json.dumps(asdict(report), ensure_ascii=False, indent=2))
        return 0
    points = sum(each.points for each in report.collections)
    terminal.say(
        f"{report.path} holds {len(report.collections):,} collections, {points:,} points; {report.files:,} files with "
        f"{report.size_bytes / 1e6:,.1f} MB were written and verified."
    )
    terminal.facts(
        (printable(each.name), f"{each.points:,} points, as of write {each.seq:,}") for each in report.collections
    )
    return 0
