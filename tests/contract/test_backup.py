"""Backups of an embedded database and of a server's are the same, whoever asks for them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.contract.implementations import open_embedded
from tests.contract.memory_database import MemoryDatabase
from vecdb import restore, verify_backup
from vecdb.errors import AlreadyExists, InvalidArgument, NotFound


@pytest.fixture(autouse=True)
def with_files(database: Any) -> None:
    if isinstance(database, MemoryDatabase):
        pytest.skip("the oracle has no files")


def filled(database: Any, first: int, last: int) -> None:
    docs = database.create_collection("docs", dim=3, exist_ok=True)
    ids = range(first, last)
    docs.upsert(ids, np.random.default_rng(first).standard_normal((len(ids), 3)), [{"n": each} for each in ids])
    docs.delete([first])


def points(database: Any) -> dict[Any, Any]:
    found = database.collection("docs").scroll(with_vectors=True)
    return {each.id: (each.payload, {name: vector.tolist() for name, vector in each.vectors.items()}) for each in found}


def test_a_backup_holds_every_acknowledged_write(database: Any, tmp_path: Path) -> None:
    filled(database, 0, 50)
    database.create_collection("empty", dim=2)
    done: list[int] = []
    report = database.backup(tmp_path / "a.vbak", progress=done.append)
    assert [(each.name, each.seq, each.points) for each in report.collections] == [("docs", 2, 49), ("empty", 0, 0)]
    assert report.collections[0].collection_id == database.collection("docs").collection_id
    assert report.size_bytes == sum(done) == (tmp_path / "a.vbak").stat().st_size
    assert verify_backup(tmp_path / "a.vbak") == report
    restore(tmp_path / "a.vbak", tmp_path / "r")
    with open_embedded(tmp_path / "r") as restored:
        assert points(restored) == points(database)
        query = [0.3, -0.2, 0.9]
        hits, wanted = (each.collection("docs").search(query, recall="exact") for each in (restored, database))
        assert (list(hits.ids), hits.distances.tolist()) == (list(wanted.ids), wanted.distances.tolist())


def test_an_increment_and_what_it_is_refused_for(database: Any, tmp_path: Path) -> None:
    filled(database, 0, 50)
    full = database.backup(tmp_path / "full.vbak")
    filled(database, 100, 120)
    report = database.backup(tmp_path / "later.vbak", since=tmp_path / "full.vbak")
    assert report.needs == (full.manifest_sha256,)
    assert report.stored_files < report.files
    restore([tmp_path / "full.vbak", tmp_path / "later.vbak"], tmp_path / "r")
    with open_embedded(tmp_path / "r") as restored:
        assert points(restored) == points(database)
        restored.backup(tmp_path / "other.vbak")
    with pytest.raises(InvalidArgument) as caught:
        database.backup(tmp_path / "b.vbak", since=tmp_path / "other.vbak")
    assert caught.value.field == "since"
    with pytest.raises(AlreadyExists):
        database.backup(tmp_path / "full.vbak")
    with pytest.raises(NotFound):
        database.backup(tmp_path / "b.vbak", since=tmp_path / "nothing")
    with pytest.raises(InvalidArgument):
        database.backup(None)
    assert sorted(each.name for each in tmp_path.glob("*.vbak*")) == ["full.vbak", "later.vbak", "other.vbak"]


def test_a_backup_into_a_file_object(database: Any, tmp_path: Path) -> None:
    filled(database, 0, 50)
    stream = io.BytesIO()
    report = database.backup(stream)
    (tmp_path / "a.vbak").write_bytes(stream.getvalue())
    assert verify_backup(tmp_path / "a.vbak") == report


def test_a_target_that_fails_fails_the_backup(database: Any, tmp_path: Path) -> None:
    filled(database, 0, 50)

    class Failing(io.RawIOBase):
        def write(self, data: Any) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        database.backup(Failing())
    # Nothing is held, and the next one works.
    database.backup(tmp_path / "a.vbak")
    verify_backup(tmp_path / "a.vbak")
