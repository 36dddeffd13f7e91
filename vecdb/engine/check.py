"""Reads every byte of a database and says what is wrong, without changing anything.

A check owns the directory while it runs. It goes on after a problem, so that one damaged file does not hide another.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vecdb.engine.catalogue import CATALOGUE_MIRROR, Catalogue
from vecdb.engine.check_collection import CollectionCheck
from vecdb.engine.database import choose_kernels
from vecdb.engine.graph_digest import GraphDigest
from vecdb.engine.marker import MARKER, read_marker
from vecdb.engine.problem import Kind, Notes, Problem, Progress
from vecdb.engine.quarantine import QUARANTINE, REPAIRING
from vecdb.engine.root import CATALOGUE, COLLECTIONS
from vecdb.errors import FailedPrecondition
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.environment import DATA_NAME
from vecdb.storage.io import FileSystem
from vecdb.storage.lmdb_check import check_environment
from vecdb.storage.lock import LOCK_NAME, DirectoryLock
from vecdb.storage.mirror import read_mirror
from vecdb.storage.reserve import RESERVE_NAME

__all__ = ["CheckReport", "Kind", "Problem", "check_database"]


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found.

    Attributes
    ----------
    files, size_bytes
        What was read.
    points
        Live points in segments; those that are only in the log come on top.
    graphs
        The graphs of segments that are whole, by collection and segment.
    """

    problems: tuple[Problem, ...]
    collections: int
    files: int
    size_bytes: int
    points: int
    graphs: tuple[GraphDigest, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def as_object(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "ok": self.ok,
            "problems": [each.as_object() for each in self.problems],
            "collections": self.collections,
            "files": self.files,
            "size_bytes": self.size_bytes,
            "points": self.points,
            "graphs": [asdict(each) for each in self.graphs],
        }


def check_database(path: str | Path, *, progress: Progress | None = None) -> CheckReport:
    """Check a database that no process has open.

    Parameters
    ----------
    progress
        Called with the name of each file before it is read.

    Raises
    ------
    NotFound
        There is no such directory.
    FailedPrecondition
        Another process holds it, or it is not a vecdb database.
    """
    file_system = FileSystem()
    root = MmapDirectory.open(Path(path), file_system, create=False, read_only=True)
    # A database that lost its marker is damaged; a directory with nothing of one is somebody else's.
    if not root.exists(MARKER) and COLLECTIONS not in root.children():
        raise FailedPrecondition(
            f"{root.path} is not a vecdb database", field="path", limit="a vecdb database", value=root.path
        )
    checker = _Checker(root, Notes(progress or (lambda _: None)))
    lock = DirectoryLock.acquire(MmapDirectory.open(Path(path), file_system, create=False))
    try:
        checker.check()
    finally:
        lock.release()
    return checker.report()


class _Checker:
    def __init__(self, root: MmapDirectory, notes: Notes) -> None:
        self._root = root
        self._notes = notes
        self._collections = 0
        self._kernels = choose_kernels("reference")

    def report(self) -> CheckReport:
        notes = self._notes
        size_bytes = self._root.tree_size_bytes()
        if QUARANTINE in self._root.children():
            size_bytes -= self._root.child(QUARANTINE, create=False).tree_size_bytes()
        if self._root.exists(RESERVE_NAME):
            # Nothing is in it.
            size_bytes -= self._root.fs.size_of(self._root.path_of(RESERVE_NAME)) or 0
        return CheckReport(
            tuple(notes.problems), self._collections, notes.files, size_bytes, notes.points, tuple(notes.graphs)
        )

    def check(self) -> None:
        notes, root = self._notes, self._root
        with notes.reading(MARKER, files=1):
            read_marker(root)
        if root.exists(REPAIRING):
            notes.wrong(REPAIRING, "a repair was interrupted: run `vecdb repair` again", Kind.UNFINISHED)
        named = self._check_catalogue()
        with notes.reading(COLLECTIONS):
            collections = root.child(COLLECTIONS, create=False)
            present = collections.children()
            # Without a catalogue every directory is taken for a collection.
            wanted = dict.fromkeys(present, "") if named is None else named
            for collection_id, name in sorted(wanted.items(), key=lambda each: (each[1], each[0])):
                self._collections += 1
                CollectionCheck(notes, collections, collection_id, name, self._kernels).run()
            for stray in sorted(set(present) - wanted.keys()):
                notes.wrong(f"{COLLECTIONS}/{stray}", "no collection has this directory", Kind.STRAY)
            for stray in collections.names():
                notes.wrong(f"{COLLECTIONS}/{stray}", "nothing names this file", Kind.STRAY)
        for stray in sorted(set(root.names()) - {MARKER, LOCK_NAME, REPAIRING, RESERVE_NAME}):
            notes.wrong(str(root.path / stray), "nothing names this file", Kind.STRAY)
        for stray in sorted(set(root.children()) - {CATALOGUE, COLLECTIONS, QUARANTINE}):
            notes.wrong(str(root.path / stray), "nothing names this directory", Kind.STRAY)

    def _check_catalogue(self) -> dict[str, str] | None:
        """The names of collections by id; ``None`` where the catalogue does not tell."""
        notes = self._notes
        named: dict[str, str] | None = None
        fingerprint = None
        with notes.reading(CATALOGUE, files=1):
            directory = self._root.child(CATALOGUE, create=False)
            with notes.reading(f"{CATALOGUE}/{CATALOGUE_MIRROR}", files=1):
                mirror = read_mirror(directory, CATALOGUE_MIRROR)
                fingerprint = None if mirror is None else mirror.fingerprint
            check_environment(directory, fingerprint)
            catalogue = Catalogue.open(directory, create=False)
            named = {entry.collection_id: entry.name for entry in catalogue.entries.values()}
            catalogue.close()
            for stray in set(directory.names()) - {DATA_NAME, CATALOGUE_MIRROR}:
                notes.wrong(str(directory.path / stray), "nothing names this file", Kind.STRAY)
            for stray in directory.children():
                notes.wrong(str(directory.path / stray), "nothing names this directory", Kind.STRAY)
        return named
