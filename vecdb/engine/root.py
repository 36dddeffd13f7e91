"""The directory of a database: what lies in it, and whether what is there can be one.

The marker is the last file that a new database gets and the first that is read. Format: ``docs/formats/directory.md``.
"""

from __future__ import annotations

from vecdb.engine.marker import MARKER
from vecdb.engine.quarantine import QUARANTINE, REPAIRING
from vecdb.errors import Corruption
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.lock import LOCK_NAME
from vecdb.storage.reserve import RESERVE_NAME

CATALOGUE = "catalogue"
COLLECTIONS = "collections"


def require_no_collections(root: MmapDirectory) -> None:
    """Raise Corruption where a directory without a marker holds collections.

    They are made after the marker, so that is no interrupted creation: something was lost.
    """
    if not root.exists(MARKER) and _lived_in(root):
        raise Corruption(f"{root.path / MARKER} is missing beside collections", field=str(root.path / MARKER))


def is_foreign(root: MmapDirectory) -> bool:
    """Whether a directory without a marker holds what no database, complete or not, has in it."""
    strange = set(root.names()) - {LOCK_NAME, REPAIRING, RESERVE_NAME}
    return bool(strange) or bool(set(root.children()) - {CATALOGUE, COLLECTIONS, QUARANTINE})


def _lived_in(root: MmapDirectory) -> bool:
    """Whether there is what only a database has that was opened before."""
    children = root.children()
    return QUARANTINE in children or (
        COLLECTIONS in children and bool(root.child(COLLECTIONS, create=False).children())
    )
