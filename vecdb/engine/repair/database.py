"""The repair of a database: first a plan, from reading everything; then, if its owner agrees, what was planned.

The directory is locked from the plan to the end, so that the plan stays true. Nothing is deleted, and nothing is
changed before the plan is carried out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeAlias

from vecdb.engine.database import choose_kernels
from vecdb.engine.marker import MARKER, read_marker, write_marker
from vecdb.engine.quarantine import Quarantine
from vecdb.engine.repair.catalogue import CatalogueRepair
from vecdb.engine.repair.collection import CollectionRepair
from vecdb.engine.repair.report import Action, Loss, RepairReport
from vecdb.engine.root import CATALOGUE, COLLECTIONS
from vecdb.errors import Corruption, FailedPrecondition
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem
from vecdb.storage.lock import DirectoryLock

Progress: TypeAlias = Callable[[str], None]


def repair_database(
    path: str | Path, *, file_system: FileSystem | None = None, progress: Progress | None = None
) -> RepairReport:
    """Repair a database that no process has open, without asking; what was done, and what is lost.

    Raises
    ------
    NotFound
        There is no such directory.
    FailedPrecondition
        Another process holds it, it is not a vecdb database, or it is of another format version.
    """
    with DatabaseRepair.plan(path, file_system=file_system, progress=progress) as repair:
        repair.carry_out()
        return repair.report


class DatabaseRepair:
    """A planned repair, which holds the directory's lock; a context manager.

    Attributes
    ----------
    report
        What will be done, and what is lost.
    """

    def __init__(self, root: MmapDirectory, lock: DirectoryLock, progress: Progress) -> None:
        self._root = root
        self._lock = lock
        self._progress = progress
        self._quarantine = Quarantine(root)
        self._marker_lost = ""
        self._collections: list[CollectionRepair] = []
        self._catalogue = CatalogueRepair(root, CATALOGUE)
        self.report = self._plan()

    @classmethod
    def plan(cls, path: str | Path, *, file_system: FileSystem | None = None, progress: Progress | None = None) -> Self:
        """Lock the directory and find out what is to be done; raises as ``repair_database`` does."""
        root = MmapDirectory.open(Path(path), file_system or FileSystem(), create=False)
        if not root.exists(MARKER) and COLLECTIONS not in root.children():
            raise FailedPrecondition(
                f"{root.path} is not a vecdb database", field="path", limit="a vecdb database", value=root.path
            )
        lock = DirectoryLock.acquire(root)
        try:
            return cls(root, lock, progress or (lambda _: None))
        except BaseException:
            lock.release()
            raise

    def carry_out(self) -> None:
        """Do what the report says; interrupted, it can be planned and carried out again."""
        if not self.report.needed:
            return
        self._quarantine.begin(self.report.as_object())
        for collection in self._collections:
            self._progress(collection.name)
            collection.carry_out(self._quarantine)
        self._progress(CATALOGUE)
        self._root.child(COLLECTIONS, create=True)
        self._catalogue.carry_out(self._quarantine)
        if self._marker_lost:
            self._root.move(MARKER, self._quarantine.directory())
            # Last: a directory with a marker has a whole catalogue.
            write_marker(self._root)
        self._quarantine.end()

    def close(self) -> None:
        """Let the directory go."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _plan(self) -> RepairReport:
        actions: list[Action] = []
        losses: list[Loss] = []
        self._progress(MARKER)
        try:
            read_marker(self._root)
        except Corruption as error:
            self._marker_lost = error.message
            actions.append(Action(MARKER, error.message, "quarantine; written again, with a new database id"))
            losses.append(Loss("", "identity", "the database id and the time of creation"))
        if self._quarantine.resumed:
            actions.append(Action(str(self._quarantine.place), "a repair was interrupted", "carried to its end"))
        kernels = choose_kernels("reference")
        entries = self._catalogue.entries
        present = COLLECTIONS in self._root.children()
        collections = MmapDirectory(self._root.path / COLLECTIONS, self._root.fs)
        wanted = {entry.collection_id: entry.name for entry in (entries or {}).values()}
        if entries is None and present:
            wanted = dict.fromkeys(collections.children(), "")
        if not present:
            actions.append(Action(COLLECTIONS, f"{collections.path} is missing", "made again, empty"))
        for collection_id, name in sorted(wanted.items(), key=lambda each: (each[1], each[0])):
            self._progress(name or collection_id)
            self._collections.append(
                CollectionRepair(collections, collection_id, name, kernels, resumed=self._quarantine.resumed)
            )
        self._complete_catalogue()
        for collection in self._collections:
            actions += collection.actions
            losses += collection.losses
            if collection.hopeless:
                self._catalogue.remove(collection.collection_id)
        actions += self._catalogue.actions
        return RepairReport(tuple(actions), tuple(losses), self._quarantine.place if actions else "")

    def _complete_catalogue(self) -> None:
        """Name the collections that are there, where nothing else does; of two of one name the larger history stays."""
        found: dict[str, CollectionRepair] = {}
        for collection in self._collections:
            manifest = collection.manifest
            if manifest is None:
                continue
            rival = found.get(collection.name)
            if rival is not None and self._catalogue.entries is None:
                loser = min(rival, collection, key=_history_length)
                loser.give_up(f"another collection is called {collection.name!r} too, and this one has fewer writes")
                found[collection.name] = max(rival, collection, key=_history_length)
            else:
                found[collection.name] = collection
        self._catalogue.complete(((name, each.collection_id) for name, each in found.items()), time.time_ns() // 1000)


def _history_length(collection: CollectionRepair) -> tuple[int, str]:
    manifest = collection.manifest
    return (0 if manifest is None else manifest.flushed_seq, collection.collection_id)
