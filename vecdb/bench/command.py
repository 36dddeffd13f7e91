"""``vecdb bench``: its arguments, and what it writes where.

The table goes to standard output, or with ``--json`` the document in its place; progress goes to standard error, and
only to a terminal. Imports are deferred, so that ``vecdb --help`` stays quick.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vecdb.errors import FailedPrecondition

if TYPE_CHECKING:
    from vecdb.bench.plan import BenchPlan
    from vecdb.bench.result import RunResult
    from vecdb.bench.run import Race

DEFAULT_OUT = Path("bench/out")
DEFAULT_DATASET = "glove-50"
DEFAULT_KIND = "indexes"

OPTIONS = (
    "kind", "dataset", "engines", "k", "efforts", "modes", "rounds", "queries", "seconds_min", "seconds_max", "filters",
    "load_pinned", "seed",
)  # fmt: skip

QUICK = {"rounds": 1, "seconds_min": 0.05}

EXIT_FAILED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``vecdb bench`` to ``parser``."""
    parser.description = (
        "Measure vecdb beside other engines: recall, queries a second, build time, memory and disk, "
        "each engine on one thread in a process of its own, turn by turn."
    )
    parser.add_argument(
        "--dataset", metavar="NAME",
        help="<file>.hdf5 in the layout of ann-benchmarks, glove-50, or generated: random-<dim>-<metric>-<rows>, "
        f"clustered-<dim>-<metric>-<rows> as in clustered-256-cosine-100k (default: {DEFAULT_DATASET})",
    )  # fmt: skip
    parser.add_argument("--engines", metavar="A,B,...", type=_names, help="engines to run (default: all; see --list)")
    parser.add_argument(
        "--kind", choices=("indexes", "databases"),
        help="indexes: search libraries; databases: embedded databases, with payloads, filters and cold starts "
        "(default: indexes)",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list the engines and whether they can run here, then stop")
    parser.add_argument("--sweep", metavar="FILE", type=Path, help="TOML file of settings; options given here win")
    parser.add_argument("--k", type=int, help="neighbours asked for (default: 10)")
    parser.add_argument("--efforts", metavar="N,N,...", type=_integers, help="candidate list sizes to measure (ef)")
    parser.add_argument("--modes", metavar="A,B", type=_names, help="single, batch (default: both)")
    parser.add_argument("--rounds", type=int, help="times each point is measured, interleaved (default: 3)")
    parser.add_argument("--queries", type=int, help="at most this many queries (default: 1000)")
    parser.add_argument("--seconds-min", metavar="S", type=float, help="least time of one turn (default: 0.2)")
    parser.add_argument(
        "--seconds-max", metavar="S", type=float,
        help="databases: a turn ends after this long, even if not every query was asked (default: 4)",
    )  # fmt: skip
    parser.add_argument(
        "--filters", metavar="N,N,...", type=_integers,
        help="databases: rows in a thousand that match, for one filter each (default: 10,100,500)",
    )  # fmt: skip
    parser.add_argument(
        "--load-unpinned", dest="load_pinned", action="store_false", default=None,
        help="databases: load on every core and with as many threads; searches stay on one",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, help="of generated data, held-out queries and graphs (default: 0)")
    parser.add_argument(
        "--pin", metavar="CORE", type=_core, default="last",
        help="core that every engine is pinned to; 'none': not pinned (default: the last one allowed)",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="few efforts, one round, short turns: a look, not a figure"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, default=DEFAULT_OUT,
        help=f"where the JSON document and the plot go (default: {DEFAULT_OUT})",
    )  # fmt: skip
    parser.add_argument("--scratch", metavar="DIR", type=Path, help="where engines keep their files during the run")
    parser.add_argument("--json", action="store_true", help="print the JSON document instead of the table")


def run(namespace: argparse.Namespace) -> int:
    """Run the benchmark that the parsed options describe.

    Returns
    -------
    int
        0: done. 1: an engine that could run failed, or none could.

    Raises
    ------
    VecdbError
        The options are wrong, the data set cannot be had, or the results cannot be written.
    """
    if namespace.list:
        sys.stdout.write(_engine_list(namespace.kind or DEFAULT_KIND))
        return 0
    plan = plan_of(namespace)
    # Found out now, not after an hour of measuring.
    _check_writable(namespace.out)
    result = _run(plan, namespace.scratch)
    written = write(result, namespace.out)
    if namespace.json:
        sys.stdout.write(written[0].read_text(encoding="utf-8"))
    else:
        table = _table_of(plan)
        sys.stdout.write(table(result) + "\n\nwritten: " + ", ".join(map(str, written)) + "\n")
    failed = [engine for engine in result.engines if engine.error is not None and engine.started]
    return EXIT_FAILED if failed or all(engine.error is not None for engine in result.engines) else 0


def plan_of(namespace: argparse.Namespace) -> BenchPlan:
    """The plan that the options stand for; they win over ``--quick``, which wins over the sweep file."""
    from vecdb.bench.engines import KINDS
    from vecdb.bench.machine import default_core
    from vecdb.bench.plan import EFFORTS_QUICK, BenchPlan, read_sweep

    settings: dict[str, Any] = {"dataset": DEFAULT_DATASET}
    if namespace.sweep is not None:
        settings |= read_sweep(namespace.sweep)
    if namespace.quick:
        settings |= {**QUICK, "efforts": EFFORTS_QUICK}
    for name in OPTIONS:
        value = getattr(namespace, name)
        if value is not None:
            settings[name] = value
    if namespace.pin != "last":
        settings["core"] = None if namespace.pin == "none" else namespace.pin
    elif "core" not in settings:
        settings["core"] = default_core()
    if settings.get("kind", DEFAULT_KIND) == "databases":
        settings = {"engines": tuple(entry.name for entry in KINDS["databases"]), "modes": ("single",), **settings}
    return BenchPlan(**settings)


def write(result: RunResult, out: Path) -> list[Path]:
    """Write document and plot into the directory ``out``; the paths. No plot where matplotlib is missing."""
    from importlib.util import find_spec

    from vecdb.bench.plot import draw
    from vecdb.bench.report import write_json

    kind = "" if result.plan.kind == DEFAULT_KIND else f"{result.plan.kind}-"
    stem = f"{kind}{result.dataset['name']}-{result.taken_at[:19].replace(':', '').replace('-', '')}"
    paths = [out / f"{stem}.json"]
    write_json(result, paths[0])
    if find_spec("matplotlib") is not None:
        paths.append(out / f"{stem}.png")
        draw(result, paths[1])
    else:
        sys.stderr.write("no plot: the package matplotlib is not installed; it is in vecdb's extra 'bench'\n")
    return paths


def _run(plan: BenchPlan, scratch: Path | None) -> RunResult:
    from tqdm import tqdm

    from vecdb.bench.run import run as carry_out

    with tqdm(
        total=100.0, disable=not sys.stderr.isatty(), leave=False, bar_format="{l_bar}{bar}| {elapsed} {desc}"
    ) as bar:

        def progress(what: str, share: float) -> None:
            bar.set_description_str(what, refresh=False)
            bar.update(100.0 * share - bar.n)
            bar.refresh()

        return carry_out(plan, race=_race_of(plan), scratch=scratch, progress=progress)


def _race_of(plan: BenchPlan) -> type[Race]:
    if plan.kind == "databases":
        from vecdb.bench.databases import DatabaseRace

        return DatabaseRace
    from vecdb.bench.run import Race

    return Race


def _table_of(plan: BenchPlan) -> Callable[[RunResult], str]:
    if plan.kind == "databases":
        from vecdb.bench.database_report import database_table

        return database_table
    from vecdb.bench.report import table

    return table


def _engine_list(kind: str) -> str:
    from vecdb.bench.engines import KINDS, missing

    entries = KINDS[kind]
    width = max(len(entry.name) for entry in entries)
    return "".join(f"{entry.name:{width}}  {missing(entry) or entry.what}\n" for entry in entries)


def _check_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FailedPrecondition(f"results cannot be written to {out}: {error}", field="out", value=out) from None
    if not os.access(out, os.W_OK):
        raise FailedPrecondition(f"results cannot be written to {out}: no permission", field="out", value=out)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(part) for part in _names(text)}))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be whole numbers with commas, as in 10,40,160; got {text!r}") from None


def _core(text: str) -> int | str:
    try:
        return text if text in ("none", "last") else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be the number of a core, 'last' or 'none'; got {text!r}") from None
