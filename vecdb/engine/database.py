"""The database that a user of the embedded engine holds: one directory, owned by this process while it is open."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

from vecdb.api import Database
from vecdb.archive.manifest import report_of
from vecdb.archive.reading import read_manifest_bytes
from vecdb.archive.target import FileOutput, Pieces, Progress, Target, output_to, write_pieces
from vecdb.engine.backup import FrozenCollection, backup_pieces
from vecdb.engine.catalogue import Catalogue, CatalogueEntry
from vecdb.engine.collection import EmbeddedCollection
from vecdb.engine.events import Events
from vecdb.engine.leases import Lease, Leases
from vecdb.engine.log_archive import LogArchive
from vecdb.engine.lookup import Lookup
from vecdb.engine.marker import MARKER, read_marker, write_marker
from vecdb.engine.memory_budget import MemoryBudget
from vecdb.engine.options import EngineOptions
from vecdb.engine.quarantine import refuse_unfinished
from vecdb.engine.recovery import create_collection_files, open_collection_state
from vecdb.engine.resources import Resources, RowMemory
from vecdb.engine.root import CATALOGUE, COLLECTIONS, is_foreign, require_no_collections
from vecdb.engine.store import OpenCollection
from vecdb.engine.threads import Threads
from vecdb.engine.uninterrupted import in_order, opened_in_order
from vecdb.errors import (
    AlreadyExists,
    Corruption,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    VecdbError,
)
from vecdb.kernels.protocol import Kernels
from vecdb.requests import SearchRequest
from vecdb.results.backup import BackupReport
from vecdb.results.hits import Hits
from vecdb.schema import CollectionSchema, check_name
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import DiskFull, FileSystem
from vecdb.storage.lock import DirectoryLock, require_own_process
from vecdb.storage.reserve import Reserve


def choose_kernels(name: str) -> Kernels:
    """The kernels that an option names. Compiled ones are imported only here, so that opening without them is quick."""
    if name == "reference":
        from vecdb.kernels.reference import ReferenceKernels

        return ReferenceKernels()
    from vecdb.kernels.cpu import CpuKernels

    return CpuKernels()


class EmbeddedDatabase(Database):
    """A directory of collections."""

    def __init__(
        self,
        directory: MmapDirectory,
        lock: DirectoryLock,
        catalogue: Catalogue,
        database_id: str,
        options: EngineOptions,
        kernels: Kernels,
        resources: Resources,
    ) -> None:
        self.path = directory.path
        self._root = directory
        self.database_id = database_id
        self.kernels = kernels
        self._options = options
        self._lock = lock
        self._catalogue = catalogue
        self._resources = resources
        self._collections = directory.child(COLLECTIONS, create=True)
        self._threads = Threads(options.writer_threads, options.build_threads)
        self._open = Leases(options.open_collections_max, self._open_collection)
        self._lookup = Lookup(lambda: catalogue.entries, self._open)
        self._changing = threading.Lock()
        """Held while the catalogue changes, and never until others end their calls, which they may not do."""
        self._drop_ended = threading.Condition(self._changing)
        self._drops = 0
        """Collections that are in the catalogue no more, and whose files are not all removed yet."""
        self._closing = threading.Lock()
        self._closed = False

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        options: EngineOptions | None = None,
        kernels: Kernels | None = None,
        file_system: FileSystem | None = None,
    ) -> Self:
        """Open the database in a directory; a missing or empty directory becomes a new one.

        Parameters
        ----------
        path
            The directory.
        options
            How memory, disk and threads are used.
        kernels
            Instead of the ones that the options name.
        file_system
            Instead of the real one, for tests.

        Raises
        ------
        FailedPrecondition
            Another process holds the directory (named, with its host), the directory is not a vecdb database and not
            empty, or it was written by another format version.
        Corruption
            What is there is damaged.
        """
        fs = file_system or FileSystem()
        # Interrupted, nobody holds what was opened.
        return opened_in_order(
            lambda: cls._open_owned(path, options or EngineOptions(), kernels, fs), lambda database: database.close()
        )

    @classmethod
    def _open_owned(cls, path: str | Path, options: EngineOptions, kernels: Kernels | None, fs: FileSystem) -> Self:
        """As ``open``."""
        if options.log_archive is not None:
            # Now, and not when the first log file is to be kept.
            archive = LogArchive.open(options.log_archive, fs).path
            if fs.resolved(archive).is_relative_to(fs.resolved(Path(path))):
                raise InvalidArgument(
                    f"{archive} is inside the database; keep logs elsewhere", field="log_archive", value=archive
                )
        root = MmapDirectory.open(Path(path), fs, create=True)
        if not root.exists(MARKER) and is_foreign(root):
            raise FailedPrecondition(
                f"{root.path} is not a vecdb database and not empty",
                field="path",
                limit="a database or an empty directory",
                value=root.path,
            )
        if root.exists(MARKER):
            # Ahead of the lock, which writes down its holder: a database of another version keeps every byte.
            with _telling_remedy(root):
                read_marker(root)
        lock = DirectoryLock.acquire(root)
        events = Events("")
        try:
            with _telling_remedy(root):
                return cls._opened(root, lock, options, kernels, events)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _opened(
        cls,
        root: MmapDirectory,
        lock: DirectoryLock,
        options: EngineOptions,
        kernels: Kernels | None,
        events: Events,
    ) -> Self:
        """The database in a directory that this process owns."""
        refuse_unfinished(root)
        new = not root.exists(MARKER)
        require_no_collections(root)
        if not new and CATALOGUE not in root.children():
            raise Corruption(f"{root.path / CATALOGUE} is missing", field=str(root.path / CATALOGUE))
        reserve = Reserve(root, options.reserve_size_bytes)
        # The marker is written last: a directory with a marker has a whole catalogue.
        directory = root.child(CATALOGUE, create=new)
        catalogue = reserve.spent_on(lambda: Catalogue.open(directory, create=new), events.report)
        try:
            marker = write_marker(root) if new else read_marker(root)
            budget = MemoryBudget(options.memory_budget_bytes, root.fs)
            database = cls(
                root,
                lock,
                catalogue,
                marker.database_id,
                options,
                kernels or choose_kernels(options.kernels),
                Resources(reserve, RowMemory(options.rows_bytes_max), budget),
            )
            database._remove_unnamed()
            with suppress(DiskFull):  # Taken by the first write that finds space.
                reserve.take(events.report)
        except BaseException:
            catalogue.close()
            raise
        return database

    def announce(self, address: str) -> None:
        """Tell who finds the directory locked where the server that holds it can be reached."""
        self._lock.announce(address)

    @in_order
    def run_create(self, name: str, schema: CollectionSchema, exist_ok: bool) -> EmbeddedCollection:
        """Make a collection; it exists, durably, on return."""
        check_name(name, "collection")
        self._check_open()
        with self._changing:
            self._check_open()
            exists = name in self._catalogue.entries
            if not exists:
                self._make(name, schema)
        try:
            # Opened outside the lock: what a long log holds may have to be brought back.
            found = self.collection(name)
        except NotFound:
            if not exists:
                raise
            # It was dropped meanwhile.
            return self.run_create(name, schema, exist_ok)
        if not exists or (exist_ok and found.schema == schema):
            return found
        told = "exists with another schema" if exist_ok else "exists"
        raise AlreadyExists(f"collection {name!r} {told}", field="collection", value=name)

    def _make(self, name: str, schema: CollectionSchema) -> None:
        """Make the files of a collection and name it in the catalogue."""
        collection_id = secrets.token_hex(8)
        try:
            directory = self._collections.child(collection_id, create=True)
            create_collection_files(directory, name, collection_id, schema)
            self._catalogue.add(name, collection_id)
        except ResourceExhausted:
            # Nothing names it; what cannot be removed now is at the next open.
            with suppress(VecdbError):
                self._collections.remove_child(collection_id)
            raise

    def collection(self, name: str) -> EmbeddedCollection:
        """The collection called ``name``."""
        check_name(name, "collection")
        self._check_open()
        collection_id = self._lookup.entry(name).collection_id
        schema = self._lease(name, collection_id).use(lambda opened: opened.schema)
        return EmbeddedCollection(name, collection_id, schema, lambda: self._lease(name, collection_id))

    def run_search_at_once(self, name: str, collection_id: str, request: SearchRequest) -> list[Hits] | None:
        """As ``Database.run_search_at_once``."""
        self._check_open()
        return self._lookup.search_at_once(name, collection_id, request)

    def collections(self) -> Sequence[str]:
        """The names of all collections, sorted."""
        self._check_open()
        return sorted(self._catalogue.entries)

    @in_order
    def drop_collection(self, name: str) -> None:
        """Remove the collection and its files. Running searches finish; later calls get NotFound."""
        check_name(name, "collection")
        self._check_open()
        with self._changing:
            self._check_open()
            collection_id = self._lookup.entry(name).collection_id
            self._resources.reserve.spent_on(lambda: self._catalogue.remove(name), Events(name).report)
            self._drops += 1
        # The name is free by now: whoever takes it gets another directory.
        try:
            self._open.close_dropped(collection_id)
        finally:
            try:
                self._collections.remove_child(collection_id)
            finally:
                with self._drop_ended:
                    self._drops -= 1
                    self._drop_ended.notify_all()

    def backup(
        self, target: Target, *, since: str | Path | None = None, progress: Progress | None = None
    ) -> BackupReport:
        """As ``Database.backup``."""
        self._check_open()
        fs = self._collections.fs
        pieces = self.run_backup(b"" if since is None else read_manifest_bytes(since, fs))
        output = output_to(target, fs)
        if isinstance(output, FileOutput) and output.path.is_relative_to(fs.resolved(self.path)):
            output.abandon()
            raise InvalidArgument(
                f"{output.path} is inside the database; write backups elsewhere", field="target", value=output.path
            )
        return report_of(*write_pieces(pieces, output, progress))

    def run_backup(self, since_manifest: bytes) -> Pieces:
        """As ``Database.run_backup``."""
        self._check_open()
        entries = sorted(self._catalogue.entries.values(), key=lambda each: each.name)
        sources = ((entry, self._frozen(entry)) for entry in entries)
        return backup_pieces(self.database_id, sources, since_manifest)

    @contextmanager
    def _frozen(self, entry: CatalogueEntry) -> Iterator[FrozenCollection]:
        with self._lease(entry.name, entry.collection_id) as opened, opened.frozen() as frozen:
            yield frozen

    @in_order
    def close(self) -> None:
        """Finish accepted writes, stop background work, release the directory. Closing twice is fine."""
        # Ahead of every lock: one that a thread of the parent held when it forked is held for ever in the child.
        require_own_process(self.path, self._lock.holder.pid)
        with self._closing:
            with self._changing:
                if self._closed:
                    return
                self._closed = True
            with ExitStack() as closing:
                # Last in, first out; each is done, whatever becomes of the others.
                closing.callback(self._lock.release)
                closing.callback(self._catalogue.close)
                closing.callback(self._threads.shut_down)
                closing.callback(self._resources.budget.close)
                closing.callback(self._wait_for_drops)
                closing.callback(self._open.close_all)

    def _wait_for_drops(self) -> None:
        """Once the lock is released, the directories may be another process's."""
        with self._drop_ended:
            self._drop_ended.wait_for(lambda: not self._drops)

    def _lease(self, name: str, collection_id: str) -> Lease[OpenCollection]:
        self._check_open()
        return self._lookup.lease(name, collection_id)

    def _open_collection(self, collection_id: str) -> OpenCollection:
        with _telling_remedy(self._root):
            directory = self._collections.child(collection_id, create=False)
            state = open_collection_state(directory, collection_id, self._options, self.kernels, self._resources)
            opened = OpenCollection(state, self._threads)
            opened.start()
        return opened

    def _check_open(self) -> None:
        if self._closed:
            raise FailedPrecondition("the database is closed", field="database")
        self._lock.check()

    def _remove_unnamed(self) -> None:
        """Remove the directories of collections whose creation or drop was interrupted."""
        named = {entry.collection_id for entry in self._catalogue.entries.values()}
        for collection_id in self._collections.children():
            if collection_id not in named:
                self._collections.remove_child(collection_id)


@contextmanager
def _telling_remedy(root: MmapDirectory) -> Iterator[None]:
    """Let Corruption in the block say what to do: whoever opens a database is told, and need not read on."""
    try:
        yield
    except Corruption as error:
        raise Corruption(
            f"{error.message}; `vecdb check {root.path}` tells what is damaged, `vecdb repair {root.path}` mends it",
            field=error.field,
            limit=error.limit,
            value=error.value,
        ) from error
