"""Opens a collection's directory: reads its metadata and checks it against the mirror. ``replay`` does the rest.

Nothing is rebuilt: segments and graphs are mapped when they are first used. What an interrupted commit left behind,
files that no manifest names, is removed only after everything that could name it was found whole.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Mapping

from google.protobuf.message import DecodeError

from vecdb.bitmap import LiveRows
from vecdb.engine.applied import AppliedRequests
from vecdb.engine.events import Events
from vecdb.engine.log_archive import LogArchive
from vecdb.engine.log_record import AppliedRequest
from vecdb.engine.manifest import (
    LIVE_PREFIX,
    MANIFEST_KEY,
    REQUEST_PREFIX,
    Manifest,
    metadata_entries,
    read_live_rows,
)
from vecdb.engine.memory_budget import MemoryBudget
from vecdb.engine.options import EngineOptions
from vecdb.engine.resources import Resources, RowMemory
from vecdb.engine.state import LOG, MIRROR, CollectionState
from vecdb.engine.view import SegmentView, View
from vecdb.errors import Corruption
from vecdb.kernels.protocol import Kernels
from vecdb.schema import CollectionSchema
from vecdb.segment.ids import HASH_KEY_BYTES
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.lmdb_store import LmdbStore
from vecdb.storage.mirror import read_mirror, settled_mirror, write_mirror
from vecdb.storage.reserve import Reserve
from vecdb.storage.wal import Log

METADATA_FILES = frozenset({"data.mdb", MIRROR})


def create_collection_files(directory: MmapDirectory, name: str, collection_id: str, schema: CollectionSchema) -> None:
    """Write the first manifest of a new collection into its empty directory."""
    directory.child(LOG, create=True)
    write_metadata(directory, Manifest(name, collection_id, schema, secrets.token_bytes(HASH_KEY_BYTES)), {})


def write_metadata(
    directory: MmapDirectory,
    manifest: Manifest,
    live: Mapping[int, LiveRows],
    requests: Iterable[AppliedRequest] = (),
) -> None:
    """Write the metadata of a collection whose segments are there, and its mirror, where there is none.

    Parameters
    ----------
    live
        The live rows of each segment by its number, as of ``manifest.flushed_seq``; all of them where there is none.
    requests
        The requests that are remembered, to answer retries.
    """
    puts = metadata_entries(manifest, live, requests)
    metadata = LmdbStore.open(directory)
    try:
        metadata.commit(puts)
        write_mirror(directory, MIRROR, puts[MANIFEST_KEY], metadata.fingerprint())
    finally:
        metadata.close()


def read_manifest(directory: MmapDirectory, collection_id: str) -> tuple[LmdbStore, Manifest]:
    """The open metadata and the manifest in it.

    Raises
    ------
    Corruption
        The mirror is missing or damaged, the metadata is damaged or older than the mirror, or belongs elsewhere.
    """
    read = settled_mirror if directory.read_only else read_mirror
    mirror = read(directory, MIRROR)
    where = str(directory.path)
    if mirror is None:
        raise Corruption(f"{where}: the manifest mirror is missing", field=f"{where}/{MIRROR}")
    metadata = LmdbStore.open(directory, expected=mirror.fingerprint)
    try:
        encoded = metadata.get(MANIFEST_KEY)
        if encoded is None:
            raise Corruption(f"{where}: the metadata holds no manifest", field=f"{where}/data.mdb")
        manifest = Manifest.decode(encoded, f"{where}/data.mdb")
        # They differ only after a crash between the commit and its mirror.
        mirrored = manifest if mirror.payload == encoded else Manifest.decode(mirror.payload, f"{where}/{MIRROR}")
        for found in (manifest, mirrored):
            if found.collection_id != collection_id:
                raise Corruption(
                    f"{where}: the files belong to collection {found.collection_id}",
                    field=where,
                    value=found.collection_id,
                )
        fingerprint = metadata.fingerprint()
        if fingerprint != mirror.fingerprint and not directory.read_only:
            # The commit before a crash reached the metadata and not the mirror.
            write_mirror(directory, MIRROR, encoded, fingerprint)
    except BaseException:
        metadata.close()
        raise
    return metadata, manifest


def open_collection_state(
    directory: MmapDirectory,
    collection_id: str,
    options: EngineOptions,
    kernels: Kernels,
    resources: Resources | None = None,
) -> CollectionState:
    """The state of a collection as its files tell it; ``replay_log`` adds what is only in its log."""
    if resources is None:
        budget = MemoryBudget(None, directory.fs)
        resources = Resources(Reserve(directory, 0), RowMemory(options.rows_bytes_max), budget)
    events = Events(collection_id)
    # A commit that was interrupted may have to be completed, though the disk is full.
    metadata, manifest = resources.reserve.spent_on(lambda: read_manifest(directory, collection_id), events.report)
    events.collection = manifest.collection
    try:
        log = Log(
            directory.child(LOG, create=False),
            file_bytes_first=options.log_file_bytes_first,
            last_record_file_id=manifest.log_file_id,
        )
    except BaseException:
        metadata.close()
        raise
    try:
        archive = None if options.log_archive is None else LogArchive.open(options.log_archive, directory.fs)
        live_chunks = dict(metadata.items(LIVE_PREFIX))
        where = f"{directory.path}/data.mdb"
        live: dict[int, LiveRows] = {
            entry.segment_id: read_live_rows(entry, live_chunks, where) for entry in manifest.segments
        }
        applied = _applied_requests(metadata, where)
        view = View(manifest.flushed_seq, (), ())
        state = CollectionState(
            directory, metadata, log, manifest, view, applied, options, kernels, events, resources, archive
        )
        state.stored_live = live
        segments = tuple(SegmentView(state.open_segment(each), live[each.segment_id]) for each in manifest.segments)
        memtable = state.new_memtable(manifest.flushed_seq + 1)
        state.view = View(manifest.flushed_seq, segments, (memtable.empty_view(),))
        _remove_unnamed_files(state)
    except BaseException:
        log.close()
        metadata.close()
        raise
    return state


def _applied_requests(metadata: LmdbStore, where: str) -> AppliedRequests:
    applied = AppliedRequests()
    for key, value in metadata.items(REQUEST_PREFIX):
        try:
            applied.add(AppliedRequest.decode(value))
        except DecodeError as error:
            raise Corruption(f"{where}: request at {key!r} cannot be read: {error}", field=where) from error
    return applied


def _remove_unnamed_files(state: CollectionState) -> None:
    """Remove segment files that an interrupted flush or build left, which nothing names."""
    directory = state.directory
    if directory.read_only:
        return
    removed = [*directory.remove_leftovers(), *directory.child(LOG, create=False).remove_leftovers()]
    for name in set(directory.names()) - state.manifest.file_names() - METADATA_FILES:
        directory.unlink(name)
        removed.append(name)
    if removed:
        state.events.report("unnamed_files_removed", times=len(removed), level=logging.INFO, files=len(removed))
