"""What a run of the benchmark does, checked before anything starts.

A sweep file (TOML) holds the same names as the attributes of ``BenchPlan`` and gives defaults for them.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from vecdb.bench.engines import ENTRIES, KINDS, entries_of
from vecdb.errors import InvalidArgument, NotFound
from vecdb.requests import K_MAX

MODES = ("single", "batch")

EFFORTS = (10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 192, 256, 384, 512)
EFFORTS_QUICK = (10, 16, 32, 64, 128, 256)

RECALLS = (0.90, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """One run.

    Attributes
    ----------
    dataset
        A text that ``sources.source_of`` understands.
    kind
        ``"indexes"``: recall, speed, build and memory of search libraries beside vecdb's. ``"databases"``: embedded
        databases, with payloads, filters and cold starts.
    engines
        Names of engines, in the order of the table.
    k
        Neighbours asked for.
    efforts
        Sizes of the candidate list (``ef`` and its other names) to measure, ascending.
    modes
        ``"single"``: one query a call; ``"batch"``: all queries in one call.
    rounds
        Times that every point is measured, interleaved over the engines.
    queries
        At most this many of the data set's queries.
    seconds_min
        A turn goes on for at least this long.
    seed
        Of generated data, held-out queries and the engines' own draws.
    core
        The core that every measuring process is pinned to; ``None``: not pinned.
    filters
        Databases: how many rows in a thousand match, one filter each.
    seconds_max
        Databases: a turn ends after this long, even if not every query was asked.
    load_pinned
        Databases: a process that loads a database is pinned too. Otherwise it may use every core, and as many threads.
    """

    dataset: str
    kind: str = "indexes"
    engines: tuple[str, ...] = tuple(entry.name for entry in ENTRIES)
    k: int = 10
    efforts: tuple[int, ...] = EFFORTS
    modes: tuple[str, ...] = MODES
    rounds: int = 3
    queries: int = 1_000
    seconds_min: float = 0.2
    seed: int = 0
    core: int | None = None
    filters: tuple[int, ...] = (10, 100, 500)
    seconds_max: float = 4.0
    load_pinned: bool = True

    def __post_init__(self) -> None:
        for each in fields(self):
            _check_type(each.name, getattr(self, each.name))
        if self.kind not in KINDS:
            raise InvalidArgument(
                f"kinds are {tuple(KINDS)}, got {self.kind!r}", field="kind", limit=tuple(KINDS), value=self.kind
            )
        entries_of(self.engines, self.kind)
        if not self.engines:
            raise InvalidArgument("name at least one engine", field="engines")
        _in_range("k", self.k, 1, K_MAX)
        _in_range("rounds", self.rounds, 1, 1_000)
        _in_range("queries", self.queries, 1, 1_000_000)
        if not 0.0 <= self.seconds_min <= 3_600.0:
            raise InvalidArgument(
                f"seconds_min must be 0 to 3600, got {self.seconds_min}", field="seconds_min", value=self.seconds_min
            )
        if not self.efforts or min(self.efforts) < 1 or list(self.efforts) != sorted(set(self.efforts)):
            raise InvalidArgument(
                f"efforts must be positive, ascending and distinct, got {self.efforts}",
                field="efforts",
                value=self.efforts,
            )
        if not all(1 <= each < 1_000 for each in self.filters) or len(set(self.filters)) < len(self.filters):
            raise InvalidArgument(
                f"filters must be distinct numbers of 1 to 999 rows in a thousand, got {self.filters}",
                field="filters",
                limit="1..999",
                value=self.filters,
            )
        if not self.seconds_min <= self.seconds_max <= 3_600.0:
            raise InvalidArgument(
                f"seconds_max must be seconds_min to 3600, got {self.seconds_max}",
                field="seconds_max",
                value=self.seconds_max,
            )
        if self.core is not None and self.core not in os.sched_getaffinity(0):
            allowed = sorted(os.sched_getaffinity(0))
            raise InvalidArgument(
                f"this process may not use core {self.core}; it may use {allowed}",
                field="core",
                limit=allowed,
                value=self.core,
            )
        if not self.modes or not set(self.modes) <= set(MODES):
            raise InvalidArgument(f"modes are {MODES}, got {self.modes}", field="modes", limit=MODES, value=self.modes)

    @property
    def usable_efforts(self) -> tuple[int, ...]:
        """The efforts not below k, which no candidate list may be; k itself where that leaves none."""
        return tuple(effort for effort in self.efforts if effort >= self.k) or (self.k,)


def _check_type(name: str, value: object) -> None:
    """What a sweep file sets can be of any type."""
    wanted, told = TYPES[name]
    if wanted is tuple:
        told_each = str if name in ("engines", "modes") else int
        right = isinstance(value, tuple) and all(type(each) is told_each for each in value)
    else:
        right = type(value) in (wanted, int) if wanted is float else type(value) is wanted
    if not right and not (name == "core" and value is None):
        raise InvalidArgument(f"{name} must be {told}, got {value!r}", field=name, limit=told, value=value)


TYPES: dict[str, tuple[type, str]] = {
    "dataset": (str, "text"),
    "engines": (tuple, "names"),
    "k": (int, "an integer"),
    "efforts": (tuple, "integers"),
    "modes": (tuple, "names"),
    "rounds": (int, "an integer"),
    "queries": (int, "an integer"),
    "seconds_min": (float, "a number"),
    "seed": (int, "an integer"),
    "kind": (str, "text"),
    "filters": (tuple, "integers"),
    "seconds_max": (float, "a number"),
    "load_pinned": (bool, "true or false"),
    "core": (int, "an integer"),
}


def _in_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidArgument(
            f"{name} must be {low} to {high}, got {value}", field=name, limit=f"{low}..{high}", value=value
        )


def read_sweep(path: Path) -> dict[str, Any]:
    """The settings in a sweep file, lists as tuples.

    Raises
    ------
    NotFound
        There is no such file.
    InvalidArgument
        It is not TOML, or holds a name that ``BenchPlan`` does not know.
    """
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(f"no file {path}", field="sweep", value=path) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path} is not TOML: {error}", field="sweep", value=path) from None
    known = {each.name for each in fields(BenchPlan)}
    for name in settings:
        if name not in known:
            raise InvalidArgument(
                f"{path} sets {name!r}; a sweep sets {', '.join(sorted(known))}",
                field="sweep",
                limit=sorted(known),
                value=name,
            )
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
