"""Lost metadata, mirrors, catalogues and markers come back whole: every row, payload, delete, snapshot and request."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.crash.history import SCHEMA, State, applied, batch
from tests.crash.observe import differences, observe
from tests.crash.workload import OPTIONS, hand_over
from tests.engine.repairing import (
    BATCHES,
    DOCS,
    OTHER,
    SEED,
    SNAPSHOT,
    build,
    checked,
    collection_path,
    copied,
    flip,
    snapshot_ids,
    wrong,
)
from tests.property.freezing import FreezableFileSystem
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.repair import repair_database
from vecdb.errors import Corruption, FailedPrecondition


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State]:
    path = tmp_path_factory.mktemp("built") / "db"
    return path, build(path)


def removed(path: Path) -> None:
    path.unlink()


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    for offset in range(0, path.stat().st_size, 311):
        flip(path, offset)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES: list[Callable[[Path], None]] = [removed, truncated, flipped, emptied]


def digest(path: Path) -> dict[str, bytes]:
    return {str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.name != "LOCK"
            and each.is_file()}  # fmt: skip


def test_a_healthy_database_is_left_alone(built: tuple[Path, State], tmp_path: Path):
    path = copied(built[0], tmp_path / "db")
    before = digest(path)
    report = repair_database(path)
    assert (report.needed, report.actions, report.losses, report.quarantine) == (False, (), (), "")
    assert digest(path) == before


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_lost_environment_is_rebuilt_with_every_delete(
    built: tuple[Path, State], tmp_path: Path, damage: Callable[[Path], None]
):
    path, state = copied(built[0], tmp_path / "db"), built[1]
    directory = collection_path(path)
    snapshots = snapshot_ids(directory)
    log = digest(directory / "log")
    damage(directory / "data.mdb")
    with EmbeddedDatabase.open(path, options=OPTIONS) as database:
        with pytest.raises(Corruption, match=r"data\.mdb.*vecdb check.*vecdb repair"):
            database.collection(DOCS)
        other = database.collection(OTHER)
        assert not differences(observe(other, [0]), state)
    assert not checked(path).ok
    report = repair_database(path)
    assert [action.file for action in report.actions] == [f"collections/{directory.name}/data.mdb"]
    assert report.losses == ()
    assert checked(path).problems == ()
    assert snapshot_ids(directory) == snapshots != {SNAPSHOT: set()}
    assert digest(directory / "log") == log, "the log is none of this repair's business"
    assert not repair_database(path).needed
    assert wrong(path, state) == []


def test_an_older_copy_of_the_environment_is_not_taken_for_the_present_one(tmp_path: Path):
    path = tmp_path / "db"
    build(path, batches=20, snapshot=False)
    old = collection_path(path) / "data.mdb"
    kept = old.read_bytes()
    state: State = {}
    for number in range(20):
        state = applied(state, batch(SEED, 0, number))
    with EmbeddedDatabase.open(path, options=OPTIONS) as database:
        collection = database.collection(DOCS)
        for number in range(20, 30):
            hand_over(collection, batch(SEED, 0, number))
            state = applied(state, batch(SEED, 0, number))
        collection.flush()
    present = old.read_bytes()
    old.write_bytes(kept)
    with EmbeddedDatabase.open(path, options=OPTIONS) as database, pytest.raises(Corruption, match="stale"):
        database.collection(DOCS)
    report = repair_database(path)
    assert "stale" in report.actions[0].reason
    assert report.losses == ()
    assert wrong(path, state) == []
    # Neither the old copy nor the one from just before the repair passes for newer than what was rebuilt.
    for data in (kept, present):
        old.write_bytes(data)
        assert any("data.mdb" in each.file for each in checked(path).problems)
        repair_database(path)
        assert wrong(path, state) == []


@pytest.mark.parametrize("damage", [removed, flipped])
@pytest.mark.parametrize("file", ["collections/*/mirror", "catalogue/mirror", "catalogue/data.mdb", "VECDB"])
def test_other_metadata_is_rebuilt(
    built: tuple[Path, State], tmp_path: Path, damage: Callable[[Path], None], file: str
):
    path, state = copied(built[0], tmp_path / "db"), built[1]
    directory = collection_path(path)
    snapshots = snapshot_ids(directory)
    damaged = directory / "mirror" if "*" in file else path / file
    damage(damaged)
    name = str(damaged.relative_to(path))
    if file.startswith("collections"):
        with EmbeddedDatabase.open(path, options=OPTIONS) as database, pytest.raises(Corruption, match="mirror"):
            database.collection(DOCS)
    else:
        with pytest.raises(Corruption, match=rf"{damaged.name}.*vecdb repair"):
            EmbeddedDatabase.open(path, options=OPTIONS)
    assert not checked(path).ok
    report = repair_database(path)
    assert [action.file for action in report.actions] == [name]
    assert [loss.kind for loss in report.losses] == (["identity"] if file == "VECDB" else [])
    assert checked(path).problems == ()
    assert snapshot_ids(directory) == snapshots
    assert wrong(path, state) == []
    assert (path / report.quarantine / name).exists() == (damage is not removed)


def test_a_catalogue_without_anything_is_made_of_the_collections(built: tuple[Path, State], tmp_path: Path):
    path, state = copied(built[0], tmp_path / "db"), built[1]
    shutil.rmtree(path / "catalogue")
    (path / "VECDB").unlink()
    with pytest.raises(Corruption, match=r"VECDB.*vecdb repair"):
        EmbeddedDatabase.open(path, options=OPTIONS)
    report = repair_database(path)
    assert {action.file for action in report.actions} == {"VECDB", "catalogue/data.mdb"}
    assert checked(path).problems == ()
    assert wrong(path, state) == wrong(path, state, OTHER) == []


def test_a_collection_of_which_nothing_tells_goes_to_the_quarantine(built: tuple[Path, State], tmp_path: Path):
    path, state = copied(built[0], tmp_path / "db"), built[1]
    directory = collection_path(path)
    content = digest(directory)
    for name in ("data.mdb", "mirror"):
        flipped(directory / name)
        content[name] = (directory / name).read_bytes()
    report = repair_database(path)
    assert [(loss.collection, loss.kind) for loss in report.losses] == [(DOCS, "collection")]
    assert digest(path / report.quarantine / "collections" / directory.name) == content
    assert checked(path).problems == ()
    with EmbeddedDatabase.open(path, options=OPTIONS) as database:
        assert list(database.collections()) == [OTHER]
        database.create_collection(DOCS, schema=SCHEMA)
    assert wrong(path, state, OTHER) == []


def test_a_missing_directory_of_a_collection_is_told(built: tuple[Path, State], tmp_path: Path):
    path, state = copied(built[0], tmp_path / "db"), built[1]
    shutil.rmtree(collection_path(path))
    with EmbeddedDatabase.open(path, options=OPTIONS) as database:
        with pytest.raises(Corruption, match=r"is missing.*vecdb repair"):
            database.collection(DOCS)
        assert not differences(observe(database.collection(OTHER), [0]), state)
    assert [loss.kind for loss in repair_database(path).losses] == ["collection"]
    assert checked(path).problems == ()
    assert wrong(path, state, OTHER) == []


def test_what_is_no_database_is_refused(tmp_path: Path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(FailedPrecondition):
        repair_database(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["letter.txt"]


def test_a_retry_is_answered_after_a_rebuild(tmp_path: Path):
    path = tmp_path / "db"
    with EmbeddedDatabase.open(path, options=OPTIONS) as database:
        collection = database.create_collection(DOCS, schema=SCHEMA)
        told = [hand_over(collection, batch(SEED, 0, number)) for number in range(12)]
        collection.flush()
        told += [hand_over(collection, batch(SEED, 0, number)) for number in range(12, 15)]
    (collection_path(path) / "data.mdb").unlink()
    assert repair_database(path).losses == ()
    with EmbeddedDatabase.open(path, options=OPTIONS) as database:
        collection = database.collection(DOCS)
        for number in range(15):
            again = hand_over(collection, batch(SEED, 0, number))
            assert (again.seq, again.upserted, again.deleted) == (
                told[number].seq,
                told[number].upserted,
                told[number].deleted,
            )


@given(seed=st.integers(0, 2**32), batches=st.integers(1, BATCHES), flushes=st.sets(st.integers(0, BATCHES)),
       killed=st.booleans())  # fmt: skip
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_history_survives_the_loss_of_its_environment(
    tmp_path_factory: pytest.TempPathFactory, seed: int, batches: int, flushes: set[int], killed: bool
):
    place = tmp_path_factory.mktemp("history")
    path = place / "db"
    file_system = FreezableFileSystem()
    state: State = {}
    told = []
    with EmbeddedDatabase.open(path, options=OPTIONS, file_system=file_system) as database:
        collection = database.create_collection(DOCS, schema=SCHEMA)
        for number in range(batches):
            told.append(hand_over(collection, batch(seed, 0, number)))
            state = applied(state, batch(seed, 0, number))
            if number in flushes:
                collection.flush()
        if killed:
            file_system.copy(path, place / "left")
    path = place / "left" if killed else path
    (collection_path(path) / "data.mdb").unlink()
    assert repair_database(path).losses == ()
    assert [each for each in checked(path).problems if each.kind.value != "stray"] == []
    with EmbeddedDatabase.open(path, options=OPTIONS) as database:
        collection = database.collection(DOCS)
        assert differences(observe(collection, [0]), state) == []
        chosen = int(np.random.default_rng(seed).integers(batches))
        again = hand_over(collection, batch(seed, 0, chosen))
        changed = told[chosen].upserted or told[chosen].deleted
        if changed:
            assert (again.seq, again.upserted) == (told[chosen].seq, told[chosen].upserted)
            assert differences(observe(collection, [0]), state) == []
    shutil.rmtree(place)
