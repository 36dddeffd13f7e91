"""The check of one collection: its metadata, its segments, its snapshots and its log, each against the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from google.protobuf.message import DecodeError

from vecdb.bitmap import LiveRows
from vecdb.engine.fitting import misfits
from vecdb.engine.graph_digest import GraphDigest, content_digest
from vecdb.engine.liveness import History, live_rows, row_hashes
from vecdb.engine.log_record import AppliedRequest, decode_record
from vecdb.engine.manifest import LIVE_PREFIX, MANIFEST_KEY, REQUEST_PREFIX, Manifest, read_live_rows
from vecdb.engine.problem import Kind, Notes
from vecdb.engine.recovery import METADATA_FILES
from vecdb.engine.snapshot_file import read_live
from vecdb.engine.state import LOG, MIRROR
from vecdb.errors import Corruption, VecdbError
from vecdb.kernels.protocol import Kernels
from vecdb.payload import decode_payload
from vecdb.requests import check_against_schema
from vecdb.schema import CollectionSchema
from vecdb.segment.ids import id_of
from vecdb.segment.journal import deletes_of, requests_of
from vecdb.segment.layout import Role, SegmentEntry
from vecdb.segment.reader import SegmentReader
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.environment import DATA_NAME, Fingerprint
from vecdb.storage.lmdb_check import check_environment
from vecdb.storage.lmdb_store import LmdbStore
from vecdb.storage.log_format import LogName
from vecdb.storage.mirror import read_mirror
from vecdb.storage.wal import Log


class CollectionCheck:
    """One collection, by its id.

    Parameters
    ----------
    name
        What the catalogue calls it; empty where there is none.
    """

    def __init__(
        self, notes: Notes, collections: MmapDirectory, collection_id: str, name: str, kernels: Kernels
    ) -> None:
        self._notes = notes
        self._collections = collections
        self._collection_id = collection_id
        self._name = name
        self._called = name or collection_id
        self._kernels = kernels
        self._histories: dict[frozenset[str], History | None] = {}

    def run(self) -> None:
        """Check all of it."""
        notes = self._notes
        with notes.reading(self._called):
            directory = self._collections.child(self._collection_id, create=False)
            manifest, live = self._metadata(directory)
            if manifest is None:
                return
            if self._name and manifest.collection != self._name:
                notes.wrong(
                    str(directory.path), f"the catalogue says {self._name!r}, the manifest {manifest.collection!r}"
                )
            for entry in manifest.segments:
                self._segment(directory, entry, manifest)
            self._liveness(directory, manifest, live)
            for snapshot in manifest.snapshots:
                for entry in snapshot.segments:
                    self._segment(directory, entry, manifest)
                where = f"{self._called}, snapshot {snapshot.name!r}"
                with notes.reading(where, files=1):
                    held = read_live(directory, snapshot.live, snapshot.segments)
                    self._compare(where, manifest, snapshot.segments, held, snapshot.seq)
            self._log(directory, manifest)
            self._strays(directory, manifest)

    def _metadata(self, directory: MmapDirectory) -> tuple[Manifest | None, dict[int, LiveRows] | None]:
        """The manifest and the live rows: as the environment has them, or else the mirror, which has no live rows."""
        notes = self._notes
        mirror = mirrored = None
        with notes.reading(f"{self._called}, {MIRROR}", files=1):
            mirror = read_mirror(directory, MIRROR)
            if mirror is None:
                raise Corruption(f"{directory.path_of(MIRROR)} is missing", field=str(directory.path_of(MIRROR)))
            mirrored = self._manifest(mirror.payload, str(directory.path_of(MIRROR)))
        read: list[tuple[Manifest, dict[int, LiveRows]]] = []
        with notes.reading(f"{self._called}, {DATA_NAME}", files=1):
            read.append(self._environment(directory, None if mirror is None else mirror.fingerprint))
        return read[0] if read else (mirrored, None)

    def _environment(
        self, directory: MmapDirectory, expected: Fingerprint | None
    ) -> tuple[Manifest, dict[int, LiveRows]]:
        where = str(directory.path_of(DATA_NAME))
        check_environment(directory, expected)
        store = LmdbStore.open(directory, expected=expected)
        try:
            values = dict(store.items())
        finally:
            store.close()
        manifest = self._manifest(values.get(MANIFEST_KEY, b""), where)
        chunks = {key: value for key, value in values.items() if key.startswith(LIVE_PREFIX)}
        for key, value in values.items():
            if key.startswith(REQUEST_PREFIX):
                _decode_request(value, where)
        return manifest, {entry.segment_id: read_live_rows(entry, chunks, where) for entry in manifest.segments}

    def _manifest(self, encoded: bytes, where: str) -> Manifest:
        if not encoded:
            raise Corruption(f"{where}: the metadata holds no manifest", field=where)
        manifest = Manifest.decode(encoded, where)
        if manifest.collection_id != self._collection_id:
            raise Corruption(
                f"{where} belongs to collection {manifest.collection_id}", field=where, value=manifest.collection_id
            )
        return manifest

    def _segment(self, directory: MmapDirectory, entry: SegmentEntry, manifest: Manifest) -> None:
        """Verify the files of a segment, and then what they say against each other."""
        key = frozenset(entry.file_names())
        if key in self._histories:
            return
        self._histories[key] = None
        notes = self._notes
        name = f"{self._called}, segment {entry.segment_id}"
        reader = SegmentReader(directory, entry, manifest.schema, self._kernels)
        before = len(notes.problems)
        for file in entry.files:
            with notes.reading(file.ref.name, files=1):
                reader.files.verify(file)
        if len(notes.problems) > before:
            return
        with notes.reading(name):
            if entry.rows:
                self._rows(name, reader, entry, manifest)
            self._histories[key] = _history(reader, entry)

    def _rows(self, name: str, reader: SegmentReader, entry: SegmentEntry, manifest: Manifest) -> None:
        """What checksums cannot see: whether the files of a segment fit each other."""
        notes = self._notes
        keys = list(reader.keys[:])
        for key in keys:
            id_of(key)
        seqs = reader.seqs
        if len(set(keys)) != entry.rows:
            notes.wrong(name, f"{entry.rows} rows have {len(set(keys))} ids")
        if seqs.min() < entry.seq_first or seqs.max() > entry.seq_last:
            notes.wrong(name, f"rows have seqs {seqs.min()}..{seqs.max()}, not {entry.seq_first}..{entry.seq_last}")
        if entry.seq_last > manifest.flushed_seq:
            notes.wrong(name, f"it holds the write {entry.seq_last}, though only {manifest.flushed_seq} are flushed")
        for payload in reader.payloads[:]:
            decode_payload(payload)
        for role, field, message in misfits(reader, entry, manifest.hash_key, self._kernels):
            file = entry.file(role, field)
            notes.wrong(name if file is None else file.ref.name, f"{name}: {message}")
        for declared in manifest.schema.vectors:
            if entry.file(Role.GRAPH, declared.name) is not None:
                arrays = reader.files.array_file(Role.GRAPH, declared.name).arrays
                rows, digest = reader.field(declared.name).slots, content_digest(arrays)
                notes.graphs.append(GraphDigest(self._called, entry.segment_id, declared.name, rows, digest))
        self._vectors(name, reader, entry, manifest.schema)

    def _vectors(self, name: str, reader: SegmentReader, entry: SegmentEntry, schema: CollectionSchema) -> None:
        for declared in schema.vectors:
            field = reader.field(declared.name)
            place = f"{name}, field {declared.name!r}"
            slot_rows = field.vectors.slot_rows
            if slot_rows is not None and (
                (np.diff(slot_rows.astype(np.int64)) <= 0).any() or (slot_rows >= entry.rows).any()
            ):
                self._notes.wrong(place, "slots do not ascend through the rows")
            if not np.isfinite(field.vectors.vectors).all():
                self._notes.wrong(place, "some vector is not finite")

    def _liveness(self, directory: MmapDirectory, manifest: Manifest, live: Mapping[int, LiveRows] | None) -> None:
        if live is None:
            return
        self._notes.points += sum(rows.count() for rows in live.values())
        where = f"{directory.path}/{DATA_NAME}"
        with self._notes.reading(where):
            self._compare(where, manifest, manifest.segments, live, manifest.flushed_seq)

    def _compare(
        self,
        where: str,
        manifest: Manifest,
        segments: Sequence[SegmentEntry],
        live: Mapping[int, LiveRows],
        seq: int,
    ) -> None:
        """Whether the live rows are those that the seqs of rows and the deletes in journals make live.

        That includes that no id has two of them. Where a segment is damaged it cannot be told.
        """
        histories = [self._histories.get(frozenset(entry.file_names())) for entry in segments]
        whole = [each for each in histories if each is not None]
        if len(whole) < len(histories):
            return
        told = live_rows(whole, manifest.hash_key, seq)
        for history in whole:
            expected, found = told[history.segment_id].bitmap(), live[history.segment_id].bitmap()
            for rows, what in ((found - expected, "live"), (expected - found, "dead")):
                if rows.count():
                    first = id_of(history.key_at(int(rows.rows()[0])))
                    self._notes.wrong(
                        where,
                        f"{rows.count()} rows of segment {history.segment_id} are {what}, "
                        f"which their ids' writes and deletes contradict; the first is {first!r}",
                    )

    def _log(self, directory: MmapDirectory, manifest: Manifest) -> None:
        notes = self._notes
        with notes.reading(f"{self._called}, log"):
            if LOG not in directory.children():
                raise Corruption(f"{directory.path / LOG} is missing", field=str(directory.path / LOG))
            log_directory = directory.child(LOG, create=False)
            notes.files += len(log_directory.names())
            for stray in [*log_directory.names(), *log_directory.children()]:
                if LogName.parse(stray) is None:
                    notes.wrong(str(log_directory.path / stray), "it is no file of a log", Kind.STRAY)
            log = Log(log_directory)
            log.check(manifest.flushed_seq)
            for seq, data in log.replay(manifest.flushed_seq):
                for upsert in decode_record(seq, data).upserts:
                    try:
                        check_against_schema(upsert, manifest.schema)
                    except VecdbError as error:
                        raise Corruption(f"log record {seq} does not fit the schema: {error}") from error

    def _strays(self, directory: MmapDirectory, manifest: Manifest) -> None:
        for stray in sorted(set(directory.names()) - manifest.file_names() - METADATA_FILES):
            self._notes.wrong(str(directory.path / stray), "nothing names this file", Kind.STRAY)
        for stray in sorted(set(directory.children()) - {LOG}):
            self._notes.wrong(str(directory.path / stray), "nothing names this directory", Kind.STRAY)


def _history(reader: SegmentReader, entry: SegmentEntry) -> History:
    """What a segment whose files are whole tells of its ids; its journal is read on the way."""
    deletes = deletes_of(reader)
    for key in deletes.keys:
        id_of(key)
    if deletes.seqs.shape != (len(deletes.keys),):
        told = f"the journal has {len(deletes.keys)} deletes and {deletes.seqs.shape[0]} seqs"
        raise Corruption(told, field="journal")
    for encoded in requests_of(reader):
        _decode_request(encoded, "journal")
    rows = np.arange(entry.rows)
    none = np.zeros(0, np.uint64)
    hashes = row_hashes(reader.keys.hashes, reader.keys.hash_rows, entry.rows) if entry.rows else none
    return History(
        entry.segment_id,
        entry.rows,
        rows,
        hashes,
        reader.seqs if entry.rows else none,
        reader.keys.__getitem__,
        deletes.keys,
        deletes.seqs,
    )


def _decode_request(encoded: bytes, where: str) -> None:
    try:
        AppliedRequest.decode(encoded)
    except DecodeError as error:
        raise Corruption(f"{where}: a request cannot be read: {error}", field=where) from error
