"""``vecdb warmup``: compile the search kernels now, and read what searches of a database look at."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vecdb.cli.settings import Settings
from vecdb.cli.target import add_connect_arguments, open_target, split_target
from vecdb.errors import InvalidArgument

if TYPE_CHECKING:
    from vecdb.cli.terminal import Terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.usage = "vecdb warmup [PATH | --connect HOST:PORT] [COLLECTION] [--with-vectors] [--json]"
    parser.description = (
        "Compile the search kernels for this CPU now, so that no first search has to wait. They are kept in a private "
        "directory (VECDB_CACHE_DIR, or vecdb in the user's cache directory) until vecdb, Numba or the CPU changes. "
        "Of a database, verify and read the ids, codes and graphs too: a directory's are in the system's cache "
        "afterwards, a server's in the memory of the server."
    )
    parser.add_argument(
        "words", nargs="*", metavar="[PATH] [COLLECTION]", help="a directory; one collection instead of all"
    )
    parser.add_argument("--with-vectors", action="store_true", help="read the float32 vectors too")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    add_connect_arguments(parser)


def run(namespace: argparse.Namespace) -> int:
    """Compile what is not compiled yet, and warm the database if one is named."""
    from vecdb.cli.terminal import Terminal

    terminal = Terminal()
    if not namespace.words and namespace.connect is None:
        facts = _compile(terminal, told=not namespace.json)
    else:
        facts = _warm(namespace, terminal)
    if namespace.json:
        print(json.dumps(facts, indent=2))
    return 0


def _compile(terminal: Terminal, *, told: bool) -> dict[str, Any]:
    """Compile the kernels of this machine; what was done, as a JSON object."""
    from vecdb.cli.terminal import ProgressBar

    with ProgressBar("compile", None, "kernels", terminal.width) as bar:
        from vecdb.kernels.cpu import CpuKernels
        from vecdb.kernels.cpu.cache import DIRECTORY

        def progress(name: str, seconds: float) -> None:
            bar.advance(1)
            bar.note(f"{name} {seconds:.1f} s")

        kernels = CpuKernels()
        warmed = kernels.warm_up(progress)
    compiled = [each for each in warmed if not each.cached]
    seconds = sum(each.seconds for each in compiled)
    where = None if DIRECTORY is None else str(DIRECTORY)
    if told:
        terminal.say(
            f"{len(compiled)} of {len(warmed)} kernels compiled for {kernels.name} in {seconds:.1f} s, "
            f"{len(warmed) - len(compiled)} were there."
        )
        print(f"kept in {where}" if where else "not kept: the cache directory is not this user's own")
    return {
        "name": kernels.name,
        "directory": where,
        "compile_s": round(seconds, 3),
        "kernels": [asdict(each) for each in warmed],
    }


def _warm(namespace: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Warm the collections of a database; what was done, as a JSON object."""
    settings = Settings.of(namespace)
    path, words = split_target(namespace.words, namespace.connect, settings)
    if len(words) > 1:
        raise InvalidArgument(f"name one collection or none, got {words}", field="collection", limit="1", value=words)
    with open_target(path, namespace.connect, namespace, settings) as database:
        reports = {
            name: database.collection(name).warm(with_vectors=namespace.with_vectors)
            for name in words or database.collections()
        }
    if not namespace.json:
        from vecdb.cli.terminal import printable
        from vecdb.demo.telling import megabytes

        if not reports:
            terminal.say(f"{namespace.connect or path} holds no collections.")
        for name, report in reports.items():
            left_out = f", no room for {megabytes(report.left_out_bytes)}" if report.left_out_bytes else ""
            terminal.say(
                f"{printable(name)}: {megabytes(report.resident_bytes)} of {report.segments:,} segments{left_out}; "
                f"kernels {report.compile_s:.1f} s, verifying {report.verify_s:.1f} s, reading {report.read_s:.1f} s."
            )
    return {name: asdict(report) for name, report in reports.items()}
