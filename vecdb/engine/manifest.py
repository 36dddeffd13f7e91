"""The manifest: what a collection consists of as of its last commit, as a value and as bytes.

It is stored in the collection's metadata environment beside the live rows of its segments, and again in the mirror.
docs/formats/metadata.md gives the keys.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from google.protobuf.message import DecodeError

from vecdb.bitmap import CHUNK_ROWS, LiveRows
from vecdb.engine.log_record import AppliedRequest
from vecdb.engine.stored_message import refuse_unknown_fields
from vecdb.errors import Corruption, FailedPrecondition, Unimplemented, VecdbError
from vecdb.schema import CollectionSchema
from vecdb.segment.layout import Role, SegmentEntry, SegmentFile
from vecdb.storage.array_file import FileRef
from vecdb.types import SegmentId
from vecdb.v1 import log_pb2
from vecdb.wire.schemas import decode_schema, encode_schema

MANIFEST_KEY = b"manifest"
LIVE_PREFIX = b"live/"
REQUEST_PREFIX = b"request/"
LIVE_ROLE = "live"
"""Role of the file that holds the live rows of a snapshot."""


@dataclass(frozen=True, slots=True)
class SnapshotEntry:
    """One named snapshot: what the collection consisted of when it was taken.

    Attributes
    ----------
    created_us
        Microseconds since 1970-01-01 UTC.
    seq
        The last write that it holds.
    live
        The file of its live rows.
    """

    name: str
    created_us: int
    seq: int
    segments: tuple[SegmentEntry, ...]
    live: FileRef

    def file_names(self) -> set[str]:
        """The names of all files that it needs."""
        return {self.live.name}.union(*(entry.file_names() for entry in self.segments))


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a collection consists of.

    Attributes
    ----------
    flushed_seq
        Every effect at or below it is in the segments; every one above is in the log.
    hash_key
        Secret of the hash over ids.
    log_file_id
        Id of the log file that held the record ``flushed_seq``; 0 where that is not known.
    """

    collection: str
    collection_id: str
    schema: CollectionSchema
    hash_key: bytes
    flushed_seq: int = 0
    next_segment_id: int = 1
    segments: tuple[SegmentEntry, ...] = ()
    snapshots: tuple[SnapshotEntry, ...] = ()
    log_file_id: int = 0

    def segment(self, segment_id: int) -> SegmentEntry | None:
        """The segment of this number."""
        return next((each for each in self.segments if each.segment_id == segment_id), None)

    def with_segment(self, entry: SegmentEntry) -> Manifest:
        """With ``entry`` added, or in place of the one of the same number."""
        kept = [each for each in self.segments if each.segment_id != entry.segment_id]
        segments = tuple(sorted([*kept, entry], key=lambda each: each.segment_id))
        return replace(self, segments=segments, next_segment_id=max(self.next_segment_id, entry.segment_id + 1))

    def without_segments(self, segment_ids: Collection[int]) -> Manifest:
        """Without the segments of these numbers."""
        return replace(self, segments=tuple(each for each in self.segments if each.segment_id not in segment_ids))

    def with_snapshot(self, snapshot: SnapshotEntry) -> Manifest:
        """With a snapshot of a new name."""
        snapshots = tuple(sorted([*self.snapshots, snapshot], key=lambda each: each.name))
        return replace(self, snapshots=snapshots)

    def without_snapshot(self, name: str) -> Manifest:
        """Without the snapshot of this name."""
        return replace(self, snapshots=tuple(each for each in self.snapshots if each.name != name))

    def snapshot(self, name: str) -> SnapshotEntry | None:
        """The snapshot of this name."""
        return next((each for each in self.snapshots if each.name == name), None)

    def file_names(self) -> set[str]:
        """The names of all files of all segments, of those too that only a snapshot has."""
        named: set[str] = set()
        return named.union(
            *(entry.file_names() for entry in self.segments), *(each.file_names() for each in self.snapshots)
        )

    def encode(self) -> bytes:
        """As bytes; the same manifest gives the same bytes."""
        message = log_pb2.Manifest(
            collection=self.collection,
            collection_id=self.collection_id,
            schema=encode_schema(self.schema),
            flushed_seq=self.flushed_seq,
            next_segment_id=self.next_segment_id,
            segments=[_encode_segment(each) for each in self.segments],
            id_hash_key=self.hash_key,
            snapshots=[_encode_snapshot(each) for each in self.snapshots],
            log_file_id=self.log_file_id,
        )
        return message.SerializeToString(deterministic=True)

    @classmethod
    def decode(cls, data: bytes, where: str) -> Manifest:
        """The manifest that ``data`` encodes; ``where`` is what an error calls its place.

        Raises
        ------
        Corruption
            It encodes none.
        FailedPrecondition
            A later version of vecdb wrote it: it holds what is unknown here.
        """
        try:
            message = log_pb2.Manifest.FromString(data)
            refuse_unknown_fields(message, where)
            return cls(
                message.collection,
                message.collection_id,
                decode_schema(message.schema),
                message.id_hash_key,
                message.flushed_seq,
                message.next_segment_id,
                tuple(_decode_segment(each) for each in message.segments),
                tuple(_decode_snapshot(each) for each in message.snapshots),
                message.log_file_id,
            )
        except FailedPrecondition:
            raise
        except Unimplemented as error:
            raise FailedPrecondition(f"{where}: a later version of vecdb wrote it: {error}", field=where) from error
        except (DecodeError, VecdbError, ValueError) as error:
            raise Corruption(f"{where}: the manifest cannot be read: {error}", field=where) from error


def _encode_file(role: str, field: str, generation: int, ref: FileRef) -> log_pb2.SegmentFile:
    return log_pb2.SegmentFile(
        role=role,
        field=field,
        generation=generation,
        name=ref.name,
        file_id=ref.file_id,
        size_bytes=ref.size_bytes,
        checksum=ref.checksum,
    )


def _decode_ref(message: log_pb2.SegmentFile) -> FileRef:
    return FileRef(message.name, message.size_bytes, message.checksum, message.file_id)


def _encode_segment(entry: SegmentEntry) -> log_pb2.Segment:
    files = [_encode_file(file.role.value, file.field, file.generation, file.ref) for file in entry.files]
    return log_pb2.Segment(
        segment_id=entry.segment_id, rows=entry.rows, seq_first=entry.seq_first, seq_last=entry.seq_last, files=files
    )


def _decode_role(name: str) -> Role:
    try:
        return Role(name)
    except ValueError as error:
        raise Unimplemented(f"the role {name!r} is unknown here", field="role", value=name) from error


def _decode_segment(message: log_pb2.Segment) -> SegmentEntry:
    files = tuple(
        SegmentFile(_decode_role(file.role), file.field, file.generation, _decode_ref(file)) for file in message.files
    )
    return SegmentEntry(SegmentId(message.segment_id), message.rows, message.seq_first, message.seq_last, files)


def _encode_snapshot(snapshot: SnapshotEntry) -> log_pb2.Snapshot:
    return log_pb2.Snapshot(
        name=snapshot.name,
        created_us=snapshot.created_us,
        seq=snapshot.seq,
        segments=[_encode_segment(each) for each in snapshot.segments],
        live=_encode_file(LIVE_ROLE, "", 0, snapshot.live),
    )


def _decode_snapshot(message: log_pb2.Snapshot) -> SnapshotEntry:
    if message.live.role != LIVE_ROLE:
        raise ValueError(f"snapshot {message.name!r} has no live rows")
    segments = tuple(_decode_segment(each) for each in message.segments)
    return SnapshotEntry(message.name, message.created_us, message.seq, segments, _decode_ref(message.live))


def live_key(segment_id: int, chunk: int) -> bytes:
    """Where the live rows of one chunk of a segment are stored."""
    return LIVE_PREFIX + segment_id.to_bytes(8, "big") + chunk.to_bytes(4, "big")


def live_keys(entry: SegmentEntry) -> list[bytes]:
    """Where the live rows of a segment may be stored."""
    return [live_key(entry.segment_id, chunk) for chunk in range(-(-entry.rows // CHUNK_ROWS))]


def request_key(seq: int) -> bytes:
    """Where the request that made a write is stored."""
    return REQUEST_PREFIX + seq.to_bytes(8, "big")


def changed_live_chunks(segment_id: int, stored: LiveRows | None, live: LiveRows) -> dict[bytes, bytes]:
    """What to store so that ``live`` can be read back: the chunks that differ from ``stored`` (``None``: all live)."""
    if stored is None:
        stored = LiveRows.full(live.size)
    return {
        live_key(segment_id, number): chunk.astype("<u8").tobytes()
        for number, (chunk, before) in enumerate(zip(live.chunks, stored.chunks, strict=True))
        if chunk is not before and not np.array_equal(chunk, before)
    }


def metadata_entries(
    manifest: Manifest, live: Mapping[int, LiveRows], requests: Iterable[AppliedRequest] = ()
) -> dict[bytes, bytes]:
    """All that the metadata of a collection holds, by key; a segment that ``live`` does not name has only live rows."""
    entries = {MANIFEST_KEY: manifest.encode()}
    for segment_id, rows in live.items():
        entries.update(changed_live_chunks(segment_id, None, rows))
    entries.update((request_key(each.seq), each.encode()) for each in requests)
    return entries


def read_live_rows(entry: SegmentEntry, stored: dict[bytes, bytes], where: str) -> LiveRows:
    """The live rows of a segment from the stored chunks; a chunk that was never stored is all live."""
    chunks = list(LiveRows.full(entry.rows).chunks)
    for number, full in enumerate(chunks):
        data = stored.get(live_key(entry.segment_id, number))
        if data is None:
            continue
        chunk = np.frombuffer(data, "<u8")
        if chunk.shape != full.shape or (chunk & ~full).any():
            raise Corruption(
                f"{where}: live rows of segment {entry.segment_id}, rows {number * CHUNK_ROWS} on, do not fit its size",
                field=where,
                limit=entry.rows,
            )
        chunks[number] = chunk
    return LiveRows(tuple(chunks), entry.rows)
