"""Opens a collection's directory: reads its metadata, checks it against the mirror and replays the log.

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
from vecdb.engine.apply import Decided, apply_group
from vecdb.engine.events import Events
from vecdb.engine.log_archive import LogArchive
from vecdb.engine.log_record import AppliedRequest, Record, decode_record
from vecdb.engine.manifest import (
    LIVE_PREFIX,
    MANIFEST_KEY,
    REQUEST_PREFIX,
    Manifest,
    changed_live_chunks,
    read_live_rows,
    request_key,
)
from vecdb.engine.options import EngineOptions
from vecdb.engine.state import LOG, MIRROR, CollectionState
from vecdb.engine.view import SegmentView, View
from vecdb.errors import Corruption, VecdbError
from vecdb.kernels.protocol import Kernels
from vecdb.requests import UpsertRequest, check_against_schema
from vecdb.schema import CollectionSchema
from vecdb.segment.ids import HASH_KEY_BYTES, hash_keys, key_of
from vecdb.segment.memtable import prepare
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.lmdb_store import LmdbStore
from vecdb.storage.mirror import read_mirror, write_mirror
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
    encoded = manifest.encode()
    puts = {MANIFEST_KEY: encoded}
    for segment_id, rows in live.items():
        puts.update(changed_live_chunks(segment_id, None, rows))
    puts.update({request_key(each.seq): each.encode() for each in requests})
    metadata = LmdbStore.open(directory)
    try:
        metadata.commit(puts)
        write_mirror(directory, MIRROR, encoded, metadata.fingerprint())
    finally:
        metadata.close()


def read_manifest(directory: MmapDirectory, collection_id: str) -> tuple[LmdbStore, Manifest]:
    """The open metadata and the manifest in it.

    Raises
    ------
    Corruption
        The mirror is missing or damaged, the metadata is damaged or older than the mirror, or belongs elsewhere.
    """
    mirror = read_mirror(directory, MIRROR)
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
    directory: MmapDirectory, collection_id: str, options: EngineOptions, kernels: Kernels
) -> CollectionState:
    """The state of a collection as its files and its log tell it."""
    metadata, manifest = read_manifest(directory, collection_id)
    events = Events(manifest.collection)
    log = Log(directory.child(LOG, create=False), file_bytes_first=options.log_file_bytes_first)
    try:
        archive = None if options.log_archive is None else LogArchive.open(options.log_archive, directory.fs)
        live_chunks = dict(metadata.items(LIVE_PREFIX))
        where = f"{directory.path}/data.mdb"
        live: dict[int, LiveRows] = {
            entry.segment_id: read_live_rows(entry, live_chunks, where) for entry in manifest.segments
        }
        applied = _applied_requests(metadata, where)
        view = View(manifest.flushed_seq, (), ())
        state = CollectionState(directory, metadata, log, manifest, view, applied, options, kernels, events, archive)
        state.stored_live = live
        segments = tuple(SegmentView(state.open_segment(each), live[each.segment_id]) for each in manifest.segments)
        memtable = state.new_memtable(manifest.flushed_seq + 1)
        state.view = View(manifest.flushed_seq, segments, (memtable.empty_view(),))
        _replay(state)
    except BaseException:
        log.close()
        metadata.close()
        raise
    _remove_unnamed_files(state)
    return state


def _applied_requests(metadata: LmdbStore, where: str) -> AppliedRequests:
    applied = AppliedRequests()
    for key, value in metadata.items(REQUEST_PREFIX):
        try:
            applied.add(AppliedRequest.decode(value))
        except DecodeError as error:
            raise Corruption(f"{where}: request at {key!r} cannot be read: {error}", field=where) from error
    return applied


def _replay(state: CollectionState) -> None:
    replayed = 0
    for seq, data in state.log.replay(state.manifest.flushed_seq):
        record = decode_record(seq, data)
        _make_room(state, sum(len(each.ids) for each in record.upserts))
        state.view = apply_group(state, _decide_again(state, record))
        replayed += 1
    recovery = state.log.recovery
    if replayed:
        state.events.report("log_replayed", level=logging.INFO, records=replayed, last_seq=state.view.seq)
    if recovery.dropped_bytes:
        state.events.report(
            "torn_tail_dropped", bytes=recovery.dropped_bytes, file=recovery.file, offset=recovery.offset
        )


def _make_room(state: CollectionState, rows: int) -> None:
    active = state.view.memtables[-1].memtable
    if active.fits(rows) and active.size_bytes < state.options.memtable_size_bytes:
        return
    view = state.view
    fresh = state.new_memtable(view.seq + 1, rows).empty_view()
    if active.seq_last < active.seq_first:
        state.view = view.with_memtables((*view.memtables[:-1], fresh))
        return
    state.sealed_views[active] = view
    state.view = view.with_memtables((*view.memtables, fresh))


def _decide_again(state: CollectionState, record: Record) -> list[Decided]:
    """The effects of a record, located in the view that precedes it."""
    upserted = sum(len(each.ids) for each in record.upserts)
    deleted = sum(map(len, record.deleted_ids))
    applied = AppliedRequest(record.request_id, record.request_digest, record.seq, record.time_us, upserted, deleted)
    decided = [_decide_upsert(state, record, upsert, applied) for upsert in record.upserts]
    for ids in record.deleted_ids:
        keys = [key_of(each) for each in ids]
        parts, rows = state.view.locate(ids, keys, hash_keys(keys, state.manifest.hash_key))
        decided.append(Decided(record.seq, (), applied, None, ids, tuple(keys), parts, rows))
    return decided


def _decide_upsert(state: CollectionState, record: Record, upsert: UpsertRequest, applied: AppliedRequest) -> Decided:
    try:
        check_against_schema(upsert, state.manifest.schema)
    except VecdbError as error:
        name = f"log record {record.seq}"
        raise Corruption(f"{name} does not fit the schema: {error}", field=name) from error
    batch = prepare(upsert, state.manifest.schema, state.manifest.hash_key)
    parts, rows = state.view.locate(batch.ids, batch.keys, batch.hashes)
    return Decided(record.seq, (), applied, batch, (), (), parts, rows)


def _remove_unnamed_files(state: CollectionState) -> None:
    """Remove segment files that an interrupted flush or build left, which nothing names."""
    directory = state.directory
    if directory.read_only:
        return
    removed = directory.remove_leftovers()
    for name in set(directory.names()) - state.manifest.file_names() - METADATA_FILES:
        directory.unlink(name)
        removed.append(name)
    if removed:
        state.events.report("unnamed_files_removed", times=len(removed), level=logging.INFO, files=len(removed))
