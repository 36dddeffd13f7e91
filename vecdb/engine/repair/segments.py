"""The repair of a collection's segments: which are written again, with which rows, and which of those are live.

Where rows are lost, deletes may be lost with them: what is written never brings a row back that was not live.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from google.protobuf.message import DecodeError

from vecdb.bitmap import LiveRows
from vecdb.engine.applied import KEPT_REQUESTS_MAX, KEPT_US
from vecdb.engine.liveness import History, live_rows
from vecdb.engine.log_record import AppliedRequest
from vecdb.engine.manifest import Manifest
from vecdb.engine.repair.metadata import Metadata
from vecdb.engine.repair.remains import SegmentRemains
from vecdb.engine.repair.report import Findings
from vecdb.engine.repair.rewrite import Journal, Rewrite
from vecdb.kernels.protocol import Kernels
from vecdb.segment.layout import Role, SegmentEntry
from vecdb.storage.directory import MmapDirectory
from vecdb.types import SegmentId

_DERIVED = frozenset({Role.CODES, Role.GRAPH})


class SegmentsRepair:
    """The segments of one collection, those included that only its snapshots name.

    Attributes
    ----------
    live
        The live rows of the present segments as they will be, by their numbers.
    next_segment_id
        The number of the next new segment after those that the repair makes.
    """

    def __init__(self, directory: MmapDirectory, metadata: Metadata, kernels: Kernels, findings: Findings) -> None:
        self.live: dict[int, LiveRows] = {}
        self.next_segment_id = metadata.manifest.next_segment_id
        self._metadata = metadata
        self._kernels = kernels
        self._findings = findings
        self._rewrites: dict[frozenset[str], Rewrite] = {}
        self._written: dict[frozenset[str], SegmentEntry | None] = {}
        manifest = metadata.manifest
        self._remains: dict[frozenset[str], SegmentRemains] = {}
        for entry in (*manifest.segments, *(each for kept in manifest.snapshots for each in kept.segments)):
            if _rows_of(entry) not in self._remains:
                self._remains[_rows_of(entry)] = SegmentRemains(
                    directory, entry, manifest.schema, manifest.hash_key, kernels
                )
        self._current = [self.remains(entry) for entry in manifest.segments]
        self._diagnose(manifest)

    @property
    def needed(self) -> bool:
        """Whether a segment is written again."""
        return bool(self._rewrites)

    def remains(self, entry: SegmentEntry) -> SegmentRemains:
        """What can be read of a segment."""
        return self._remains[_rows_of(entry)]

    def rewrite(self, entry: SegmentEntry) -> Rewrite | None:
        """How a segment is written again; ``None`` where it stays as it is."""
        return self._rewrites.get(_rows_of(entry))

    def write(self, directory: MmapDirectory) -> None:
        """Write the files of all that are written again."""
        self._written = {key: each.write(directory, self._kernels) for key, each in self._rewrites.items()}

    def after(self, old: Sequence[SegmentEntry]) -> tuple[SegmentEntry, ...]:
        """The segments that stand in the place of ``old`` once they are written."""
        changed = (self._written.get(_rows_of(each), each) for each in old)
        return tuple(sorted((each for each in changed if each is not None), key=lambda each: each.segment_id))

    def requests(self) -> list[AppliedRequest]:
        """The requests that a retry may still name, as far as journals tell of them."""
        found: dict[int, AppliedRequest] = {}
        oldest_us = time.time_ns() // 1000 - KEPT_US
        for encoded in (each for remains in self._current for each in remains.requests):
            try:
                request = AppliedRequest.decode(encoded)
            except DecodeError:
                continue  # Told as damage of the journal by whoever read it.
            if request.time_us >= oldest_us:
                found[request.seq] = request
        return [found[seq] for seq in sorted(found)[-KEPT_REQUESTS_MAX:]]

    def _diagnose(self, manifest: Manifest) -> None:
        old_live = self._metadata.live
        if old_live is None:
            old_live = live_rows([each.history() for each in self._current], manifest.hash_key, manifest.flushed_seq)
        for key, remains in self._remains.items():
            if not remains.damaged:
                continue
            live = old_live.get(remains.entry.segment_id) if remains in self._current else None
            rewrite = self._plan(remains, live)
            self._rewrites[key] = rewrite
            self.next_segment_id += rewrite.replaces
            self._tell(remains, rewrite)
            if remains in self._current:
                self._tell_lost_rows(remains, rewrite, live)
        for remains in self._current:
            number = remains.entry.segment_id
            each = self.rewrite(remains.entry)
            self.live[number if each is None else each.segment_id] = (
                old_live[number] if each is None else each.live(old_live[number])
            )
        if any(self.rewrite(remains.entry) is not None for remains in self._current):
            self._add_tombstones(manifest)

    def _plan(self, remains: SegmentRemains, live: LiveRows | None) -> Rewrite:
        metadata, entry = self._metadata, remains.entry
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
        number = entry.segment_id if kept.all() else SegmentId(self.next_segment_id)
        journal: Journal | None = None
        if number != entry.segment_id or (Role.JOURNAL, "") in remains.damaged:
            requests = list(remains.requests)
            if metadata.live is not None and (Role.JOURNAL, "") in remains.damaged:
                inside = range(entry.seq_first, entry.seq_last + 1)
                requests = [each.encode() for each in metadata.requests if each.seq in inside]
            journal = Journal(remains.deleted_keys, remains.deleted_seqs, requests)
        return Rewrite(remains, number, np.flatnonzero(kept), seqs, journal)

    def _add_tombstones(self, manifest: Manifest) -> None:
        """See to it that live rows rebuilt from what will be written are those that are live.

        Where rows and deletes are lost, an older row of the same id would come back otherwise.
        """
        histories: list[History] = []
        for remains in self._current:
            rewrite = self.rewrite(remains.entry)
            histories.append(remains.history() if rewrite is None else rewrite.history())
        again = live_rows(histories, manifest.hash_key, manifest.flushed_seq)
        back: list[bytes] = []
        for history in histories:
            wanted = self.live[history.segment_id].bitmap()
            back += [history.key_at(row) for row in (again[history.segment_id].bitmap() - wanted).rows().tolist()]
        if not back:
            return
        current = {_rows_of(remains.entry) for remains in self._current}
        key, rewrite = next((key, each) for key, each in self._rewrites.items() if key in current)
        old = rewrite.journal
        if old is None:
            old = Journal(rewrite.remains.deleted_keys, rewrite.remains.deleted_seqs, rewrite.remains.requests)
        seqs = np.concatenate([old.seqs, np.full(len(back), manifest.flushed_seq, np.uint64)])
        self._rewrites[key] = replace(rewrite, journal=Journal([*old.keys, *back], seqs, old.requests))

    def _tell(self, remains: SegmentRemains, rewrite: Rewrite) -> None:
        for (role, field), reason in remains.damaged.items():
            file = remains.entry.file(role, field)
            name = f"segment {remains.entry.segment_id}" if file is None else file.ref.name
            if rewrite.replaces and role not in _DERIVED:
                remedy = f"quarantine; {rewrite.rows} of {remains.rows} rows are whole and go to a new segment"
            elif role is Role.GRAPH:
                remedy = "quarantine; built again when the collection is open"
            else:
                remedy = "quarantine; written again from what is whole"
            self._findings.tell(name, reason, remedy)

    def _tell_lost_rows(self, remains: SegmentRemains, rewrite: Rewrite, live: LiveRows | None) -> None:
        entry, known = remains.entry, self._metadata.live is not None
        lost = rewrite.lost
        if live is not None:
            alive = live.bitmap().bools()
            # Whether a row without an id was live is not known where live rows had to be rebuilt.
            lost &= alive if known else alive | ~remains.key_whole
        if lost.any():
            self._findings.lose_points("points", f"segment {entry.segment_id}", *remains.ids_of(lost))
        if not known and remains.journal_lost:
            self._findings.lose(
                "deletes",
                f"deletes and request ids of the writes {entry.seq_first} to {entry.seq_last} in the "
                f"journal of segment {entry.segment_id}; points that they deleted may be back",
                max(0, remains.journal_lost),
            )


def _rows_of(entry: SegmentEntry) -> frozenset[str]:
    """The files that hold the rows of a segment; entries that differ in derived files only have the same."""
    return frozenset(file.ref.name for file in entry.files if file.role not in _DERIVED)
