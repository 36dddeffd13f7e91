"""``vecdb.open``: the door to the embedded engine."""

from __future__ import annotations

from pathlib import Path

from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.options import EngineOptions


def open(path: str | Path, *, options: EngineOptions | None = None) -> EmbeddedDatabase:
    """Open the database in a directory; a missing or empty directory becomes a new one.

    The directory belongs to this process until the database is closed; use it in a ``with`` statement.

    Parameters
    ----------
    path
        The directory.
    options
        How memory, disk and threads are used.

    Raises
    ------
    FailedPrecondition
        Another process holds the directory; it is not a vecdb database and not empty; or it has another format version.
    Corruption
        What is there is damaged: run ``vecdb check``.
    """
    return EmbeddedDatabase.open(path, options=options)
