"""The repair of a collection's snapshots: the live rows of each by the segments as they will be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vecdb.bitmap import LiveRows
from vecdb.engine.liveness import live_rows
from vecdb.engine.manifest import Manifest, SnapshotEntry
from vecdb.engine.repair.report import Findings
from vecdb.engine.repair.segments import SegmentsRepair
from vecdb.engine.snapshot_file import read_live, write_live
from vecdb.errors import Corruption
from vecdb.storage.directory import MmapDirectory


class SnapshotsRepair:
    """The snapshots of one collection, whose segments were looked at before."""

    def __init__(
        self, directory: MmapDirectory, manifest: Manifest, segments: SegmentsRepair, findings: Findings
    ) -> None:
        self._segments = segments
        self._hash_key = manifest.hash_key
        self._live: dict[str, Mapping[int, LiveRows]] = {}
        for snapshot in manifest.snapshots:
            self._diagnose(directory, snapshot, findings)

    @property
    def needed(self) -> bool:
        """Whether the live rows of a snapshot are written again."""
        return bool(self._live)

    def write(self, directory: MmapDirectory, snapshot: SnapshotEntry) -> SnapshotEntry:
        """Write the live rows of a snapshot, if need be; the entry to name them by. The segments are written before."""
        mapped = self._live.get(snapshot.name)
        if mapped is None:
            return snapshot
        segments = self._segments.after(snapshot.segments)
        named = {each.segment_id for each in segments}
        # Under a new name: the old file is named until the commit.
        name = f"{snapshot.live.name}.r"
        rows_of = {number: rows for number, rows in mapped.items() if number in named}
        live = write_live(directory, name, rows_of, replace=True)
        return replace(snapshot, segments=segments, live=live)

    def _diagnose(self, directory: MmapDirectory, snapshot: SnapshotEntry, findings: Findings) -> None:
        parts = [self._segments.remains(entry) for entry in snapshot.segments]
        rewritten = any(self._segments.rewrite(entry) is not None for entry in snapshot.segments)
        try:
            live: Mapping[int, LiveRows] = read_live(directory, snapshot.live, snapshot.segments)
        except Corruption as error:
            rewritten = True
            findings.tell(snapshot.live.name, error.message, "quarantine; rebuilt from the segments")
            live = live_rows([each.history() for each in parts], self._hash_key, snapshot.seq)
        if not rewritten:
            return
        mapped: dict[int, LiveRows] = {}
        for remains in parts:
            number = remains.entry.segment_id
            rewrite = self._segments.rewrite(remains.entry)
            if rewrite is None:
                mapped[number] = live[number]
                continue
            mapped[rewrite.segment_id] = rewrite.live(live[number])
            lost = rewrite.lost & live[number].bitmap().bools()
            if lost.any():
                findings.lose_points("snapshot", f"snapshot {snapshot.name!r}", *remains.ids_of(lost))
        self._live[snapshot.name] = mapped
