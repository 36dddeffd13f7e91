"""The metadata of a collection in a backup: what its environment held as of one commit, as one message.

What is read back is taken for hostile: nothing is allocated by a number that the sizes of the files do not bear out.
Format: ``docs/formats/backup.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from vecdb.archive.manifest import BackupCollection, hexadecimal
from vecdb.archive.tar import METADATA
from vecdb.bitmap import LiveRows
from vecdb.engine.log_record import AppliedRequest
from vecdb.engine.manifest import (
    MANIFEST_KEY,
    REQUEST_PREFIX,
    Manifest,
    live_keys,
    metadata_entries,
    read_live_rows,
    request_key,
)
from vecdb.errors import Corruption
from vecdb.segment.ids import HASH_KEY_BYTES
from vecdb.segment.layout import Role, SegmentEntry
from vecdb.storage.array_file import FileRef
from vecdb.v1 import log_pb2

METADATA_BYTES_MAX = 512 * 2**20
_SEQ_BYTES = 8


@dataclass(frozen=True, slots=True)
class CollectionMetadata:
    """What a collection's metadata held as of ``manifest.flushed_seq``.

    Attributes
    ----------
    live
        The live rows of each segment, by its number.
    requests
        The requests that were remembered.
    """

    manifest: Manifest
    live: Mapping[int, LiveRows]
    requests: tuple[AppliedRequest, ...]


def encode_metadata(manifest: Manifest, live: Mapping[int, LiveRows], requests: Iterable[AppliedRequest]) -> bytes:
    """As bytes."""
    entries = metadata_entries(manifest, live, requests)
    return log_pb2.Metadata(
        entries=[log_pb2.MetadataEntry(key=key, value=value) for key, value in entries.items()]
    ).SerializeToString()


def file_refs(manifest: Manifest) -> dict[str, FileRef]:
    """The files that a manifest names, those of snapshots too, by name and in order of it."""
    refs = {file.ref.name: file.ref for entry in manifest.segments for file in entry.files}
    for snapshot in manifest.snapshots:
        refs[snapshot.live.name] = snapshot.live
        refs.update((file.ref.name, file.ref) for entry in snapshot.segments for file in entry.files)
    return dict(sorted(refs.items()))


def decode_metadata(data: bytes, told: BackupCollection, where: str) -> CollectionMetadata:
    """The metadata that ``data`` encodes, which must fit what the manifest of the backup tells of the collection.

    Raises
    ------
    Corruption
        It cannot be read, or does not fit; ``where`` is what the error calls its place.
    """
    try:
        message = log_pb2.Metadata.FromString(data)
        entries = {entry.key: entry.value for entry in message.entries}
        if len(entries) != len(message.entries):
            raise ValueError("a key is there twice")
        manifest = Manifest.decode(entries.pop(MANIFEST_KEY), where)
        _check_manifest(manifest, told)
        live_entries = {
            key: entries.pop(key) for each in manifest.segments for key in live_keys(each) if key in entries
        }
        requests = tuple(AppliedRequest.decode(value) for key, value in entries.items() if _is_request(key, value))
        if len(requests) != len(entries):
            raise ValueError("it holds what the metadata of a collection does not hold")
    except (DecodeError, ValueError, KeyError) as error:
        raise Corruption(f"{where}: the metadata of {told.name!r} cannot be read: {error}", field=where) from error
    live: dict[int, LiveRows] = {
        each.segment_id: read_live_rows(each, live_entries, where) for each in manifest.segments
    }
    return CollectionMetadata(manifest, live, requests)


def _is_request(key: bytes, value: bytes) -> bool:
    return key.startswith(REQUEST_PREFIX) and key == request_key(AppliedRequest.decode(value).seq)


def _check_manifest(manifest: Manifest, told: BackupCollection) -> None:
    """Raise ValueError where a collection's manifest is not the one that the backup's manifest tells of."""
    found = (manifest.collection, manifest.collection_id, manifest.flushed_seq)
    if found != (told.name, told.collection_id, told.seq):
        raise ValueError(f"it is that of {found}")
    if len(manifest.hash_key) != HASH_KEY_BYTES:
        raise ValueError("its hash key has another length")
    refs = {
        name: (ref.size_bytes, hexadecimal(ref.file_id), hexadecimal(ref.checksum))
        for name, ref in file_refs(manifest).items()
    }
    listed = {file.name: (file.size_bytes, file.file_id, file.checksum) for file in told.files if file.name != METADATA}
    if refs != listed:
        raise ValueError("it names other files than the backup holds")
    segments = [*manifest.segments, *(each for snapshot in manifest.snapshots for each in snapshot.segments)]
    if len({each.segment_id for each in manifest.segments}) != len(manifest.segments):
        raise ValueError("two segments have one number")
    for entry in segments:
        _check_rows(entry)


def _check_rows(entry: SegmentEntry) -> None:
    seqs = entry.file(Role.SEQS)
    if entry.rows > (0 if seqs is None else seqs.ref.size_bytes // _SEQ_BYTES):
        raise ValueError(f"segment {entry.segment_id} has no files of {entry.rows} rows")
