"""The metadata of a damaged collection: what is known of it, from the environment or its mirror, and putting it back.

What is put back is one commit, which names the files from before or the new ones, whatever interrupts it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from vecdb.bitmap import LiveRows
from vecdb.engine.log_record import AppliedRequest
from vecdb.engine.manifest import (
    LIVE_PREFIX,
    MANIFEST_KEY,
    REQUEST_PREFIX,
    Manifest,
    live_keys,
    metadata_entries,
    read_live_rows,
)
from vecdb.engine.state import MIRROR
from vecdb.errors import Corruption, NotFound
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.environment import DATA_NAME, Fingerprint
from vecdb.storage.lmdb_store import LmdbStore, write_environment
from vecdb.storage.mirror import Mirror, read_mirror, write_mirror

REBUILT_GENERATIONS = 1 << 20
"""A rebuilt environment is so many generations ahead, so that no copy from before the repair passes for a newer one."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is known of a collection as of its last commit.

    Attributes
    ----------
    live
        The live rows by segment; ``None`` where they have to be rebuilt.
    fingerprint
        What the environment is expected to be; ``None`` where the mirror cannot say.
    data_lost, mirror_lost
        Why the environment or the mirror is of no use; empty where it is.
    """

    manifest: Manifest
    live: Mapping[int, LiveRows] | None
    requests: Sequence[AppliedRequest]
    fingerprint: Fingerprint | None
    data_lost: str
    mirror_lost: str


def find_metadata(directory: MmapDirectory, collection_id: str) -> Metadata:
    """The metadata of the collection in a directory that is open for reading only.

    Raises
    ------
    Corruption
        Environment and mirror are both of no use; the message says why.
    FailedPrecondition
        One of them is of a later format.
    """
    mirror, mirror_lost = _read_mirror(directory, collection_id)
    fingerprint = None if mirror is None else mirror.fingerprint
    where = str(directory.path_of(DATA_NAME))
    try:
        manifest, live, requests = _read_environment(directory, fingerprint, collection_id)
        return Metadata(manifest, live, requests, fingerprint, "", mirror_lost)
    except (Corruption, NotFound, DecodeError) as error:
        data_lost = str(error)
    if mirror is None:
        raise Corruption(f"{data_lost}; {mirror_lost}", field=where)
    manifest = _manifest(mirror.payload, collection_id, str(directory.path_of(MIRROR)))
    return Metadata(manifest, None, (), fingerprint, data_lost, mirror_lost)


def commit_metadata(
    directory: MmapDirectory,
    metadata: Metadata,
    after: Manifest,
    live: Mapping[int, LiveRows],
    requests: Sequence[AppliedRequest],
    kept: MmapDirectory,
) -> None:
    """Make ``after`` the collection's manifest.

    Parameters
    ----------
    directory
        Of the collection.
    metadata
        What was found there.
    after
        The manifest from now on.
    live
        The live rows of its segments.
    requests
        What a new environment is to hold where the present one is of no use.
    kept
        The quarantine for what is replaced.
    """
    if metadata.data_lost:
        _write_environment(directory, metadata, after, live, requests, kept)
    else:
        _change_environment(directory, metadata, after, live, kept)


def _read_mirror(directory: MmapDirectory, collection_id: str) -> tuple[Mirror | None, str]:
    """The mirror, or why it is of no use."""
    where = str(directory.path_of(MIRROR))
    try:
        mirror = read_mirror(directory, MIRROR)
        if mirror is None:
            return None, f"{where} is missing"
        _manifest(mirror.payload, collection_id, where)
    except Corruption as error:
        return None, error.message
    return mirror, ""


def _read_environment(
    directory: MmapDirectory, expected: Fingerprint | None, collection_id: str
) -> tuple[Manifest, dict[int, LiveRows], list[AppliedRequest]]:
    where = str(directory.path_of(DATA_NAME))
    store = LmdbStore.open(directory, expected=expected)
    try:
        values = dict(store.items())
    finally:
        store.close()
    manifest = _manifest(values.get(MANIFEST_KEY, b""), collection_id, where)
    chunks = {key: value for key, value in values.items() if key.startswith(LIVE_PREFIX)}
    live: dict[int, LiveRows] = {each.segment_id: read_live_rows(each, chunks, where) for each in manifest.segments}
    requests = [AppliedRequest.decode(value) for key, value in values.items() if key.startswith(REQUEST_PREFIX)]
    return manifest, live, requests


def _manifest(encoded: bytes, collection_id: str, where: str) -> Manifest:
    if not encoded:
        raise Corruption(f"{where}: the metadata holds no manifest", field=where)
    manifest = Manifest.decode(encoded, where)
    if manifest.collection_id != collection_id:
        raise Corruption(f"{where} belongs to collection {manifest.collection_id}", field=where)
    return manifest


def _write_environment(
    directory: MmapDirectory,
    metadata: Metadata,
    after: Manifest,
    live: Mapping[int, LiveRows],
    requests: Sequence[AppliedRequest],
    kept: MmapDirectory,
) -> None:
    """Put a new environment in the place of one that is of no use."""
    assert metadata.fingerprint is not None
    values = metadata_entries(after, live, requests)
    directory.move(DATA_NAME, kept)
    fingerprint = write_environment(
        directory,
        values,
        environment_id=metadata.fingerprint.environment_id,
        generation=metadata.fingerprint.generation + REBUILT_GENERATIONS,
    )
    write_mirror(directory, MIRROR, values[MANIFEST_KEY], fingerprint)


def _change_environment(
    directory: MmapDirectory, metadata: Metadata, after: Manifest, live: Mapping[int, LiveRows], kept: MmapDirectory
) -> None:
    """Commit to an environment that is whole."""
    if metadata.mirror_lost:
        directory.move(MIRROR, kept)
    encoded = after.encode()
    store = LmdbStore.open(directory, expected=metadata.fingerprint)
    try:
        if after != metadata.manifest:
            gone = [key for each in metadata.manifest.segments for key in live_keys(each)]
            store.commit(metadata_entries(after, live), gone)
        write_mirror(directory, MIRROR, encoded, store.fingerprint())
    finally:
        store.close()
