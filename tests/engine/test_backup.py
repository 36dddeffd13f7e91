"""Backups taken while writes go on, restored and compared with the model as of the write that the report tells."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.crash.history import SCHEMA, batch, state_after
from tests.crash.workload import QUIET as WITH_GRAPHS
from tests.crash.workload import hand_over
from tests.engine.archives import listing
from tests.engine.backed_up import SEED, assert_holds, filled, make_base, opened, state_of
from vecdb import restore, verify_backup
from vecdb.engine import backup
from vecdb.engine.manifest import SnapshotEntry
from vecdb.errors import (
    InvalidArgument,
    NotFound,
)
from vecdb.storage.array_file import write_array_file

BATCHES_MAX = 24


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_base(tmp_path)


def test_a_backup_under_load_is_one_point_in_time_of_each_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "JOINED_BYTES", 4_096)
    stop = threading.Event()
    acknowledged: dict[tuple[str, int], list[int]] = {}
    failures: list[BaseException] = []

    def write(name: str, writer: int) -> None:
        seqs = acknowledged[(name, writer)] = []
        collection = database.collection(name)
        try:
            while not stop.is_set() and len(seqs) < BATCHES_MAX:
                seqs.append(hand_over(collection, batch(SEED, writer, len(seqs))).seq)
                time.sleep(0.01)
        except BaseException as error:
            failures.append(error)

    def written() -> dict[tuple[str, int], int]:
        return {key: len(seqs) for key, seqs in list(acknowledged.items())}

    def wait_for(count: int) -> None:
        while sum(written().values()) < min(count, 4 * BATCHES_MAX):
            assert not failures
            time.sleep(0.01)

    with opened(tmp_path / "db", options=WITH_GRAPHS) as database:
        for name in ("docs", "more"):
            database.create_collection(name, schema=SCHEMA)
        threads = [
            threading.Thread(target=write, args=(name, writer)) for name in ("docs", "more") for writer in range(2)
        ]
        for thread in threads:
            thread.start()
        try:
            reports = []
            for number in range(2):
                wait_for(20 * (number + 1))
                before = written()
                enough = sum(before.values()) + 12
                since = tmp_path / f"{number - 1}.vbak" if number else None
                # Whatever is read of the files, more has been written, flushed and graphed by then.
                reports.append(
                    (
                        before,
                        database.backup(
                            tmp_path / f"{number}.vbak",
                            since=since,
                            progress=lambda _, enough=enough: wait_for(min(enough, sum(written().values()) + 2)),
                        ),
                    )
                )
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert not failures
    for number, (before, report) in enumerate(reports):
        target = tmp_path / f"restored-{number}"
        restored = restore([tmp_path / f"{each}.vbak" for each in range(number + 1)], target)
        assert [(each.name, each.seq) for each in restored.collections] == [
            (each.name, each.seq) for each in report.collections
        ]
        for each in report.collections:
            counts = {w: sum(seq <= each.seq for seq in acknowledged[(each.name, w)]) for w in range(2)}
            assert all(counts[writer] >= before.get((each.name, writer), 0) for writer in counts), (
                "acknowledged, not in"
            )
            assert_holds(target, counts, each.name)
            assert each.points == len(state_after(SEED, counts))


def test_a_restored_database_is_another_and_takes_writes(base: Path, tmp_path: Path) -> None:
    with opened(base) as database:
        report = database.backup(tmp_path / "a.vbak")
        first = database.database_id
    restore(tmp_path / "a.vbak", tmp_path / "restored")
    assert_holds(tmp_path / "restored", {1: 5}, "more")
    with opened(tmp_path / "restored") as database:
        assert database.database_id != first
        assert {database.collection(each.name).collection_id for each in report.collections}.isdisjoint(
            {each.collection_id for each in report.collections}
        )
        seq = filled(database, first=12, last=20)
        assert seq > report.collections[0].seq
    assert_holds(tmp_path / "restored", {0: 20})
    assert_holds(base, {0: 12})


def test_a_retry_is_answered_by_the_restored_database(base: Path, tmp_path: Path) -> None:
    with opened(base) as database:
        database.collection("docs").upsert(["x"], {"body": [np.ones(8)]}, request_id="once")
        told = database.collection("docs").upsert(["y"], {"body": [np.ones(8)]}, request_id="twice")
        database.backup(tmp_path / "a.vbak")
    restore(tmp_path / "a.vbak", tmp_path / "restored")
    with opened(tmp_path / "restored") as database:
        docs = database.collection("docs")
        again = docs.upsert(["y"], {"body": [np.ones(8)]}, request_id="twice")
        assert (again.seq, again.upserted) == (told.seq, 1)
        assert docs.stats().last_seq == told.seq
        with pytest.raises(InvalidArgument, match="once"):
            docs.upsert(["z"], {"body": [np.ones(8)]}, request_id="once")


def test_named_snapshots_travel_along(base: Path, tmp_path: Path) -> None:
    with opened(base) as database:
        docs = database.collection("docs")
        docs.flush()
        state = state_of(database, "docs")
        number = state.take_segment_id()
        live = write_array_file(state.directory, f"{number:010d}.live.0", "live", {"live": np.arange(3)})
        kept = SnapshotEntry("monday", 7, state.manifest.flushed_seq, state.manifest.segments, live)
        state.commit(lambda manifest: manifest.with_snapshot(kept))
        # Of what only the snapshot has, nothing is in the present segments any more.
        state.commit(lambda manifest: manifest.without_segments({manifest.segments[0].segment_id}))
        report = database.backup(tmp_path / "a.vbak")
    restore(tmp_path / "a.vbak", tmp_path / "r")
    with opened(tmp_path / "r") as database:
        state = state_of(database, "docs")
        assert state.manifest.snapshots == (kept,)
        assert kept.file_names() <= set(state.directory.names())
        assert len(state.manifest.segments) == len(kept.segments) - 1
    assert report.files > len(kept.file_names())


def test_an_empty_database(tmp_path: Path) -> None:
    with opened(tmp_path / "db") as database:
        assert database.backup(tmp_path / "a.vbak").files == 0
    assert restore(tmp_path / "a.vbak", tmp_path / "r").collections == ()
    with opened(tmp_path / "r") as database:
        assert list(database.collections()) == []


def test_an_incremental_backup_stores_only_what_is_new(base: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.vbak" for number in range(4)]
    with opened(base) as database:
        for name in ("docs", "more"):
            database.collection(name).wait_indexed()
        reports = [database.backup(files[0])]
        for number in range(1, 4):
            if number != 2:
                filled(database, first=12 * number, last=12 * number + 3)
            reports.append(database.backup(files[number], since=files[number - 1]))
    assert reports[0].stored_files == reports[0].files
    assert reports[2].stored_files == 2, "nothing was written: only the metadata of two collections is stored"
    assert 2 < reports[1].stored_files < reports[1].files
    assert len(reports[3].needs) == 2, "the second increment holds no file of a segment"
    assert verify_backup([files[0], files[1], files[3]]).needs == reports[3].needs
    restore([files[1], files[0], files[3]], tmp_path / "r3")
    restore(files[:2], tmp_path / "r1")
    with opened(base) as database, opened(tmp_path / "r3") as restored:
        for name in ("docs", "more"):
            kept = [(each.id, each.payload) for each in database.collection(name).scroll()]
            assert sorted(kept, key=repr) == sorted(
                ((each.id, each.payload) for each in restored.collection(name).scroll()), key=repr
            )


def test_what_a_chain_lacks_is_named(base: Path, tmp_path: Path) -> None:
    full, later = tmp_path / "full.vbak", tmp_path / "later.vbak"
    with opened(base) as database:
        report = database.backup(full)
        database.backup(later, since=full)
        database.backup(tmp_path / "other.vbak")
    for given in ([later], [tmp_path / "other.vbak", later]):
        with pytest.raises(NotFound, match=report.manifest_sha256):
            restore(given, tmp_path / "r")
    assert "r" not in listing(tmp_path)


def test_since_must_be_of_the_same_database(base: Path, tmp_path: Path) -> None:
    with opened(base) as database:
        database.backup(tmp_path / "a.vbak")
    restore(tmp_path / "a.vbak", tmp_path / "r")
    with opened(tmp_path / "r") as database:
        with pytest.raises(InvalidArgument, match="take a full one") as caught:
            database.backup(tmp_path / "b.vbak", since=tmp_path / "a.vbak")
        assert caught.value.field == "since"
        with pytest.raises(NotFound):
            database.backup(tmp_path / "b.vbak", since=tmp_path / "nothing")
    assert not (tmp_path / "b.vbak").exists()


def test_an_increment_of_a_copy_that_went_another_way_holds_what_differs(base: Path, tmp_path: Path) -> None:
    # A copied directory has the same ids and gives its files the same names.
    shutil.copytree(base, tmp_path / "copy")
    with opened(base) as database:
        filled(database, first=12, last=14)
        database.backup(tmp_path / "a.vbak")
    with opened(tmp_path / "copy") as database:
        hand_over(database.collection("docs"), batch(SEED, 3, 0))
        database.backup(tmp_path / "b.vbak", since=tmp_path / "a.vbak")
    restore([tmp_path / "a.vbak", tmp_path / "b.vbak"], tmp_path / "r")
    assert_holds(tmp_path / "r", {0: 12, 3: 1})


def test_a_backup_goes_through_a_pipe(base: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    found: list[bytes] = []

    def drain() -> None:
        with os.fdopen(reading, "rb") as pipe:
            found.append(pipe.read())

    thread = threading.Thread(target=drain)
    thread.start()
    with opened(base) as database, os.fdopen(writing, "wb", buffering=0) as pipe:
        report = database.backup(pipe)
    thread.join()
    assert len(found[0]) == report.size_bytes
    (tmp_path / "a.vbak").write_bytes(found[0])
    assert verify_backup(tmp_path / "a.vbak") == report
    restore(tmp_path / "a.vbak", tmp_path / "r")
    assert_holds(tmp_path / "r", {0: 12})


def test_progress_adds_up(base: Path, tmp_path: Path) -> None:
    done: list[int] = []
    with opened(base) as database:
        report = database.backup(tmp_path / "a.vbak", progress=done.append)
    assert sum(done) == report.size_bytes == (tmp_path / "a.vbak").stat().st_size
    done.clear()
    restored = restore(tmp_path / "a.vbak", tmp_path / "r", progress=done.append)
    assert sum(done) == restored.size_bytes
