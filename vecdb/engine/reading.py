"""The database that only reads: any number of processes may hold one over a directory, whoever writes to it.

It takes no lock and changes no byte. What it shows is the directory as of its last refresh, collection by collection.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Never, Self

from vecdb.api import Database
from vecdb.engine.catalogue import Catalogue, CatalogueEntry
from vecdb.engine.collection import EmbeddedCollection
from vecdb.engine.database import choose_kernels
from vecdb.engine.events import logger
from vecdb.engine.leases import Lease, Leases
from vecdb.engine.lookup import Lookup, no_such_collection
from vecdb.engine.marker import MARKER, read_marker
from vecdb.engine.memory_budget import MemoryBudget
from vecdb.engine.options import EngineOptions
from vecdb.engine.quarantine import refuse_unfinished
from vecdb.engine.replica import CollectionReplica, refuse
from vecdb.engine.root import CATALOGUE, COLLECTIONS, require_no_collections
from vecdb.engine.threads import Threads
from vecdb.errors import FailedPrecondition, NotFound, VecdbError
from vecdb.kernels.protocol import Kernels
from vecdb.requests import SearchRequest
from vecdb.results.hits import Hits
from vecdb.schema import CollectionSchema, check_name
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.environment import state_pages
from vecdb.storage.io import FileSystem
from vecdb.storage.lock import require_own_process


class ReadOnlyCollection(EmbeddedCollection):
    """A collection of a database that is open for reading. Only delegates; what writes is refused."""

    def __init__(self, name: str, collection_id: str, schema: CollectionSchema, database: ReadOnlyDatabase) -> None:
        super().__init__(name, collection_id, schema, lambda: database.lease(name, collection_id))
        self._database = database

    def refresh(self) -> None:
        """Make every write to this collection visible that was acknowledged before this call.

        Raises
        ------
        NotFound
            The collection was dropped.
        Corruption
            What is there is damaged; the collection stays as it was.
        Unavailable
            The device failed, or the writer replaced what was being read, again and again.
        """
        self._database.refresh_collection(self.name, self.collection_id)


class ReadOnlyDatabase(Database):
    """A directory of collections that other processes may write to."""

    def __init__(self, directory: MmapDirectory, database_id: str, options: EngineOptions, kernels: Kernels) -> None:
        self.path = directory.path
        self.database_id = database_id
        self.kernels = kernels
        self._directory = directory
        self._options = options
        self._pid = os.getpid()
        self._threads = Threads(options.writer_threads)
        self._open: Leases[CollectionReplica] = Leases(options.open_collections_max, self._open_collection)
        self._lookup = Lookup(lambda: self._entries, self._open)
        self._taking = threading.Lock()
        self._catalogue_pages = b""
        self._entries: Mapping[str, CatalogueEntry] = {}
        self._closing = threading.Event()
        self._take_catalogue()
        self._budget = MemoryBudget(options.memory_budget_bytes, directory.fs)
        self._refresher = threading.Thread(target=self._refresh_regularly, name="vecdb-refresh", daemon=True)
        if options.refresh_interval_s:
            self._refresher.start()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        options: EngineOptions | None = None,
        kernels: Kernels | None = None,
        file_system: FileSystem | None = None,
    ) -> Self:
        """Open the database in a directory for reading; parameters as of ``EmbeddedDatabase.open``.

        Raises
        ------
        NotFound
            There is no database in the directory.
        FailedPrecondition
            It was written by another format version.
        Corruption
            What is there is damaged.
        """
        options = options or EngineOptions()
        root = MmapDirectory.open(Path(path), file_system or FileSystem(), create=False, read_only=True)
        refuse_unfinished(root)
        require_no_collections(root)
        if not root.exists(MARKER):
            raise NotFound(f"there is no database in {root.path}", field="path", value=root.path)
        marker = read_marker(root)
        return cls(root, marker.database_id, options, kernels or choose_kernels(options.kernels))

    def announce(self, address: str) -> None:
        """Nothing: nobody who wants to write is kept out, so nobody is told where to ask instead."""

    def refresh(self) -> None:
        """Make every write visible that was acknowledged before this call, and every collection that was made.

        A collection that was dropped is gone afterwards. One that cannot be refreshed stays as it was and does not keep
        the others from it.

        Raises
        ------
        Corruption, Unavailable
            As ``ReadOnlyCollection.refresh``, for the first collection that could not be refreshed.
        """
        self._check_open()
        self._take_catalogue()
        names = {entry.collection_id: name for name, entry in self._entries.items()}
        failures: list[VecdbError] = []
        for collection_id in self._open.open_ids():
            if collection_id not in names:
                self._open.close_dropped(collection_id)
                continue
            try:
                self._refresh_open(names[collection_id], collection_id)
            except NotFound:
                self._open.close_dropped(collection_id)
            except VecdbError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def refresh_collection(self, name: str, collection_id: str) -> None:
        """Refresh one collection; for ``ReadOnlyCollection``."""
        self._check_open()
        self._take_catalogue()
        with self.lease(name, collection_id) as replica:
            self._refresh(replica, name, collection_id)

    def run_create(self, name: str, schema: CollectionSchema, exist_ok: bool) -> Never:
        """Refused."""
        del name, schema, exist_ok
        self._check_open()
        refuse("create a collection")

    def collection(self, name: str) -> ReadOnlyCollection:
        """The collection called ``name``."""
        check_name(name, "collection")
        self._check_open()
        collection_id = self._lookup.entry(name).collection_id
        with self.lease(name, collection_id) as replica:
            return ReadOnlyCollection(name, collection_id, replica.schema, self)

    def run_search_at_once(self, name: str, collection_id: str, request: SearchRequest) -> list[Hits] | None:
        """As ``Database.run_search_at_once``."""
        self._check_open()
        return self._lookup.search_at_once(name, collection_id, request)

    def collections(self) -> Sequence[str]:
        """The names of all collections, sorted."""
        self._check_open()
        return sorted(self._entries)

    def backup(
        self,
        target: str | Path | BinaryIO,
        *,
        since: str | Path | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Never:
        """Refused, as ``run_backup`` is."""
        del target, since, progress
        self.run_backup(b"")

    def run_backup(self, since_manifest: bytes) -> Never:
        """Refused: what is not flushed would be missing, and the owner would remove files that are being read."""
        del since_manifest
        self._check_open()
        refuse("back up (whoever writes can, or its server)")

    def drop_collection(self, name: str) -> Never:
        """Refused."""
        del name
        self._check_open()
        refuse("drop a collection")

    def close(self) -> None:
        """Stop background work and release the memory. Closing twice is fine."""
        require_own_process(self.path, self._pid)
        with self._taking:
            if self._closing.is_set():
                return
            self._closing.set()
        try:
            self._open.close_all()
        finally:
            if self._options.refresh_interval_s:
                self._refresher.join()
            self._threads.shut_down()
            self._budget.close()

    def lease(self, name: str, collection_id: str) -> Lease[CollectionReplica]:
        """A block for whose length a collection stays open; for ``ReadOnlyCollection``."""
        self._check_open()
        return self._lookup.lease(name, collection_id)

    def _refresh_open(self, name: str, collection_id: str) -> None:
        """Refresh a collection if it is open; one that is opened later is as of then."""
        self._open.use_if_open(collection_id, lambda replica: self._refresh(replica, name, collection_id))

    def _refresh(self, replica: CollectionReplica, name: str, collection_id: str) -> None:
        try:
            replica.refresh()
        except VecdbError as error:
            if self._is_dropped(collection_id):
                raise no_such_collection(name) from error
            raise

    def _open_collection(self, collection_id: str) -> CollectionReplica:
        try:
            directory = self._directory.child(COLLECTIONS, create=False).child(collection_id, create=False)
            return CollectionReplica(directory, collection_id, self._options, self.kernels, self._threads, self._budget)
        except VecdbError as error:
            if self._is_dropped(collection_id):
                raise NotFound("the collection was dropped", field="collection", value=collection_id) from error
            raise

    def _is_dropped(self, collection_id: str) -> bool:
        """Whether a collection exists no more, whatever its files looked like a moment ago."""
        self._take_catalogue()
        return all(entry.collection_id != collection_id for entry in self._entries.values())

    def _take_catalogue(self) -> None:
        """Read the catalogue again if it was changed."""
        with self._taking:
            directory = self._directory.child(CATALOGUE, create=False)
            pages = state_pages(directory)
            if pages != self._catalogue_pages:
                catalogue = Catalogue.open(directory, create=False)
                catalogue.close()
                self._entries = catalogue.entries
                self._catalogue_pages = pages

    def _refresh_regularly(self) -> None:
        told = ""
        while not self._closing.wait(self._options.refresh_interval_s):
            try:
                self.refresh()
                told = ""
            except VecdbError as error:
                # What was visible stays so; the same failure is told once, however often it is met.
                if told != str(error) and not self._closing.is_set():
                    told = str(error)
                    logger.warning("refresh_failed error=%s field=%r", type(error).__name__, error.field)

    def _check_open(self) -> None:
        require_own_process(self.path, self._pid)
        if self._closing.is_set():
            raise FailedPrecondition("the database is closed", field="database")
