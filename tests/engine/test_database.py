"""Opening, creating, dropping and closing, and what is refused."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.engine.conftest import DIM, SMALL
from tests.storage.faults import WRITE_CALLS, FailingFileSystem
from vecdb.engine.check import CheckReport, check_database
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.options import EngineOptions
from vecdb.errors import (
    AlreadyExists,
    Cancelled,
    Corruption,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from vecdb.schema import CollectionSchema, IndexKind, IndexSpec, VectorField
from vecdb.storage.io import FileSystem
from vecdb.types import Metric


def test_a_new_directory_becomes_a_database_and_is_found_again(open_database):
    schema = CollectionSchema(
        (
            VectorField(3, Metric.L2, IndexSpec(IndexKind.HNSW, m=8, ef_construction=50, seed=7), "title"),
            VectorField(5, Metric.DOT, IndexSpec(IndexKind.FLAT), "body"),
        )
    )
    with open_database() as database:
        database.create_collection("文档", schema=schema)
        database.create_collection("b", dim=4)
        identity = database.database_id
    with open_database() as database:
        assert list(database.collections()) == ["b", "文档"]
        assert database.collection("文档").schema == schema
        assert database.collection("b").schema == CollectionSchema.single(4)
        assert database.database_id == identity


def test_files_are_private(open_database, tmp_path: Path, vectors):
    with open_database() as database:
        database.create_collection("c", DIM).upsert([1, 2], vectors[:2])
        database.collection("c").flush()
        database.collection("c").upsert([3], vectors[:1])
    for directory, _, files in os.walk(tmp_path / "db"):
        assert os.stat(directory).st_mode & 0o777 == 0o700, directory
        for name in files:
            assert os.stat(Path(directory, name)).st_mode & 0o777 == 0o600, name


def test_a_name_is_taken_until_it_is_dropped(open_database, vectors):
    database = open_database()
    old = database.create_collection("c", DIM)
    old.upsert([1], vectors[:1])
    with pytest.raises(AlreadyExists) as caught:
        database.create_collection("c", DIM)
    assert (caught.value.field, caught.value.value) == ("collection", "c")
    assert database.create_collection("c", DIM, exist_ok=True).count() == 1
    with pytest.raises(AlreadyExists):
        database.create_collection("c", DIM + 1, exist_ok=True)
    database.drop_collection("c")
    assert list(database.collections()) == []
    new = database.create_collection("c", DIM)
    assert new.count() == 0
    assert new.collection_id != old.collection_id
    with pytest.raises(NotFound):
        old.count()
    with pytest.raises(NotFound):
        database.collection("d")
    with pytest.raises(NotFound):
        database.drop_collection("d")


def test_dropping_removes_the_files(open_database, tmp_path: Path, vectors):
    database = open_database()
    collection = database.create_collection("c", DIM)
    collection.upsert(range(100), vectors[:100])
    collection.flush()
    database.drop_collection("c")
    assert list((tmp_path / "db" / "collections").iterdir()) == []


def test_what_an_interrupted_creation_left_is_removed(open_database, tmp_path: Path):
    open_database().close()
    stray = tmp_path / "db" / "collections" / "0123456789abcdef"
    stray.mkdir()
    (stray / "data.mdb").write_bytes(b"half")
    open_database()
    assert not stray.exists()


@pytest.mark.parametrize("name", ["", "x" * 513, "a\nb", "\ud800", 5])
def test_bad_names_are_refused(open_database, name):
    with pytest.raises(InvalidArgument) as caught:
        open_database().create_collection(name, DIM)
    assert caught.value.field == "collection"


def test_names_never_become_paths(open_database, tmp_path: Path):
    database = open_database()
    database.create_collection("../../evil", DIM)
    database.create_collection("a/b", DIM)
    assert not (tmp_path / "evil").exists()
    assert sorted(database.collections()) == ["../../evil", "a/b"]


def test_a_foreign_directory_is_left_alone(tmp_path: Path, open_database):
    path = tmp_path / "db"
    path.mkdir()
    (path / "thesis.tex").write_text("mine")
    with pytest.raises(FailedPrecondition) as caught:
        open_database()
    assert caught.value.field == "path"
    assert [each.name for each in path.iterdir()] == ["thesis.tex"]


def test_another_format_version_is_refused_before_a_byte_changes(open_database, tmp_path: Path):
    from vecdb.storage.checksum import checksum64

    open_database().close()
    text = b'{"database_id": "00", "format_version": 99, "created_s": 0}'
    (tmp_path / "db" / "VECDB").write_bytes(b"vecdb %s %016x\n" % (text, checksum64(text)))
    with pytest.raises(FailedPrecondition) as caught:
        open_database()
    assert (caught.value.field, caught.value.limit, caught.value.value) == ("format_version", "1", "99")


def test_a_damaged_marker_is_corruption(open_database, tmp_path: Path):
    open_database().close()
    marker = tmp_path / "db" / "VECDB"
    marker.write_bytes(marker.read_bytes().replace(b"format_version", b"format_versiom"))
    with pytest.raises(Corruption, match="VECDB"):
        open_database()


def test_a_lost_marker_never_costs_a_collection(open_database, tmp_path: Path, vectors):
    with open_database() as database:
        database.create_collection("c", DIM).upsert([1], vectors[:1])
    shutil.rmtree(tmp_path / "db" / "catalogue")
    (tmp_path / "db" / "VECDB").unlink()
    before = sorted(tmp_path.rglob("*.log"))
    with pytest.raises(Corruption, match="VECDB"):
        open_database()
    assert sorted(tmp_path.rglob("*.log")) == before != []


def test_a_relative_path_outlives_a_change_of_the_working_directory(
    open_database, tmp_path: Path, vectors, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    database = open_database(path=Path("db"))
    collection = database.create_collection("c", DIM)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for start in range(0, 300, 50):
        collection.upsert(range(start, start + 50), vectors[start : start + 50])
    collection.flush()
    assert collection.count() == 300
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_dropping_ends_the_calls_that_wait(open_database, vectors):
    database = open_database()
    collection = database.create_collection("c", DIM)
    collection.upsert([1], vectors[:1])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(collection.search, vectors[0], read_after_seq=99)
        time.sleep(0.1)
        database.drop_collection("c")
        with pytest.raises(Cancelled):
            waiting.result(timeout=10)
    database.close()


def test_a_collection_can_be_dropped_on_a_full_disk(open_database, tmp_path: Path, vectors):
    file_system = FullAtMirrors()
    database = open_database(file_system=file_system)
    database.create_collection("c", DIM).upsert(range(50), vectors[:50])
    file_system.full = True
    database.drop_collection("c")
    assert list((tmp_path / "db" / "collections").iterdir()) == []
    file_system.full = False
    database.create_collection("c", DIM)
    database.close()
    assert list(open_database().collections()) == ["c"]


class FullAtMirrors(FileSystem):
    """No file that is written under a temporary name can be completed while the disk is full."""

    full = False

    def rename(self, source: Path, target: Path) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().rename(source, target)


def opened(path: Path, file_system: FileSystem | None = None) -> EmbeddedDatabase:
    return EmbeddedDatabase.open(path, options=replace(SMALL, kernels="reference"), file_system=file_system)


def test_a_database_that_could_not_be_made_whole_is_made_the_next_time(tmp_path: Path):
    """No space, at each call of the making: it fails, or what it made opens again though nothing was added."""
    for n in range(1, 200):
        path = tmp_path / str(n)
        file_system = FailingFileSystem(errno.ENOSPC, n, calls=[call for call in WRITE_CALLS if call != "committed"])
        with suppress(ResourceExhausted, Unavailable), opened(path, file_system):
            pass
        with opened(path) as database:
            assert not database.collections()
        if file_system.total < n:
            return
    pytest.fail("the calls never came to an end")


def test_one_damaged_segment_leaves_the_others_readable(open_database, tmp_path: Path, vectors):
    with open_database() as database:
        collection = database.create_collection("c", DIM)
        collection.upsert(range(30), vectors[:30])
        collection.flush()
        collection.upsert(range(100, 130), vectors[30:60])
        collection.flush()
    damaged = next(tmp_path.rglob("0000000001.vectors.*"))
    damaged.chmod(0o600)
    data = bytearray(damaged.read_bytes())
    data[-10] ^= 1
    damaged.write_bytes(data)
    database = open_database(replace(SMALL, graph_rows_min=10))
    collection = database.collection("c")
    assert collection.count() == 60
    assert [point.id for point in collection.get([5, 105])] == [5, 105]
    np.testing.assert_allclose(collection.get([105], with_vectors=True)[0].vector, vectors[35], rtol=3e-7)
    with pytest.raises(Corruption, match=r"0000000001\.vectors"):
        collection.search(vectors[0])
    report = check_after_closing(database, tmp_path / "db")
    assert any("0000000001.vectors" in problem.file for problem in report.problems)


def check_after_closing(database: EmbeddedDatabase, path: Path) -> CheckReport:
    database.close()
    return check_database(path)


def test_a_whole_database_has_no_problems(open_database, tmp_path: Path, vectors):
    database = open_database()
    collection = database.create_collection("c", DIM)
    collection.upsert(range(100), vectors[:100], request_id="a")
    collection.wait_indexed()
    collection.upsert(range(50), vectors[100:150])
    collection.delete([60, 61], request_id="b")
    collection.flush()
    collection.upsert([7], vectors[:1])
    report = check_after_closing(database, tmp_path / "db")
    assert report.problems == ()
    assert report.collections == 1
    assert report.points == 98
    assert report.files > 10


def _open_and_report(path: str, queue: multiprocessing.Queue) -> None:
    try:
        EmbeddedDatabase.open(path, options=SMALL).close()
        queue.put("opened")
    except FailedPrecondition as error:
        queue.put(error.message)


def test_a_second_process_is_refused_and_told_who_holds_the_directory(open_database, tmp_path: Path):
    database = open_database()
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    for expected in (f"{os.getpid()}", "opened"):
        child = context.Process(target=_open_and_report, args=(str(tmp_path / "db"), queue))
        child.start()
        assert expected in queue.get(timeout=60)
        child.join()
        database.close()


def test_a_closed_database_refuses_every_call(open_database, vectors):
    database = open_database()
    collection = database.create_collection("c", DIM)
    database.close()
    database.close()
    for call in (
        lambda: database.collections(),
        lambda: database.collection("c"),
        lambda: database.create_collection("d", DIM),
        lambda: database.drop_collection("c"),
        lambda: collection.count(),
        lambda: collection.upsert([1], vectors[:1]),
        lambda: collection.search(vectors[0]),
        lambda: collection.stats(),
        lambda: collection.flush(),
    ):
        with pytest.raises(FailedPrecondition, match="closed"):
            call()


def test_more_collections_than_may_be_open_work_all_the_same(open_database, vectors):
    options = replace(SMALL, open_collections_max=3)
    with open_database(options) as database:
        handles = [database.create_collection(f"c{number}", DIM) for number in range(10)]
        for turn in range(3):
            for number, handle in enumerate(handles):
                handle.upsert([turn], vectors[number : number + 1])
    with open_database(options) as database:
        assert [database.collection(f"c{number}").count() for number in range(10)] == [3] * 10


@pytest.mark.parametrize(
    ("name", "value"),
    [("memtable_size_bytes", 0), ("writer_threads", 65), ("kernels", "abacus"), ("graph_rows_min", 0)],
)
def test_bad_options_name_the_limit(name, value):
    with pytest.raises(InvalidArgument) as caught:
        EngineOptions(**{name: value})
    assert caught.value.field == name
    assert caught.value.limit
    assert caught.value.value == str(value)
