"""``vecdb.open``: the door to the embedded engine."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, overload

from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.options import EngineOptions
from vecdb.engine.reading import ReadOnlyDatabase


@overload
def open(
    path: str | Path, *, options: EngineOptions | None = None, read_only: Literal[False] = False
) -> EmbeddedDatabase: ...
@overload
def open(path: str | Path, *, options: EngineOptions | None = None, read_only: Literal[True]) -> ReadOnlyDatabase: ...
def open(
    path: str | Path, *, options: EngineOptions | None = None, read_only: bool = False
) -> EmbeddedDatabase | ReadOnlyDatabase:
    """Open the database in a directory; a missing or empty directory becomes a new one.

    The directory belongs to this process until the database is closed; use it in a ``with`` statement.

    Parameters
    ----------
    path
        The directory.
    options
        How memory, disk and threads are used.
    read_only
        Only read, without owning the directory: any number of processes may, also while another one writes. They see
        the database as of the moment at which it was opened, or last told to ``refresh()``; what writes is refused.

    Raises
    ------
    FailedPrecondition
        Another process holds the directory; it is not a vecdb database and not empty; or it has another format version.
    NotFound
        With ``read_only``: there is no database in the directory.
    Corruption
        What is there is damaged: run ``vecdb check``.
    """
    if read_only:
        return ReadOnlyDatabase.open(path, options=options)
    return EmbeddedDatabase.open(path, options=options)
