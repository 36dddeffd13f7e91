"""The manifest: what a collection consists of as of its last commit, as a value and as bytes.

It is stored in the collection's metadata environment beside the live rows of its segments, and again in the mirror.
docs/formats/metadata.md gives the keys.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from google.protobuf.message import DecodeError

from vecdb.bitmap import CHUNK_ROWS, LiveRows
from vecdb.errors import Corruption, VecdbError
from vecdb.schema import CollectionSchema
from vecdb.segment.layout import Role, SegmentEntry, SegmentFile
from vecdb.storage.array_file import FileRef
from vecdb.types import SegmentId
from vecdb.v1 import log_pb2
from vecdb.wire.schemas import decode_schema, encode_schema

MANIFEST_KEY = b"manifest"
LIVE_PREFIX = b"live/"
REQUEST_PREFIX = b"request/"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a collection consists of.

    Attributes
    ----------
    flushed_seq
        Every effect at or below it is in the segments; every one above is in the log.
    hash_key
        Secret of the hash over ids.
    """

    collection: str
    collection_id: str
    schema: CollectionSchema
    hash_key: bytes
    flushed_seq: int = 0
    next_segment_id: int = 1
    segments: tuple[SegmentEntry, ...] = ()

    def with_segment(self, entry: SegmentEntry) -> Manifest:
        """With ``entry`` added, or in place of the one of the same number."""
        kept = [each for each in self.segments if each.segment_id != entry.segment_id]
        segments = tuple(sorted([*kept, entry], key=lambda each: each.segment_id))
        return replace(self, segments=segments, next_segment_id=max(self.next_segment_id, entry.segment_id + 1))

    def file_names(self) -> set[str]:
        """The names of all files of all segments."""
        return {file.ref.name for entry in self.segments for file in entry.files}

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
        )
        return message.SerializeToString(deterministic=True)

    @classmethod
    def decode(cls, data: bytes, where: str) -> Manifest:
        """The manifest that ``data`` encodes; ``where`` is what an error calls its place."""
        try:
            message = log_pb2.Manifest.FromString(data)
            return cls(
                message.collection,
                message.collection_id,
                decode_schema(message.schema),
                message.id_hash_key,
                message.flushed_seq,
                message.next_segment_id,
                tuple(_decode_segment(each) for each in message.segments),
            )
        except (DecodeError, VecdbError, ValueError) as error:
            raise Corruption(f"{where}: the manifest cannot be read: {error}", field=where) from error


def _encode_segment(entry: SegmentEntry) -> log_pb2.Segment:
    files = [
        log_pb2.SegmentFile(
            role=file.role.value,
            field=file.field,
            generation=file.generation,
            name=file.ref.name,
            file_id=file.ref.file_id,
            size_bytes=file.ref.size_bytes,
            checksum=file.ref.checksum,
        )
        for file in entry.files
    ]
    return log_pb2.Segment(
        segment_id=entry.segment_id, rows=entry.rows, seq_first=entry.seq_first, seq_last=entry.seq_last, files=files
    )


def _decode_segment(message: log_pb2.Segment) -> SegmentEntry:
    files = tuple(
        SegmentFile(
            Role(file.role),
            file.field,
            file.generation,
            FileRef(file.name, file.size_bytes, file.checksum, file.file_id),
        )
        for file in message.files
    )
    return SegmentEntry(SegmentId(message.segment_id), message.rows, message.seq_first, message.seq_last, files)


def live_key(segment_id: int, chunk: int) -> bytes:
    """Where the live rows of one chunk of a segment are stored."""
    return LIVE_PREFIX + segment_id.to_bytes(8, "big") + chunk.to_bytes(4, "big")


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
