"""The check sees what checksums cannot: files that are whole and do not fit each other, strays, what nothing names."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.crash.history import State
from tests.engine.repairing import (
    DOCS,
    build,
    checked,
    collection_path,
    copied,
    flip,
    manifest_of,
    stored_live,
    wrong,
)
from vecdb.bitmap import LiveRows
from vecdb.engine.manifest import MANIFEST_KEY, Manifest, changed_live_chunks, live_keys
from vecdb.engine.problem import Kind
from vecdb.engine.repair import repair_database
from vecdb.segment.layout import Role, SegmentEntry, SegmentFile
from vecdb.storage.array_file import ArrayFile, write_array_file
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem
from vecdb.storage.lmdb_store import LmdbStore
from vecdb.storage.mirror import write_mirror
from vecdb.types import AnyArray


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State]:
    path = tmp_path_factory.mktemp("built") / "db"
    return path, build(path, batches=20)


def commit(directory: Path, change: Callable[[Manifest, dict[int, LiveRows]], Manifest]) -> None:
    """Commit a changed manifest and changed live rows, as the engine would."""
    opened = MmapDirectory(directory, FileSystem())
    store = LmdbStore.open(opened)
    manifest = Manifest.decode(store.get(MANIFEST_KEY) or b"", "")
    live = stored_live(store, manifest)
    manifest = change(manifest, live)
    gone = [key for each in manifest.segments for key in live_keys(each)]
    puts = {MANIFEST_KEY: manifest.encode()}
    for number, rows in live.items():
        puts.update(changed_live_chunks(number, None, rows))
    store.commit(puts, gone)
    write_mirror(opened, "mirror", manifest.encode(), store.fingerprint())
    store.close()


def replace_arrays(directory: Path, role: Role, field: str, change: Callable[[dict[str, AnyArray]], None]) -> None:
    """Write a file of the first segment again with other arrays, whole and named by the manifest."""
    opened = MmapDirectory(directory, FileSystem())

    def changed(manifest: Manifest, _: dict[int, LiveRows]) -> Manifest:
        entry: SegmentEntry = manifest.segments[0]
        file = entry.file(role, field)
        assert file is not None
        arrays = {name: array.copy() for name, array in ArrayFile.open(opened, file.ref).arrays.items()}
        change(arrays)
        (directory / file.ref.name).unlink()
        ref = write_array_file(opened, file.ref.name, role.value, arrays)
        old = {each.ref.name for each in entry.files} - {file.ref.name}
        assert old
        manifest = manifest.with_segment(entry.with_file(SegmentFile(role, field, file.generation, ref)))
        # Snapshots name the old file; this is about the present.
        return replace(manifest, snapshots=())

    commit(directory, changed)


def told(path: Path) -> list[str]:
    problems = [each for each in checked(path).problems if each.kind is not Kind.STRAY]
    assert all(each.kind is Kind.INCONSISTENT for each in problems), problems
    return [f"{each.file} {each.message}" for each in problems]


def swap_hashes(arrays: dict[str, AnyArray]) -> None:
    arrays["hash_rows"][[0, 1]] = arrays["hash_rows"][[1, 0]]


def other_codes(arrays: dict[str, AnyArray]) -> None:
    arrays["codes"][3, 0] ^= 1


def isolated(arrays: dict[str, AnyArray]) -> None:
    arrays["links"][arrays["links"] == 7] = -1
    arrays["links"][:] = -np.sort(-arrays["links"], axis=1)


def no_links(arrays: dict[str, AnyArray]) -> None:
    arrays["links"][5] = -1


def hole_in_links(arrays: dict[str, AnyArray]) -> None:
    arrays["links"][5, 0], arrays["links"][5, -1] = -1, arrays["links"][5, 0]


def own_link(arrays: dict[str, AnyArray]) -> None:
    arrays["links"][5, 0] = 5


@pytest.mark.parametrize(
    ("role", "field", "change", "words"),
    [
        (Role.IDS, "", swap_hashes, "id index"),
        (Role.CODES, "body", other_codes, "codes do not fit"),
        (Role.GRAPH, "body", isolated, "cannot be reached"),
        (Role.GRAPH, "body", no_links, "no links"),
        (Role.GRAPH, "body", hole_in_links, "behind"),
        (Role.GRAPH, "body", own_link, "themselves"),
    ],
)
def test_what_is_derived_is_compared_and_derived_again(
    built: tuple[Path, State],
    tmp_path: Path,
    role: Role,
    field: str,
    change: Callable[[dict[str, AnyArray]], None],
    words: str,
):
    path = copied(built[0], tmp_path / "db")
    directory = collection_path(path)
    replace_arrays(directory, role, field, change)
    found = told(path)
    assert any(words in each for each in found), found
    assert all("segment 1" in each for each in found)
    report = repair_database(path)
    assert report.needed
    assert report.losses == ()
    assert told(path) == []
    assert wrong(path, built[1]) == []


def test_a_live_row_too_many_or_too_few_is_seen(built: tuple[Path, State], tmp_path: Path):
    def resurrect(manifest: Manifest, live: dict[int, LiveRows]) -> Manifest:
        number = next(number for number, rows in live.items() if rows.count() < rows.size)
        live[number] = LiveRows.full(live[number].size)
        return manifest

    def kill(manifest: Manifest, live: dict[int, LiveRows]) -> Manifest:
        number = next(number for number, rows in live.items() if rows.count())
        live[number] = live[number].without(live[number].bitmap().rows()[:1].tolist())
        return manifest

    for change, words in ((resurrect, "live"), (kill, "dead")):
        path = copied(built[0], tmp_path / words)
        commit(collection_path(path), change)
        assert any(f"are {words}, which" in each for each in told(path))


def test_seqs_beyond_what_is_flushed_are_seen(built: tuple[Path, State], tmp_path: Path):
    path = copied(built[0], tmp_path / "db")
    commit(collection_path(path), lambda manifest, _: replace(manifest, flushed_seq=3))
    assert any("only 3 are flushed" in each.message for each in checked(path).problems)


def test_strays_are_named(built: tuple[Path, State], tmp_path: Path):
    path = copied(built[0], tmp_path / "db")
    directory = collection_path(path)
    places = [path, path / "catalogue", path / "collections", directory, directory / "log"]
    for place in places:
        (place / "stray-file").write_bytes(b"")
        (place / "stray-directory").mkdir()
    found = [each.file for each in checked(path).problems if each.kind is Kind.STRAY]
    assert len(found) == len(checked(path).problems)
    for place in places:
        for name in ("stray-file", "stray-directory"):
            assert any(each.endswith(f"{place.name}/{name}") for each in found), (place, name, found)
    assert not repair_database(path).needed


@pytest.mark.parametrize("how", ["missing", "empty", "noise"])
def test_the_check_goes_on_whatever_is_damaged(built: tuple[Path, State], tmp_path: Path, how: str):
    """Every file at once, then each directory: a report, and never another error."""
    path = copied(built[0], tmp_path / "db")
    chance = np.random.default_rng(1)
    files = [each for each in sorted(path.rglob("*")) if each.is_file() and each.name != "LOCK"]
    for file in files:
        if how == "missing":
            file.unlink()
        else:
            file.write_bytes(b"" if how == "empty" else chance.bytes(file.stat().st_size))
    assert len(checked(path).problems) >= 4
    for place in (path / "collections", path / "catalogue", collection := next((path / "collections").iterdir())):
        assert collection
        again = copied(built[0], tmp_path / place.name)
        target = again / place.relative_to(path) if place != collection else collection_path(again)
        shutil.rmtree(target)
        assert checked(again).problems
    alone = copied(built[0], tmp_path / "one by one")
    flip(collection_path(alone) / "data.mdb", 20)
    flip(collection_path(alone) / "0000000001.vectors.0.0", 20)
    named = {Path(each.file).name for each in checked(alone).problems}
    assert {"data.mdb", "0000000001.vectors.0.0"} <= named, "one damage hides another"
    assert manifest_of(collection_path(alone)).collection == DOCS
