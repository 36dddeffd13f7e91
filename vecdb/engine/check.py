"""Reads every byte of a database and says what is wrong, without changing anything.

A check owns the directory while it runs. It goes on after a problem, so that one damaged file does not hide another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from google.protobuf.message import DecodeError

from vecdb.bitmap import LiveRows
from vecdb.engine.catalogue import CATALOGUE_MIRROR, Catalogue
from vecdb.engine.database import CATALOGUE, COLLECTIONS, LOCK, choose_kernels
from vecdb.engine.log_record import AppliedRequest, decode_record
from vecdb.engine.manifest import LIVE_PREFIX, Manifest, read_live_rows
from vecdb.engine.marker import MARKER, read_marker
from vecdb.engine.recovery import METADATA_FILES, read_manifest
from vecdb.engine.state import LOG, MIRROR
from vecdb.errors import Corruption, FailedPrecondition, VecdbError
from vecdb.payload import decode_payload
from vecdb.schema import CollectionSchema
from vecdb.segment.ids import Packed, hash_keys, id_of
from vecdb.segment.layout import Role, SegmentEntry
from vecdb.segment.reader import SegmentReader
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem
from vecdb.storage.lmdb_store import check_environment
from vecdb.storage.lock import DirectoryLock
from vecdb.storage.mirror import read_mirror
from vecdb.storage.reserve import RESERVE_NAME
from vecdb.storage.wal import Log
from vecdb.types import U64Array

Progress: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes
    ----------
    file
        The file, or what else it is about.
    message
        What is wrong, with the offset where one is known.
    """

    file: str
    message: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found.

    Attributes
    ----------
    files, size_bytes
        What was read.
    points
        Live points in segments; those that are only in the log come on top.
    """

    problems: tuple[Problem, ...]
    collections: int
    files: int
    size_bytes: int
    points: int

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


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
    checker = _Checker(root, progress or (lambda _: None))
    lock = DirectoryLock.acquire(MmapDirectory.open(Path(path), file_system, create=False))
    try:
        checker.check()
    finally:
        lock.release()
    return checker.report()


class _Checker:
    def __init__(self, root: MmapDirectory, progress: Progress) -> None:
        self._root = root
        self._progress = progress
        self._problems: list[Problem] = []
        self._collections = 0
        self._files = 0
        self._points = 0
        self._kernels = choose_kernels("reference")

    def report(self) -> CheckReport:
        return CheckReport(
            tuple(self._problems), self._collections, self._files, self._root.tree_size_bytes(), self._points
        )

    @contextmanager
    def _problem(self, name: str) -> Iterator[None]:
        """Note what goes wrong inside and go on."""
        self._progress(name)
        try:
            yield
        except VecdbError as error:
            self._problems.append(Problem(error.field or name, error.message))

    def _wrong(self, name: str, message: str) -> None:
        self._problems.append(Problem(name, message))

    def check(self) -> None:
        with self._problem(MARKER):
            self._files += 1
            read_marker(self._root)
        entries: dict[str, str] = {}
        with self._problem(CATALOGUE):
            self._files += 2
            directory = self._root.child(CATALOGUE, create=False)
            mirror = read_mirror(directory, CATALOGUE_MIRROR)
            check_environment(directory, None if mirror is None else mirror.fingerprint)
            catalogue = Catalogue.open(directory, create=False)
            entries = {name: entry.collection_id for name, entry in catalogue.entries.items()}
            catalogue.close()
            self._unknown(directory, {"data.mdb", CATALOGUE_MIRROR})
        with self._problem(COLLECTIONS):
            collections = self._root.child(COLLECTIONS, create=False)
            for name in sorted(entries):
                self._check_collection(collections, name, entries[name])
            for stray in set(collections.children()) - set(entries.values()):
                self._wrong(f"{COLLECTIONS}/{stray}", "no collection has this directory")
        self._unknown(self._root, {MARKER, LOCK, RESERVE_NAME})

    def _unknown(self, directory: MmapDirectory, known: set[str]) -> None:
        for name in set(directory.names()) - known:
            self._wrong(str(directory.path / name), "nothing names this file")

    def _check_collection(self, collections: MmapDirectory, name: str, collection_id: str) -> None:
        self._collections += 1
        with self._problem(name):
            directory = collections.child(collection_id, create=False)
            mirror = read_mirror(directory, MIRROR)
            check_environment(directory, None if mirror is None else mirror.fingerprint)
            self._files += 2
            metadata, manifest = read_manifest(directory, collection_id)
            try:
                live_chunks = dict(metadata.items(LIVE_PREFIX))
            finally:
                metadata.close()
            if manifest.collection != name:
                self._wrong(str(directory.path), f"the catalogue says {name!r}, the manifest {manifest.collection!r}")
            live_hashes: list[U64Array] = []
            for entry in manifest.segments:
                with self._problem(f"{name}, segment {entry.segment_id}"):
                    live = read_live_rows(entry, live_chunks, f"{directory.path}/data.mdb")
                    self._points += live.count()
                    self._check_segment(directory, entry, manifest, live, live_hashes)
            hashes = np.concatenate([np.zeros(0, np.uint64), *live_hashes])
            if np.unique(hashes).shape[0] != hashes.shape[0]:
                self._wrong(name, "some id has more than one live row")
            self._check_log(directory, name, manifest)
            self._unknown(directory, manifest.file_names() | METADATA_FILES)

    def _check_segment(
        self,
        directory: MmapDirectory,
        entry: SegmentEntry,
        manifest: Manifest,
        live: LiveRows,
        live_hashes: list[U64Array],
    ) -> None:
        reader = SegmentReader(directory, entry, manifest.schema, self._kernels)
        whole = True
        for file in entry.files:
            self._files += 1
            before = len(self._problems)
            with self._problem(file.ref.name):
                reader.verify(file)
            whole = whole and len(self._problems) == before
        if whole and entry.rows:
            with self._problem(f"segment {entry.segment_id}"):
                self._cross_check(reader, entry, manifest, live)
                live_hashes.append(reader.hashes[live.bitmap().contains(reader.hash_rows)])
        if whole and entry.file(Role.JOURNAL) is not None:
            with self._problem(f"segment {entry.segment_id}, journal"):
                _check_journal(reader)

    def _cross_check(self, reader: SegmentReader, entry: SegmentEntry, manifest: Manifest, live: LiveRows) -> None:
        """What checksums cannot see: whether the files of a segment fit each other."""
        name = f"segment {entry.segment_id}"
        keys = list(reader.keys[:])
        for key in keys:
            id_of(key)
        if len(set(keys)) != entry.rows:
            self._wrong(name, f"{entry.rows} rows have {len(set(keys))} ids")
        hashes = hash_keys(keys, manifest.hash_key)
        if (
            not np.array_equal(hashes[reader.hash_rows], reader.hashes)
            or (np.diff(reader.hashes.astype(object)) < 0).any()
        ):
            self._wrong(name, "the id index does not fit the ids")
        seqs = reader.seqs
        if seqs.min() < entry.seq_first or seqs.max() > entry.seq_last:
            self._wrong(name, f"rows have seqs {seqs.min()}..{seqs.max()}, not {entry.seq_first}..{entry.seq_last}")
        for payload in reader.payloads[:]:
            decode_payload(payload)
        if live.size != entry.rows:
            self._wrong(name, f"live rows are of {live.size} rows, not {entry.rows}")
        self._check_fields(reader, entry, manifest.schema)

    def _check_fields(self, reader: SegmentReader, entry: SegmentEntry, schema: CollectionSchema) -> None:
        for declared in schema.vectors:
            field = reader.field(declared.name)
            name = f"segment {entry.segment_id}, field {declared.name!r}"
            slot_rows = field.vectors.slot_rows
            if slot_rows is not None and (
                (np.diff(slot_rows.astype(np.int64)) <= 0).any() or (slot_rows >= entry.rows).any()
            ):
                self._wrong(name, "slots do not ascend through the rows")
            if not np.isfinite(field.vectors.vectors).all():
                self._wrong(name, "some vector is not finite")
            if field.codes.rows != field.slots:
                self._wrong(name, f"{field.codes.rows} codes for {field.slots} vectors")
            if entry.file(Role.GRAPH, declared.name) is not None:
                for message in field.graph.check():
                    self._wrong(name, message)

    def _check_log(self, directory: MmapDirectory, name: str, manifest: Manifest) -> None:
        log_directory = directory.child(LOG, create=False)
        self._files += len(log_directory.names())
        with self._problem(f"{name}, log"):
            log = Log(log_directory)
            log.check(manifest.flushed_seq)
            for seq, data in log.replay(manifest.flushed_seq):
                decode_record(seq, data)


def _check_journal(reader: SegmentReader) -> None:
    """Decode what a journal holds; raises Corruption where it cannot be."""
    offsets = reader.array(Role.JOURNAL, "key_offsets")
    packed = Packed(offsets, reader.array(Role.JOURNAL, "keys"))
    for number in range(offsets.shape[0] - 1):
        id_of(packed[number])
    offsets = reader.array(Role.JOURNAL, "request_offsets")
    packed = Packed(offsets, reader.array(Role.JOURNAL, "requests"))
    for number in range(offsets.shape[0] - 1):
        try:
            AppliedRequest.decode(packed[number])
        except DecodeError as error:
            raise Corruption(f"request {number} of the journal cannot be read: {error}", field="journal") from error
