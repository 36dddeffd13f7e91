"""``vecdb warmup``: compile the search kernels now, and say where they are kept."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Compile the search kernels for this CPU now, so that no first search has to wait. They are kept in a private "
        "directory (VECDB_CACHE_DIR, or vecdb in the user's cache directory) until vecdb, Numba or the CPU changes."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(namespace: argparse.Namespace) -> int:
    """Compile what is not compiled yet."""
    from vecdb.cli.terminal import ProgressBar, Terminal

    terminal = Terminal()
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
    if namespace.json:
        facts = {"name": kernels.name, "directory": where, "compile_s": round(seconds, 3)}
        print(json.dumps({**facts, "kernels": [asdict(each) for each in warmed]}, indent=2))
        return 0
    terminal.say(
        f"{len(compiled)} of {len(warmed)} kernels compiled for {kernels.name} in {seconds:.1f} s, "
        f"{len(warmed) - len(compiled)} were there."
    )
    print(f"kept in {where}" if where else "not kept: the cache directory is not this user's own")
    return 0
