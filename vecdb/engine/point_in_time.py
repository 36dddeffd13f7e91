"""Replaying archived log records on top of a restored collection, up to a write or a moment.

The records go into the collection's own log, a part at a time, and through its own recovery, which flushes them: what
comes out is what the database itself would have had after a crash at that write.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from vecdb.archive.manifest import BackupCollection, BackupManifest
from vecdb.engine.log_archive import LogArchive
from vecdb.engine.log_record import decode_record
from vecdb.engine.options import EngineOptions
from vecdb.engine.recovery import open_collection_state
from vecdb.engine.state import LOG
from vecdb.engine.store import OpenCollection
from vecdb.engine.threads import Threads
from vecdb.errors import FailedPrecondition, InvalidArgument, NotFound
from vecdb.kernels.protocol import Kernels
from vecdb.results.restore import RestoredCollection
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.wal import Log

PART_BYTES = 32 << 20
"""Log bytes replayed at a time: what they make fits into a memtable."""


@dataclass(frozen=True, slots=True)
class Until:
    """How far to replay; with neither, as far as the archive goes.

    Attributes
    ----------
    seq, collection
        To this write of this collection; the others stay as the backup has them.
    time_us
        To the last write that was accepted at this moment or before, in every collection; microseconds since
        1970-01-01 UTC.
    """

    seq: int | None = None
    collection: str | None = None
    time_us: int | None = None

    @classmethod
    def of(cls, manifest: BackupManifest, seq: int | None, collection: str | None, time: datetime | None) -> Until:
        """What the arguments of ``restore`` ask for, checked against the backup.

        Raises
        ------
        InvalidArgument
            They contradict each other, or the backup holds later writes already.
        NotFound
            The backup holds no such collection.
        """
        if seq is None and collection is not None:
            raise InvalidArgument("collection goes with until_seq", field="collection", value=collection)
        if time is not None:
            if seq is not None:
                raise InvalidArgument("give either until_seq or until_time, not both", field="until_time", value=time)
            if time.tzinfo is None:
                raise InvalidArgument("until_time must say its offset from UTC", field="until_time", value=time)
            until = cls(time_us=int(time.timestamp() * 1_000_000))
        elif seq is not None:
            until = cls(seq, _named(manifest, collection))
        else:
            until = cls()
        for each in manifest.collections:
            until._check(each)
        return until

    def concerns(self, told: BackupCollection) -> bool:
        """Whether anything is to be replayed into a collection."""
        return self.collection in (None, told.name)

    def _check(self, told: BackupCollection) -> None:
        if self.seq is not None and self.concerns(told) and self.seq < told.seq:
            raise InvalidArgument(
                f"the backup holds {told.name!r} as of write {told.seq} already; take an earlier backup",
                field="until_seq",
                limit=f"at least {told.seq}",
                value=self.seq,
            )
        if self.time_us is not None and self.time_us < told.taken_us:
            raise InvalidArgument(
                f"the backup holds {told.name!r} as of a later moment; take an earlier backup",
                field="until_time",
                limit=f"at least {told.taken_us} microseconds since 1970",
                value=self.time_us,
            )


def _named(manifest: BackupManifest, collection: str | None) -> str:
    names = [each.name for each in manifest.collections]
    if collection is None:
        if len(names) != 1:
            raise InvalidArgument(
                f"until_seq is about one collection; name one of {', '.join(names)[:200]}", field="collection"
            )
        return names[0]
    if collection not in names:
        raise NotFound(f"the backup holds no collection {collection!r}", field="collection", value=collection)
    return collection


class Replay:
    """Brings restored collections up to a moment."""

    def __init__(self, archive: LogArchive, until: Until, options: EngineOptions, kernels: Kernels) -> None:
        self._archive = archive
        self._until = until
        # Graphs are built when the database is opened; here they would be built again after every part.
        self._options = replace(options, graph_rows_min=2**31, compaction=False, log_archive=None)
        self._kernels = kernels

    def run(
        self, told: BackupCollection, log_file_id: int, directory: MmapDirectory, collection_id: str
    ) -> RestoredCollection:
        """Replay what the archive has of a collection that was restored into ``directory``.

        Parameters
        ----------
        log_file_id
            Id of the log file that held the last write of the backup; 0 where that is not known.

        Raises
        ------
        Corruption
            Records are missing or damaged.
        FailedPrecondition
            The archive ends before the write that was asked for, or holds another history than the backup's.
        """
        seq, points = told.seq, told.points
        if self._until.concerns(told):
            for part in _parts(self._records(told, log_file_id)):
                _append(directory, seq, part)
                seq, points = self._recovered(directory, collection_id)
                assert seq == part[-1][0], (seq, part[-1][0])
        if self._until.seq is not None and self._until.concerns(told) and seq < self._until.seq:
            raise FailedPrecondition(
                f"the log archive {self._archive.path} ends with write {seq} of {told.name!r}, before "
                f"{self._until.seq}",
                field="until_seq",
                limit=seq,
                value=self._until.seq,
            )
        return RestoredCollection(told.name, seq, points, seq - told.seq)

    def _records(self, told: BackupCollection, log_file_id: int) -> Iterator[tuple[int, bytes]]:
        until = self._until
        if until.seq == told.seq:
            return
        for seq, payload in self._archive.records(told.collection_id, told.seq, log_file_id):
            if until.time_us is not None and decode_record(seq, payload).time_us > until.time_us:
                return
            yield seq, payload
            if seq == until.seq:
                return

    def _recovered(self, directory: MmapDirectory, collection_id: str) -> tuple[int, int]:
        """Open the collection, which replays its log, and flush it; its last seq and its points."""
        threads = Threads(1)
        try:
            opened = OpenCollection(
                open_collection_state(directory, collection_id, self._options, self._kernels), threads
            )
            opened.start()
            try:
                seq = opened.flush()
                points = opened.stats().points
            finally:
                opened.close()
        finally:
            threads.shut_down()
        return seq, points


def _parts(records: Iterator[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    part: list[tuple[int, bytes]] = []
    size_bytes = 0
    for seq, payload in records:
        part.append((seq, payload))
        size_bytes += len(payload)
        if size_bytes >= PART_BYTES:
            yield part
            part, size_bytes = [], 0
    if part:
        yield part


def _append(directory: MmapDirectory, flushed_seq: int, part: list[tuple[int, bytes]]) -> None:
    """Put records into the log of a collection that nobody has open."""
    log = Log(directory.child(LOG, create=False))
    try:
        for _ in log.replay(flushed_seq):
            raise AssertionError("the log of a flushed collection has records")
        log.append(part)
        log.sync()
    finally:
        log.close()
