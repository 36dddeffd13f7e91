"""Settings from a TOML file, the environment and flags; a later one of these wins.

The file is named by ``--config`` or ``VECDB_CONFIG`` and holds the names below at its top level. The environment
variable of a setting is ``VECDB_`` and its name in capitals. ``docs/command-line.md`` lists them.
"""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vecdb.errors import InvalidArgument, NotFound

PREFIX = "VECDB_"
CONFIG = "config"


def _truth(text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    return words[text.strip().lower()]


@dataclass(frozen=True, slots=True)
class Kind:
    """How a setting is read: from text, and which types a TOML file may give it."""

    parse: Callable[[str], Any]
    types: tuple[type, ...]
    name: str


TEXT = Kind(str, (str,), "a string")
PATH = Kind(Path, (str,), "a path")
FLAG = Kind(_truth, (bool,), "true or false")
COUNT = Kind(int, (int,), "an integer")
SECONDS = Kind(float, (int, float), "a number of seconds")

KINDS: Mapping[str, Kind] = {
    "path": PATH,
    "connect": TEXT,
    "tls": FLAG,
    "tls_root": PATH,
    "address": TEXT,
    "insecure": FLAG,
    "tls_certificate": PATH,
    "tls_key": PATH,
    "warm_up": FLAG,
    "read_only": FLAG,
    "refresh_interval_s": SECONDS,
    "log_archive": PATH,
    "memory_budget_bytes": COUNT,
    "build_threads": COUNT,
    "deadline_s": SECONDS,
    "grace_s": SECONDS,
    "requests_max": COUNT,
    "streams_max": COUNT,
    "sessions_max": COUNT,
}
"""Every setting. All of them are names of options of some command."""


class Settings:
    """What file and environment say, ready to be overruled by flags."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    @classmethod
    def of(cls, namespace: argparse.Namespace, environment: Mapping[str, str] | None = None) -> Settings:
        """The settings for a command line; ``environment`` is the process's unless given.

        Raises
        ------
        NotFound
            The configuration file is missing.
        InvalidArgument
            It is no TOML, names an unknown setting, or a value is of the wrong kind.
        """
        environment = os.environ if environment is None else environment
        named = getattr(namespace, CONFIG, None) or environment.get(PREFIX + CONFIG.upper())
        values = _from_file(Path(named)) if named else {}
        for name, kind in KINDS.items():
            variable = PREFIX + name.upper()
            if text := environment.get(variable):
                try:
                    values[name] = kind.parse(text)
                except (ValueError, KeyError):
                    raise InvalidArgument(
                        f"{variable} must be {kind.name}, got {text!r}", field=variable, limit=kind.name, value=text
                    ) from None
        return cls(values)

    def choose(self, name: str, flag: Any, default: Any = None) -> Any:
        """The flag if it was given, else what is set, else ``default``."""
        assert name in KINDS, name
        if flag is not None:
            return flag
        return self._values.get(name, default)

    def chosen(self, names: tuple[str, ...], namespace: argparse.Namespace) -> dict[str, Any]:
        """Of ``names``, those that a flag of the same name or a setting gives a value."""
        values = {name: self.choose(name, getattr(namespace, name)) for name in names}
        return {name: value for name, value in values.items() if value is not None}


def add_config_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``."""
    parser.add_argument("--config", metavar="FILE", type=Path, help="TOML file of settings (or VECDB_CONFIG)")


def _from_file(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotFound(f"cannot read the settings in {path}: {error.strerror}", field=CONFIG, value=path) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path} is not TOML: {error}", field=CONFIG, value=path) from None
    values: dict[str, Any] = {}
    for name, value in table.items():
        kind = KINDS.get(name)
        if kind is None:
            known = ", ".join(KINDS)
            raise InvalidArgument(f"{path} has an unknown setting {name!r}; there are {known}", field=name, limit=known)
        # A TOML boolean is a Python int as well.
        if not isinstance(value, kind.types) or (isinstance(value, bool) and kind is not FLAG):
            raise InvalidArgument(
                f"{name} in {path} must be {kind.name}, got {value!r}", field=name, limit=kind.name, value=value
            )
        values[name] = Path(value) if isinstance(value, str) and kind is PATH else value
    return values
