"""``vecdb repair``: rebuild what can be derived, put the rest into quarantine, and say exactly what is lost."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING

from vecdb.cli.target import add_offline_arguments, offline_target

if TYPE_CHECKING:
    from vecdb.cli.terminal import Terminal
    from vecdb.engine.repair import RepairReport

EXIT_NOT_CONFIRMED = 3
IDS_SHOWN_MAX = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Read a damaged database, print what would be done and what is lost, ask, and do it. What can be derived is "
        "rebuilt; what is damaged is moved to the directory quarantine, and nothing is deleted. Nobody else may have "
        "the database open. Interrupted, it can be run again. Exit status 3 if it is needed and was not confirmed."
    )
    parser.add_argument("--yes", action="store_true", help="do it without asking")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead; asks nothing")
    add_offline_arguments(parser)


def run(namespace: argparse.Namespace) -> int:
    """Plan, tell, ask, repair."""
    path = offline_target(namespace)
    from vecdb.cli.terminal import Terminal
    from vecdb.engine.repair import DatabaseRepair

    terminal = Terminal()
    start = time.perf_counter()
    with terminal.steps("read") as progress:
        repair = DatabaseRepair.plan(path, progress=progress)
    with repair:
        report = repair.report
        if not namespace.json:
            _show(report, terminal)
        agreed = namespace.yes or (report.needed and not namespace.json and _asked())
        if report.needed and agreed:
            repair.carry_out()
    done = report.needed and agreed
    if namespace.json:
        seconds = round(time.perf_counter() - start, 3)
        print(json.dumps({"done": done, **report.as_object(), "seconds": seconds}, ensure_ascii=False, indent=2))
    elif done:
        terminal.say(f"Repaired. What was damaged, and this report, are in {path / report.quarantine}.")
    return 0 if done or not report.needed else EXIT_NOT_CONFIRMED


def _show(report: RepairReport, terminal: Terminal) -> None:
    """The plan, for a person."""
    from vecdb.cli.terminal import printable

    say = terminal.say
    if not report.needed:
        say("Nothing to repair: everything is as it was written.")
        return
    say(f"To be done ({len(report.actions)}):")
    for action in report.actions:
        print(f"  {printable(action.file)}\n    {printable(action.reason)}\n    -> {printable(action.remedy)}")
    if not report.losses:
        say("Nothing is lost.")
        return
    say(f"Lost ({len(report.losses)}):")
    for loss in report.losses:
        print(f"  {printable(loss.collection) or 'database'}: {printable(loss.message)}")
        if loss.ids:
            shown = ", ".join(printable(json.dumps(each, ensure_ascii=False)) for each in loss.ids[:IDS_SHOWN_MAX])
            more = len(loss.ids) - IDS_SHOWN_MAX
            print(f"    {shown}" + (f" and {more} more; --json names all" if more > 0 else ""))


def _asked() -> bool:
    """Whether a person at a terminal agrees; nobody else is asked."""
    if not sys.stdin.isatty():
        sys.stderr.write("nothing was changed: run it again with --yes, or on a terminal\n")
        return False
    sys.stdout.flush()
    sys.stderr.write("Do this? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    sys.stderr.write("nothing was changed\n")
    return False
