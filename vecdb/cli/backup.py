"""``vecdb backup``: a database as one file, or as bytes on standard output; ``--verify`` reads such a file through.

``--prune-archive`` removes the archived log files that no backup needs any more.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from vecdb.cli.settings import Settings
from vecdb.cli.target import add_connect_arguments, open_target, split_target
from vecdb.errors import InvalidArgument

if TYPE_CHECKING:
    from vecdb.results.backup import BackupReport
    from vecdb.results.pruning import PrunedCollection

STANDARD_OUTPUT = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.usage = (
        "vecdb backup [PATH | --connect HOST:PORT] FILE|- [--since OLD] [--json]\n"
        "       vecdb backup --verify FILE... [--json]\n"
        "       vecdb backup --prune-archive DIR --keep-since FILE [--dry-run] [--json]"
    )
    parser.description = (
        "Write all collections of a directory or a server into one new file, or to standard output (-). Nothing is "
        "interrupted by it. With --verify, read every byte of a backup, as restoring it would, and tell what is in it; "
        "name the earlier backups that it needs before it. With --prune-archive, remove the archived log files that "
        "only backups older than FILE need."
    )
    parser.add_argument("words", nargs="*", metavar="[PATH] FILE", help="a directory; the backup file")
    parser.add_argument("--since", metavar="OLD", type=Path, help="leave out what this earlier backup holds")
    parser.add_argument("--verify", action="store_true", help="read a backup instead of writing one")
    parser.add_argument("--prune-archive", metavar="DIR", type=Path, help="remove files from this log archive")
    parser.add_argument(
        "--keep-since", metavar="FILE", type=Path, help="the oldest backup to stay restorable as of any later write"
    )
    parser.add_argument("--dry-run", action="store_true", help="with --prune-archive: only say what would be removed")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    add_connect_arguments(parser)


def run(namespace: argparse.Namespace) -> int:
    """Write a backup, verify one, or prune a log archive."""
    if namespace.prune_archive is not None:
        return _prune(namespace)
    for name in ("keep_since", "dry_run"):
        if getattr(namespace, name):
            raise InvalidArgument(f"--{name.replace('_', '-')} goes with --prune-archive", field=name)
    if namespace.verify:
        return _verify(namespace)
    settings = Settings.of(namespace)
    connect = settings.choose("connect", namespace.connect)
    path, words = split_target(namespace.words, connect, settings)
    if len(words) != 1:
        raise InvalidArgument("name one file for the backup, or - for standard output", field="target", value=words)
    streamed = words[0] == STANDARD_OUTPUT
    if streamed and namespace.json:
        raise InvalidArgument("with - standard output is the backup: --json has no place there", field="json")
    if streamed and sys.stdout.isatty():
        raise InvalidArgument("standard output is a terminal: name a file, or a pipe to -", field="target")
    from vecdb.cli.terminal import WIDTH_MAX, ProgressBar

    with (
        open_target(path, connect, namespace, settings, read_only=False) as database,
        ProgressBar("backup", None, "bytes", WIDTH_MAX) as bar,
    ):
        target = sys.stdout.buffer if streamed else Path(words[0])
        report = database.backup(target, since=namespace.since, progress=bar.advance)
    if streamed:
        sys.stderr.write(f"backed up {_told(report)}\n")
    elif namespace.json:
        print(json.dumps(asdict(report), ensure_ascii=False, indent=2))
    else:
        _show(f"{words[0]} holds {_told(report)}", report)
    return 0


def _verify(namespace: argparse.Namespace) -> int:
    if not namespace.words:
        raise InvalidArgument("name the backup file to verify", field="source")
    from vecdb.cli.terminal import WIDTH_MAX, ProgressBar
    from vecdb.engine.restore import verify_backup

    with ProgressBar("verify", None, "bytes", WIDTH_MAX) as bar:
        report = verify_backup(namespace.words, progress=bar.advance)
    if namespace.json:
        print(json.dumps({"ok": True, **asdict(report)}, ensure_ascii=False, indent=2))
    else:
        _show(f"{namespace.words[-1]} is whole: {_told(report)}", report)
    return 0


def _prune(namespace: argparse.Namespace) -> int:
    if namespace.keep_since is None:
        raise InvalidArgument("name the oldest backup to be kept: --keep-since FILE", field="keep_since")
    if namespace.words or namespace.verify or namespace.since is not None or namespace.connect:
        raise InvalidArgument("--prune-archive goes with --keep-since and --dry-run only", field="prune_archive")
    from vecdb.cli.terminal import Terminal, printable
    from vecdb.engine.pruning import prune_log_archive

    report = prune_log_archive(namespace.prune_archive, keep_since=namespace.keep_since, dry_run=namespace.dry_run)
    if namespace.json:
        print(json.dumps({"dry_run": namespace.dry_run, **asdict(report)}, ensure_ascii=False, indent=2))
        return 0
    verb = "would be removed from" if namespace.dry_run else "were removed from"
    terminal = Terminal()
    terminal.say(f"{report.files:,} log files with {report.size_bytes / 1e6:,.1f} MB {verb} {report.path}.")
    facts = [(printable(each.name), _pruned(each)) for each in report.collections]
    if report.others:
        facts.append(("left alone", f"{report.others:,} collections that the backup does not hold"))
    terminal.facts(facts)
    return 0


def _pruned(collection: PrunedCollection) -> str:
    kept = f"archived from write {collection.kept_seq:,} on" if collection.kept_seq else "nothing archived"
    return f"{collection.files:,} files, {collection.size_bytes:,} bytes; backed up as of {collection.seq:,}, {kept}"


def _told(report: BackupReport) -> str:
    points = sum(each.points for each in report.collections)
    kept = f" ({report.files - report.stored_files:,} of them in earlier backups)" if report.needs else ""
    return (
        f"{len(report.collections):,} collections, {points:,} points in {report.files:,} files{kept}, "
        f"{report.size_bytes / 1e6:,.1f} MB"
    )


def _show(summary: str, report: BackupReport) -> None:
    from vecdb.cli.terminal import Terminal, printable

    terminal = Terminal()
    terminal.say(summary)
    terminal.facts(
        [(printable(each.name), f"{each.points:,} points, as of write {each.seq:,}") for each in report.collections]
        + [("manifest", report.manifest_sha256)]
        + [("needs", each) for each in report.needs]
    )
