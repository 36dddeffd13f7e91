"""The command line: ``vecdb COMMAND``, one module a command, loaded only when that command is run.

Exit status: 0 done; 1 an error, or ``check`` and ``demo`` found a promise broken; 2 wrong options or arguments; 3
``repair`` was not told to go on; 130 interrupted; 141 whoever read the output went away. An error is one line on
standard error, with ``--json`` one JSON object; never a traceback.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from vecdb.version import __version__

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

COMMANDS = {
    "demo": ("vecdb.cli.demo", "index real text of this machine, search it, and kill a writer with -9"),
    "serve": ("vecdb.cli.serve", "serve a database over gRPC"),
    "search": ("vecdb.cli.search", "find the nearest points of a collection"),
    "stats": ("vecdb.cli.stats", "what a database holds and what is on disk"),
    "backup": ("vecdb.cli.backup", "write a database into one file while it is in use, or verify such a file"),
    "restore": ("vecdb.cli.restore", "make a database of a backup"),
    "check": ("vecdb.cli.check", "read and verify every byte of a database"),
    "repair": ("vecdb.cli.repair", "rebuild what can be derived, quarantine what is damaged, say what is lost"),
    "compact": ("vecdb.cli.compact", "give the space of deleted and replaced points back"),
    "snapshot": ("vecdb.cli.snapshot", "keep what a collection holds now under a name"),
    "bench": ("vecdb.bench.command", "measure vecdb beside other engines"),
    "warmup": ("vecdb.cli.warmup", "compile the search kernels now instead of at the first search"),
    "version": ("vecdb.cli.version", "versions of everything that matters in a bug report"),
}
"""By name: the module with ``add_arguments(parser)`` and ``run(namespace) -> int``, and a line of help."""

EPILOG = """\
settings: a flag wins over an environment variable (VECDB_PATH, VECDB_ADDRESS ...),
which wins over the TOML file named by --config or VECDB_CONFIG.

exit status: 0 done, 1 failed or problem found, 2 wrong usage, 3 repair not confirmed, 130 interrupted.
"""


class Command(Protocol):
    """What the module of a command offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""

    def run(self, namespace: argparse.Namespace) -> int:
        """Do it; the exit status."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``vecdb`` with these arguments (``None``: those of the process); the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser, command = _parser(words)
    try:
        namespace = parser.parse_args(words)
    except SystemExit as stop:
        # argparse has printed its help or its complaint.
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE
    if command is None:
        parser.print_help()
        return EXIT_USAGE
    return _run(command, namespace)


def _parser(words: Sequence[str]) -> tuple[argparse.ArgumentParser, Command | None]:
    """The parser, which knows the arguments of the chosen command only, and that command."""
    parser = argparse.ArgumentParser(
        prog="vecdb",
        description="A vector database that opens a directory like SQLite and serves it over gRPC.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"vecdb {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    chosen = next((word for word in words if not word.startswith("-")), None)
    command: Command | None = None
    for name, (module, summary) in COMMANDS.items():
        added = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if name == chosen:
            command = cast("Command", importlib.import_module(module))
            command.add_arguments(added)
    return parser, command


def _run(command: Command, namespace: argparse.Namespace) -> int:
    from vecdb.errors import InvalidArgument, VecdbError

    for stream in (sys.stdout, sys.stderr):
        # Stored text may hold what the terminal's encoding lacks.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = command.run(namespace)
        sys.stdout.flush()
    except VecdbError as error:
        from vecdb.cli.failure import tell

        tell(error, as_json=bool(getattr(namespace, "json", False)))
        return EXIT_USAGE if isinstance(error, InvalidArgument) else EXIT_FAILED
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes standard output once more when it ends; that must not fail too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    return status
