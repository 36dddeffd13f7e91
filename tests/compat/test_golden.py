"""Every released version's database opens and holds, row by row, what its model says."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.compat.make_golden import DATABASE, EXPECTED, GOLDEN, OPTIONS, Stored, archive, decode, encode, expected
from tests.crash.observe import ranking_differences, same_vectors
from tests.trust import Trust
from tests.walking import WALKS
from vecdb.api import Collection
from vecdb.engine.check import check_database
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.marker import FORMAT_VERSION
from vecdb.types import PointId

ARCHIVES = sorted(GOLDEN.glob("version-*.tar.xz"))


def unpacked(packed: Path, place: Path) -> tuple[Path, dict[str, dict[PointId, Stored]]]:
    with tarfile.open(packed) as archived:
        archived.extractall(place, filter="data")
    return place / DATABASE, decode((place / EXPECTED).read_bytes())


def check(trust: Trust, collection: Collection, points: dict[PointId, Stored]) -> None:
    """Compare every row, payload, vector, count and exact search with the model."""
    trust.points("P12", 2 * len(points) + 12 * len(collection.schema.vectors))
    found = list(collection.scroll(with_vectors=True, page_rows=33))
    assert len(found) == len(points) == collection.count()
    assert {each.id for each in found} == points.keys()
    for each in [*found, *collection.get(list(points), with_vectors=True)]:
        assert each.payload == points[each.id].payload
        assert same_vectors(each.vectors, points[each.id].vectors)
    tags = {stored.payload["tag"] for stored in points.values()}
    for tag in tags:
        wanted = sum(stored.payload["tag"] == tag for stored in points.values())
        assert collection.count("tag = :tag", params={"tag": tag}) == wanted
    chance = np.random.default_rng(3)
    strategies = set()
    for declared in collection.schema.vectors:
        allowed = {key: x.vectors[declared.name] for key, x in points.items() if declared.name in x.vectors}
        for query in chance.standard_normal((4, declared.dim)).astype(np.float32):
            for k, recall in ((len(points) + 5, "exact"), (7, "exact"), (7, 0.95)):
                hits = collection.search(query, k, field=declared.name, recall=recall)
                strategies.update(hits.strategy.split("+"))
                assert not ranking_differences(
                    hits.ids, hits.distances.tolist(), allowed, query, declared.metric, k, exact=recall == "exact"
                )
    assert "graph" in strategies


@pytest.mark.parametrize("packed", ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def test_a_released_database_opens_and_holds_what_its_model_says(packed: Path, tmp_path: Path, trust: Trust) -> None:
    path, collections = unpacked(packed, tmp_path)
    for session in range(3):
        with EmbeddedDatabase.open(path, options=replace(OPTIONS, search_costs=WALKS)) as database:
            assert set(database.collections()) == collections.keys()
            for name, held in collections.items():
                collection = database.collection(name)
                if session == 0:
                    # What was only in the log, of a session that was closed and of one that was killed.
                    assert collection.stats().memtable_rows
                check(trust, collection, held)
                if session == 1:
                    field = collection.schema.vectors[0]
                    stored = Stored({"tag": "of today"}, {field.name: np.ones(field.dim, np.float32)})
                    collection.upsert([7, "new"], {field.name: [stored.vectors[field.name]] * 2}, [stored.payload] * 2)
                    collection.delete([8])
                    held |= dict.fromkeys([7, "new"], stored)
                    held.pop(8, None)
                    collection.wait_indexed(60)
                    check(trust, collection, held)
        report = check_database(path)
        assert report.ok, report.problems


def test_there_is_a_database_of_the_present_version(tmp_path: Path) -> None:
    packed = archive(FORMAT_VERSION)
    assert packed in ARCHIVES, "run: python -m tests.compat.make_golden"
    assert packed.stat().st_size < 300_000
    unpacked(packed, tmp_path)
    told = (tmp_path / EXPECTED).read_bytes()
    assert told == encode(expected()), "the archive is not the model's: run: python -m tests.compat.make_golden"
