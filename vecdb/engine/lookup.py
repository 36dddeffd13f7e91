"""The collections of a database by name: found among those that exist, and kept open for as long as they are used.

Whoever names a collection by name and id gets that collection, or hears that there is none: never another one that was
given the name meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic

from vecdb.engine.catalogue import CatalogueEntry
from vecdb.engine.leases import Lease, Leases, Opened
from vecdb.errors import NotFound
from vecdb.requests import SearchRequest
from vecdb.results.hits import Hits


class Lookup(Generic[Opened]):
    """Finds collections.

    Parameters
    ----------
    entries
        Gives those that exist now, by name.
    leases
        The open ones.
    """

    def __init__(self, entries: Callable[[], Mapping[str, CatalogueEntry]], leases: Leases[Opened]) -> None:
        self._entries = entries
        self._leases = leases

    def entry(self, name: str) -> CatalogueEntry:
        """The collection of this name.

        Raises
        ------
        NotFound
            There is none.
        """
        entry = self._entries().get(name)
        if entry is None:
            raise no_such_collection(name)
        return entry

    def lease(self, name: str, collection_id: str) -> Lease[Opened]:
        """A block for whose length the collection of this name and id stays open.

        Raises
        ------
        NotFound
            There is none.
        """
        entry = self._entries().get(name)
        if entry is None or entry.collection_id != collection_id:
            raise no_such_collection(name)
        return self._leases.lease(collection_id)

    def search_at_once(self, name: str, collection_id: str, request: SearchRequest) -> list[Hits] | None:
        """As ``Database.run_search_at_once``."""
        entry = self._entries().get(name)
        if entry is None or collection_id not in ("", entry.collection_id):
            return None
        return self._leases.use_if_open(entry.collection_id, lambda opened: opened.search_at_once(request))


def no_such_collection(name: str) -> NotFound:
    """What whoever names a collection that does not exist is told."""
    return NotFound(f"no collection {name!r}", field="collection", value=name)
