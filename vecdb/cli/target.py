"""The database that a command works on: a directory on this machine, or a server."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vecdb.cli.settings import Settings, add_config_argument
from vecdb.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from vecdb.api import Database


def add_connect_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what chooses a server instead of a directory."""
    parser.add_argument("--connect", metavar="HOST:PORT", help="ask a server instead of opening a directory")
    parser.add_argument(
        "--tls", action="store_const", const=True, help="with --connect: encrypt, trust the system's roots"
    )
    parser.add_argument("--tls-root", metavar="FILE", type=Path, help="with --connect: encrypt, trust this certificate")
    add_config_argument(parser)


def split_target(words: list[str], connect: str | None, settings: Settings) -> tuple[Path | None, list[str]]:
    """Take the directory off the front of ``words``, unless a server is asked or the settings name it.

    Parameters
    ----------
    words
        ``[PATH] [COLLECTION]`` as typed: where the settings name a path, one word is the collection.
    connect
        Address of the server, if one is asked.
    settings
        Of file and environment.
    """
    if connect is not None:
        return None, words
    configured = settings.choose("path", None)
    if configured is not None and (len(words) < 2 and not (words and is_database(Path(words[0])))):
        return configured, words
    if not words:
        raise InvalidArgument("name the directory of a database, or a server with --connect", field="path")
    return Path(words[0]), words[1:]


def is_database(path: Path) -> bool:
    """Whether a database lies at ``path``."""
    from vecdb.engine.marker import MARKER

    return (path / MARKER).is_file()


def existing(path: Path) -> Path:
    """``path``, which holds a database; reading commands must not make one.

    Raises
    ------
    NotFound
        It does not.
    """
    if not is_database(path):
        raise NotFound(f"there is no database in {path}", field="path", value=path)
    return path


def add_offline_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what chooses a directory that nobody else may have open."""
    parser.add_argument("path", nargs="?", type=Path, metavar="PATH", help="directory of the database")
    add_config_argument(parser)


def offline_target(namespace: argparse.Namespace) -> Path:
    """The directory of a database, which may be damaged.

    Raises
    ------
    InvalidArgument
        None is named.
    NotFound
        It holds no database.
    """
    path: Path | None = Settings.of(namespace).choose("path", namespace.path)
    if path is None:
        raise InvalidArgument("name the directory of a database", field="path")
    from vecdb.engine.root import COLLECTIONS

    # A database that lost its marker is damaged and worth a look; anything else is left alone.
    return path if (path / COLLECTIONS).is_dir() else existing(path)


def open_target(
    path: Path | None,
    connect: str | None,
    namespace: argparse.Namespace,
    settings: Settings,
    *,
    read_only: bool = True,
) -> Database:
    """Open the directory, or connect to the server; ``read_only`` is possible while another process has it open."""
    if connect is None:
        assert path is not None
        from vecdb.engine.opening import open

        return open(existing(path), read_only=True) if read_only else open(existing(path))
    from vecdb.client import connect as connect_to

    root: Path | None = settings.choose("tls_root", namespace.tls_root)
    return connect_to(connect, tls=root if root is not None else settings.choose("tls", namespace.tls, False))
