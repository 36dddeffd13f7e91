"""What the tests of check and repair share: a database with all kinds of files, its model, and ways to damage it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.crash.history import SCHEMA, State, applied, batch
from tests.crash.observe import differences, observe
from tests.crash.workload import QUIET, hand_over
from tests.property.freezing import FreezableFileSystem
from vecdb.bitmap import LiveRows
from vecdb.engine.check import CheckReport, check_database
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.manifest import LIVE_PREFIX, MANIFEST_KEY, Manifest, SnapshotEntry, read_live_rows
from vecdb.engine.snapshot_file import read_live, write_live
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem
from vecdb.storage.lmdb_store import LmdbStore
from vecdb.storage.mirror import read_mirror, write_mirror
from vecdb.types import PointId

DOCS, OTHER = "docs", "other"
BATCHES = 38
SEED = 5
SNAPSHOT = "before"


def build(path: Path, *, batches: int = BATCHES, seed: int = SEED, snapshot: bool = True) -> State:
    """Two collections of the same content, with segments, graphs, dead rows, a log, and in one a snapshot."""
    state: State = {}
    with EmbeddedDatabase.open(path, options=QUIET, file_system=FreezableFileSystem()) as database:
        handles = [database.create_collection(name, schema=SCHEMA) for name in (DOCS, OTHER)]
        for number in range(batches):
            for handle in handles:
                hand_over(handle, batch(seed, 0, number))
            state = applied(state, batch(seed, 0, number))
            if number % 9 == 8:
                for handle in handles:
                    handle.flush()
            if snapshot and number == 2 * batches // 3:
                for handle in handles:
                    handle.wait_indexed(60)
                database.close()
                add_snapshot(path, SNAPSHOT)
                database = EmbeddedDatabase.open(path, options=QUIET, file_system=FreezableFileSystem())
                handles = [database.collection(name) for name in (DOCS, OTHER)]
        if not snapshot:
            for handle in handles:
                handle.wait_indexed(60)
        database.close()
    return state


def state_at(seq: int | None = None, *, batches: int = BATCHES, seed: int = SEED) -> tuple[State, int]:
    """The model as of a write, the last one by default, and the number of that write: what changes nothing has none."""
    state: State = {}
    count = 0
    for number in range(batches):
        each = batch(seed, 0, number)
        after = applied(state, each)
        changes = bool(each.points) or after.keys() != state.keys()
        if changes and count == seq:
            break
        count += changes
        state = after
    return state, count


def collection_path(path: Path, name: str = DOCS) -> Path:
    """Directory of a collection, told by its mirror or metadata."""
    for each in sorted((path / "collections").iterdir()):
        if manifest_of(each).collection == name:
            return each
    raise AssertionError(name)


def manifest_of(directory: Path) -> Manifest:
    """The manifest in a collection's mirror."""
    mirror = read_mirror(MmapDirectory(directory, FileSystem()), "mirror")
    assert mirror is not None
    return Manifest.decode(mirror.payload, "mirror")


def add_snapshot(path: Path, name: str) -> None:
    """Give the collection a named snapshot of its last commit."""
    directory = MmapDirectory(collection_path(path), FileSystem())
    mirror = read_mirror(directory, "mirror")
    assert mirror is not None
    store = LmdbStore.open(directory, expected=mirror.fingerprint)
    manifest = Manifest.decode(store.get(MANIFEST_KEY) or b"", "")
    live = stored_live(store, manifest)
    ref = write_live(directory, f"{manifest.next_segment_id:010d}.live.0", live)
    entry = SnapshotEntry(name, 1, manifest.flushed_seq, manifest.segments, ref)
    manifest = replace(manifest.with_snapshot(entry), next_segment_id=manifest.next_segment_id + 1)
    store.commit({MANIFEST_KEY: manifest.encode()})
    write_mirror(directory, "mirror", manifest.encode(), store.fingerprint())
    store.close()


def stored_live(store: LmdbStore, manifest: Manifest) -> dict[int, LiveRows]:
    chunks = dict(store.items(LIVE_PREFIX))
    return {each.segment_id: read_live_rows(each, chunks, "") for each in manifest.segments}


def snapshot_ids(directory: Path) -> dict[str, set[PointId]]:
    """The ids that are live in each snapshot of a collection."""
    from vecdb.kernels.reference import ReferenceKernels
    from vecdb.segment.ids import id_of
    from vecdb.segment.reader import SegmentReader

    opened = MmapDirectory(directory, FileSystem(), read_only=True)
    manifest = manifest_of(directory)
    found: dict[str, set[PointId]] = {}
    for snapshot in manifest.snapshots:
        live = read_live(opened, snapshot.live, snapshot.segments)
        found[snapshot.name] = set()
        for entry in snapshot.segments:
            reader = SegmentReader(opened, entry, manifest.schema, ReferenceKernels())
            ids = {id_of(reader.keys[row]) for row in live[entry.segment_id].bitmap().rows().tolist()}
            assert not ids & found[snapshot.name]
            found[snapshot.name] |= ids
    return found


def wrong(path: Path, state: State, name: str = DOCS) -> list[str]:
    """What the opened database answers that the model does not."""
    with EmbeddedDatabase.open(path, options=QUIET) as database:
        return differences(observe(database.collection(name), [0]), state)


def checked(path: Path) -> CheckReport:
    return check_database(path)


def copied(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def flip(path: Path, offset: int, mask: int = 0x10) -> None:
    """Change one byte."""
    data = bytearray(path.read_bytes())
    data[offset % len(data)] ^= mask
    path.write_bytes(data)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)
