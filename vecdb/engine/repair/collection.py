"""The repair of one collection: what is wrong with it, what will be done, and doing it.

Metadata comes from the environment where that is whole, else from the mirror; live rows then come from the rows and
deletes in the segments. New files are written first, then one commit names them, then what nothing names any more goes
to the quarantine: a repair that is interrupted anywhere and begun again comes to the same end.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from google.protobuf.message import DecodeError

from vecdb.bitmap import LiveRows
from vecdb.engine.applied import KEPT_REQUESTS_MAX, KEPT_US
from vecdb.engine.liveness import History, live_rows
from vecdb.engine.log_record import AppliedRequest, decode_record
from vecdb.engine.manifest import (
    MANIFEST_KEY,
    Manifest,
    SnapshotEntry,
    changed_live_chunks,
    live_keys,
    request_key,
)
from vecdb.engine.quarantine import Quarantine
from vecdb.engine.recovery import METADATA_FILES
from vecdb.engine.repair.metadata import Metadata, find_metadata
from vecdb.engine.repair.remains import SegmentRemains
from vecdb.engine.repair.report import Action, Loss
from vecdb.engine.repair.rewrite import Journal, Rewrite
from vecdb.engine.snapshot_file import read_live, write_live
from vecdb.engine.state import LOG, MIRROR
from vecdb.errors import Corruption
from vecdb.kernels.protocol import Kernels
from vecdb.requests import check_against_schema
from vecdb.segment.ids import id_of
from vecdb.segment.layout import Role, SegmentEntry
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.environment import DATA_NAME
from vecdb.storage.lmdb_store import LmdbStore, write_environment
from vecdb.storage.log_salvage import LogCut, examine_log
from vecdb.storage.mirror import write_mirror
from vecdb.types import PointId, SegmentId

REBUILT_GENERATIONS = 1 << 20
"""A rebuilt environment is so many generations ahead, so that no copy from before the repair passes for a newer one."""

_DERIVED = frozenset({Role.CODES, Role.GRAPH})


class CollectionRepair:
    """One collection.

    Attributes
    ----------
    name
        Its name, as far as that can be known.
    hopeless
        Why nothing can be made of it: it goes to the quarantine as a whole. Empty where something can.
    """

    def __init__(
        self, collections: MmapDirectory, collection_id: str, name: str, kernels: Kernels, *, resumed: bool
    ) -> None:
        self.collection_id = collection_id
        self.name = name
        self.hopeless = ""
        self.actions: list[Action] = []
        self.losses: list[Loss] = []
        self._place = f"{collections.path.name}/{collection_id}"
        self._collections = collections
        self._kernels = kernels
        self._resumed = resumed
        self._metadata: Metadata | None = None
        self._journal_requests: list[bytes] = []
        self._rewrites: dict[frozenset[str], Rewrite] = {}
        self._live: dict[int, LiveRows] = {}
        self._snapshot_live: dict[str, Mapping[int, LiveRows] | None] = {}
        self._snapshots_rewritten: set[str] = set()
        self._log: LogCut | None = None
        self._log_missing = False
        self._diagnose()

    @property
    def manifest(self) -> Manifest | None:
        """What the collection consisted of; ``None`` where it is hopeless."""
        return None if self._metadata is None else self._metadata.manifest

    def give_up(self, reason: str) -> None:
        """Put the collection into the quarantine as a whole, instead of all else."""
        self.hopeless = reason
        self.actions = [Action(self._place, reason, "the directory goes to the quarantine")]
        self.losses = []
        self._lose("collection", f"collection {self.name!r} of the id {self.collection_id} and all in it")

    def carry_out(self, quarantine: Quarantine) -> None:
        """Do what was planned."""
        if self.hopeless:
            # Moved as a whole, and only then taken out of the catalogue: unnamed directories are removed by an open.
            if self._collections.fs.is_directory(self._collections.path_of(self.collection_id)):
                self._collections.move(self.collection_id, quarantine.directory(self._collections.path.name))
            return
        if not self.actions:
            return
        assert self._metadata is not None
        directory = self._collections.child(self.collection_id, create=False)
        kept = quarantine.directory(self._collections.path.name, self.collection_id)
        self._commit(directory, self._metadata, kept)
        for name in sorted(set(directory.names()) - self._after.file_names() - METADATA_FILES):
            directory.move(name, kept)
        if self._log_missing:
            directory.child(LOG, create=True)
        if self._log is not None:
            self._log.carry_out(
                directory.child(LOG, create=False),
                quarantine.directory(self._collections.path.name, self.collection_id, LOG),
            )

    # What is wrong.

    def _diagnose(self) -> None:
        fs = self._collections.fs
        if not fs.is_directory(self._collections.path_of(self.collection_id)):
            self.hopeless = "its directory is missing"
            self._tell(self._place, self.hopeless, "the collection is taken out of the catalogue")
            self._lose("collection", f"collection {self.name!r} and all in it")
            return
        directory = MmapDirectory(self._collections.path_of(self.collection_id), fs, read_only=True)
        self._metadata = self._find_metadata(directory)
        if self._metadata is None:
            return
        manifest = self._metadata.manifest
        self.name = manifest.collection
        self._diagnose_segments(directory, self._metadata)
        self._diagnose_log(directory, manifest)
        if self._resumed and not self.actions:
            unnamed = set(directory.names()) - manifest.file_names() - METADATA_FILES
            for name in sorted(unnamed):
                self._tell(f"{self._place}/{name}", "nothing names it since the repair was interrupted", "quarantine")

    def _find_metadata(self, directory: MmapDirectory) -> Metadata | None:
        try:
            metadata = find_metadata(directory, self.collection_id)
        except Corruption as error:
            self.hopeless = error.message
            self._tell(
                self._place,
                self.hopeless,
                "neither the metadata nor its mirror tells what the files mean: the directory goes to the quarantine",
            )
            self._lose("collection", f"collection {self.name or self.collection_id!r} and all in it")
            return None
        for name, lost, remedy in (
            (DATA_NAME, metadata.data_lost, "quarantine; rebuilt from the mirror and the segments"),
            (MIRROR, metadata.mirror_lost, "quarantine; written again from the metadata"),
        ):
            if lost:
                self._tell(f"{self._place}/{name}", lost, remedy)
        return metadata

    def _diagnose_segments(self, directory: MmapDirectory, metadata: Metadata) -> None:
        manifest = metadata.manifest
        found: dict[frozenset[str], SegmentRemains] = {}
        for entry in (*manifest.segments, *(each for kept in manifest.snapshots for each in kept.segments)):
            if _rows_of(entry) not in found:
                found[_rows_of(entry)] = SegmentRemains(
                    directory, entry, manifest.schema, manifest.hash_key, self._kernels
                )
        current = [found[_rows_of(entry)] for entry in manifest.segments]
        self._journal_requests = [encoded for remains in current for encoded in remains.requests]
        old_live = metadata.live
        if old_live is None:
            old_live = live_rows([each.history() for each in current], manifest.hash_key, manifest.flushed_seq)
        next_id = manifest.next_segment_id
        for key, remains in found.items():
            if not remains.damaged:
                continue
            live = old_live.get(remains.entry.segment_id) if remains in current else None
            rewrite = self._rewrite(remains, live, next_id, metadata)
            self._rewrites[key] = rewrite
            next_id += rewrite.replaces
            self._tell_segment(remains, rewrite)
            if remains in current:
                self._tell_lost_rows(remains, rewrite, live, metadata)
        for remains in current:
            number = remains.entry.segment_id
            each = self._rewrites.get(_rows_of(remains.entry))
            self._live[number if each is None else each.segment_id] = (
                old_live[number] if each is None else each.live(old_live[number])
            )
        if any(_rows_of(remains.entry) in self._rewrites for remains in current):
            self._add_tombstones(current, manifest)
        self._after = replace(manifest, next_segment_id=next_id)
        for snapshot in manifest.snapshots:
            self._diagnose_snapshot(directory, snapshot, found, manifest)

    def _rewrite(self, remains: SegmentRemains, live: LiveRows | None, next_id: int, metadata: Metadata) -> Rewrite:
        entry = remains.entry
        kept = np.ones(remains.rows, np.bool_)
        seqs = remains.seqs
        if remains.rows_damaged:
            kept = remains.data_whole
            if metadata.live is None:
                kept = kept & remains.seq_whole
            elif not remains.seq_whole.all():
                # A live row is the newest of its id, a dead one is not: this tells them apart as their seqs did.
                alive = np.zeros(remains.rows, np.bool_) if live is None else live.bitmap().bools()
                made_up = np.where(alive, np.uint64(entry.seq_last), np.uint64(entry.seq_first))
                seqs = np.where(remains.seq_whole, remains.seqs, made_up)
        number = entry.segment_id if kept.all() else SegmentId(next_id)
        journal: Journal | None = None
        if number != entry.segment_id or (Role.JOURNAL, "") in remains.damaged:
            requests = list(remains.requests)
            if metadata.live is not None and (Role.JOURNAL, "") in remains.damaged:
                inside = range(entry.seq_first, entry.seq_last + 1)
                requests = [each.encode() for each in metadata.requests if each.seq in inside]
            journal = Journal(remains.deleted_keys, remains.deleted_seqs, requests)
        return Rewrite(remains, number, np.flatnonzero(kept), seqs, journal)

    def _add_tombstones(self, current: Sequence[SegmentRemains], manifest: Manifest) -> None:
        """See to it that live rows rebuilt from what will be written are those that are live.

        Where rows and deletes are lost, an older row of the same id would come back otherwise.
        """
        histories: list[History] = []
        for remains in current:
            rewrite = self._rewrites.get(_rows_of(remains.entry))
            histories.append(remains.history() if rewrite is None else rewrite.history())
        again = live_rows(histories, manifest.hash_key, manifest.flushed_seq)
        back: list[bytes] = []
        for history in histories:
            wanted = self._live[history.segment_id].bitmap()
            back += [history.key_at(row) for row in (again[history.segment_id].bitmap() - wanted).rows().tolist()]
        if not back:
            return
        key, rewrite = next(
            (key, each) for key, each in self._rewrites.items() if any(_rows_of(one.entry) == key for one in current)
        )
        old = rewrite.journal
        if old is None:
            old = Journal(rewrite.remains.deleted_keys, rewrite.remains.deleted_seqs, rewrite.remains.requests)
        seqs = np.concatenate([old.seqs, np.full(len(back), manifest.flushed_seq, np.uint64)])
        self._rewrites[key] = replace(rewrite, journal=Journal([*old.keys, *back], seqs, old.requests))

    def _diagnose_snapshot(
        self,
        directory: MmapDirectory,
        snapshot: SnapshotEntry,
        found: Mapping[frozenset[str], SegmentRemains],
        manifest: Manifest,
    ) -> None:
        parts = [found[_rows_of(entry)] for entry in snapshot.segments]
        rewritten = any(_rows_of(entry) in self._rewrites for entry in snapshot.segments)
        try:
            live: Mapping[int, LiveRows] = read_live(directory, snapshot.live, snapshot.segments)
        except Corruption as error:
            rewritten = True
            self._tell(f"{self._place}/{snapshot.live.name}", error.message, "quarantine; rebuilt from the segments")
            live = live_rows([each.history() for each in parts], manifest.hash_key, snapshot.seq)
        if not rewritten:
            return
        self._snapshots_rewritten.add(snapshot.name)
        mapped: dict[int, LiveRows] = {}
        for remains in parts:
            number = remains.entry.segment_id
            rewrite = self._rewrites.get(_rows_of(remains.entry))
            if rewrite is None:
                mapped[number] = live[number]
                continue
            mapped[rewrite.segment_id] = rewrite.live(live[number])
            lost = np.ones(remains.rows, np.bool_)
            lost[rewrite.kept] = False
            lost &= live[number].bitmap().bools()
            if lost.any():
                ids, unnamed = _ids(remains, lost)
                self._lose(
                    "snapshot",
                    f"{len(ids) + unnamed} points of snapshot {snapshot.name!r}" + _unnamed(unnamed),
                    len(ids) + unnamed,
                    ids,
                )
        self._snapshot_live[snapshot.name] = mapped

    def _diagnose_log(self, directory: MmapDirectory, manifest: Manifest) -> None:
        place = f"{self._place}/{LOG}"
        if LOG not in directory.children():
            self._log_missing = True
            self._tell(place, "the log is missing", "an empty one is made")
            self._lose("writes", f"what was written after write {manifest.flushed_seq} and was only in the log")
            return

        def decode(seq: int, data: bytes) -> None:
            for upsert in decode_record(seq, data).upserts:
                check_against_schema(upsert, manifest.schema)

        # Not for reading only: what looks like a log that its owner is trimming is a damaged one here.
        log = MmapDirectory(directory.path / LOG, self._collections.fs)
        self._log = cut = examine_log(log, manifest.flushed_seq, decode)
        if cut is None:
            return
        for name, _ in cut.replaced:
            self._tell(f"{place}/{name}", cut.reason.message, f"quarantine; kept are its writes up to {cut.kept_seq}")
        for name in cut.removed:
            self._tell(f"{place}/{name}", cut.reason.message, "quarantine")
        if not cut.replaced and not cut.removed:
            self._tell(place, cut.reason.message, f"kept are the writes up to {cut.kept_seq}")
        if cut.lost_seq > cut.kept_seq:
            self._lose(
                "writes",
                f"the writes {cut.kept_seq + 1} to {cut.lost_seq}, and any later one",
                cut.lost_seq - cut.kept_seq,
            )

    # What to say of it.

    def _tell(self, file: str, reason: str, remedy: str) -> None:
        self.actions.append(Action(file, reason, remedy))

    def _lose(self, kind: str, message: str, count: int = 0, ids: tuple[PointId, ...] = ()) -> None:
        self.losses.append(Loss(self.name, kind, message, count, ids))

    def _tell_segment(self, remains: SegmentRemains, rewrite: Rewrite) -> None:
        for (role, field), reason in remains.damaged.items():
            file = remains.entry.file(role, field)
            name = f"segment {remains.entry.segment_id}" if file is None else file.ref.name
            if rewrite.replaces and role not in _DERIVED:
                remedy = f"quarantine; {rewrite.rows} of {remains.rows} rows are whole and go to a new segment"
            elif role is Role.GRAPH:
                remedy = "quarantine; built again when the collection is open"
            else:
                remedy = "quarantine; written again from what is whole"
            self._tell(f"{self._place}/{name}", reason, remedy)

    def _tell_lost_rows(
        self, remains: SegmentRemains, rewrite: Rewrite, live: LiveRows | None, metadata: Metadata
    ) -> None:
        number = remains.entry.segment_id
        lost = np.ones(remains.rows, np.bool_)
        lost[rewrite.kept] = False
        if live is not None:
            alive = live.bitmap().bools()
            if metadata.live is None:
                # Whether a row without an id was live is not known.
                alive = alive | ~remains.key_whole
            lost &= alive
        if lost.any():
            ids, unnamed = _ids(remains, lost)
            count = len(ids) + unnamed
            self._lose("points", f"{count} points of segment {number}" + _unnamed(unnamed), count, ids)
        if metadata.live is None and remains.journal_lost:
            self._lose(
                "deletes",
                f"deletes and request ids of the writes {remains.entry.seq_first} to {remains.entry.seq_last} in the "
                f"journal of segment {number}; points that they deleted may be back",
                max(0, remains.journal_lost),
            )

    # What to do about it.

    def _commit(self, directory: MmapDirectory, metadata: Metadata, kept: MmapDirectory) -> None:
        """Write new files, then the metadata that names them."""
        manifest = metadata.manifest
        if not (self._rewrites or self._snapshots_rewritten or metadata.data_lost or metadata.mirror_lost):
            return
        entries = {key: each.write(directory, self._kernels) for key, each in self._rewrites.items()}

        def segments(old: Sequence[SegmentEntry]) -> tuple[SegmentEntry, ...]:
            changed = (entries.get(_rows_of(each), each) for each in old)
            return tuple(sorted((each for each in changed if each is not None), key=lambda each: each.segment_id))

        snapshots = tuple(self._snapshot_after(directory, each, segments(each.segments)) for each in manifest.snapshots)
        after = replace(self._after, segments=segments(manifest.segments), snapshots=snapshots)
        self._after = after
        directory.sync()
        named = {each.segment_id for each in after.segments}
        live = {number: rows for number, rows in self._live.items() if number in named}
        if metadata.data_lost:
            self._write_environment(directory, metadata, live, kept)
        else:
            self._change_environment(directory, metadata, live, kept)

    def _snapshot_after(
        self, directory: MmapDirectory, snapshot: SnapshotEntry, segments: tuple[SegmentEntry, ...]
    ) -> SnapshotEntry:
        mapped = self._snapshot_live.get(snapshot.name)
        if mapped is None:
            return snapshot
        named = {each.segment_id for each in segments}
        # Under a new name: the old file is named until the commit.
        name = f"{snapshot.live.name}.r"
        rows_of = {number: rows for number, rows in mapped.items() if number in named}
        live = write_live(directory, name, rows_of, replace=True)
        return replace(snapshot, segments=segments, live=live)

    def _write_environment(
        self, directory: MmapDirectory, metadata: Metadata, live: Mapping[int, LiveRows], kept: MmapDirectory
    ) -> None:
        assert metadata.fingerprint is not None
        encoded = self._after.encode()
        values = {MANIFEST_KEY: encoded}
        for number, rows in live.items():
            values.update(changed_live_chunks(number, None, rows))
        for request in self._requests_of_journals():
            values[request_key(request.seq)] = request.encode()
        directory.move(DATA_NAME, kept)
        fingerprint = write_environment(
            directory,
            values,
            environment_id=metadata.fingerprint.environment_id,
            generation=metadata.fingerprint.generation + REBUILT_GENERATIONS,
        )
        write_mirror(directory, MIRROR, encoded, fingerprint)

    def _change_environment(
        self, directory: MmapDirectory, metadata: Metadata, live: Mapping[int, LiveRows], kept: MmapDirectory
    ) -> None:
        if metadata.mirror_lost:
            directory.move(MIRROR, kept)
        encoded = self._after.encode()
        store = LmdbStore.open(directory, expected=metadata.fingerprint)
        try:
            if self._after != metadata.manifest:
                puts = {MANIFEST_KEY: encoded}
                gone = [key for each in metadata.manifest.segments for key in live_keys(each)]
                for number, rows in live.items():
                    puts.update(changed_live_chunks(number, None, rows))
                store.commit(puts, gone)
            write_mirror(directory, MIRROR, encoded, store.fingerprint())
        finally:
            store.close()

    def _requests_of_journals(self) -> list[AppliedRequest]:
        """The requests that a retry may still name, as far as journals tell of them."""
        assert self._metadata is not None
        found: dict[int, AppliedRequest] = {}
        oldest_us = time.time_ns() // 1000 - KEPT_US
        for encoded in self._journal_requests:
            try:
                request = AppliedRequest.decode(encoded)
            except DecodeError:
                continue  # Told as damage of the journal by whoever read it.
            if request.time_us >= oldest_us:
                found[request.seq] = request
        return [found[seq] for seq in sorted(found)[-KEPT_REQUESTS_MAX:]]


def _rows_of(entry: SegmentEntry) -> frozenset[str]:
    """The files that hold the rows of a segment; entries that differ in derived files only have the same."""
    return frozenset(file.ref.name for file in entry.files if file.role not in _DERIVED)


def _ids(remains: SegmentRemains, rows: np.ndarray) -> tuple[tuple[PointId, ...], int]:
    """The ids of these rows, (rows,) bool, and how many cannot be read."""
    readable = np.flatnonzero(rows & remains.key_whole).tolist()
    return tuple(id_of(remains.key_at(row)) for row in readable), int(rows.sum()) - len(readable)


def _unnamed(count: int) -> str:
    return f"; the ids of {count} of them cannot be read" if count else ""
