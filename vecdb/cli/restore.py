"""``vecdb restore``: a database made of backup files, in a new directory."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vecdb.results.restore import RestoredCollection


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Make a database of a backup, in a missing or empty directory, once every byte is verified. For an incremental "
        "backup name the earlier ones that it needs before it."
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="the backup, after those that it needs")
    parser.add_argument("path", type=Path, metavar="DIR", help="where the database is to be")
    parser.add_argument(
        "--log-archive",
        metavar="DIR",
        type=Path,
        help="restore what these archived log files hold beyond the backup too",
    )
    parser.add_argument("--until-seq", metavar="N", type=int, help="up to this write of one collection")
    parser.add_argument(
        "--collection", metavar="NAME", help="with --until-seq: which; the others stay as in the backup"
    )
    parser.add_argument(
        "--until-time", metavar="TIME", type=_time, help="up to this moment, as 2026-01-31T12:00:00+01:00 or with Z"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(namespace: argparse.Namespace) -> int:
    """Restore, and say what."""
    from vecdb.cli.terminal import ProgressBar, Terminal, printable
    from vecdb.engine.restore import restore

    terminal = Terminal()
    with ProgressBar("restore", None, "bytes", terminal.width) as bar:
        report = restore(
            namespace.files,
            namespace.path,
            log_archive=namespace.log_archive,
            until_seq=namespace.until_seq,
            collection=namespace.collection,
            until_time=namespace.until_time,
            progress=bar.advance,
        )
    if namespace.json:
        print(json.dumps(asdict(report), ensure_ascii=False, indent=2))
        return 0
    points = sum(each.points for each in report.collections)
    terminal.say(
        f"{report.path} holds {len(report.collections):,} collections, {points:,} points; {report.files:,} files with "
        f"{report.size_bytes / 1e6:,.1f} MB were written and verified."
    )
    terminal.facts((printable(each.name), _told(each)) for each in report.collections)
    return 0


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _told(collection: RestoredCollection) -> str:
    replayed = f", {collection.replayed:,} writes of them from the log archive" if collection.replayed else ""
    return f"{collection.points:,} points, as of write {collection.seq:,}{replayed}"
