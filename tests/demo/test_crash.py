"""The crash test judges rightly: it finds every kind of damage, and a real kill -9 leaves none."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.demo import crash as crash_module
from vecdb.demo.crash import BATCH_ROWS, BatchPlan, KilledWriter, inspected, kill_a_writer
from vecdb.demo.row import Row
from vecdb.errors import Internal

DIM = 16


def _rows(prefix: str, count: int, rng: np.random.Generator) -> list[Row]:
    vectors = rng.standard_normal((count, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [Row(f"{prefix}{number}", {"n": number}, vector) for number, vector in enumerate(vectors)]


class _Stored:
    """Points as a collection would give them."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = {row.id: row for row in rows}

    def scroll(self, *, with_vectors: bool) -> list[Any]:
        assert with_vectors
        return [SimpleNamespace(id=row.id, payload=row.payload, vector=row.vector) for row in self.rows.values()]


ACKNOWLEDGED = 7


@pytest.fixture
def scene(rng):
    """What was settled, the plan, and a writer that got ``ACKNOWLEDGED`` batches acknowledged and one under way."""
    settled = _rows("old", 30, rng)
    plan = BatchPlan(_rows("new", 50, rng))
    writer = KilledWriter(Path("unused"), "unused", plan)
    writer.acknowledged, writer.begun = ACKNOWLEDGED, ACKNOWLEDGED + 1
    return settled, plan, writer


def _inspect(scene, stored):
    settled, plan, writer = scene
    return inspected(stored, plan, writer, {row.id: row for row in settled}, 0.0)


def _after(scene, batches):
    settled, plan, _ = scene
    return _Stored([*settled, *plan.after(batches).values()])


def test_the_plan_inserts_and_then_rewrites(scene):
    _, plan, _ = scene
    batches = [plan.batch(number) for number in range(10)]
    assert all(len({row.id for row in batch}) == len(batch) == BATCH_ROWS for batch in batches)
    after = plan.after(10)
    assert set(after) == {row.id for row in plan.rows}
    assert {row.payload["revision"] for row in after.values()} == {4}
    again = {row.id: row for batch in batches for row in batch}
    assert {key: row.payload for key, row in again.items()} == {key: row.payload for key, row in after.items()}


@pytest.mark.parametrize(("batches", "in_flight"), [(ACKNOWLEDGED, "none"), (ACKNOWLEDGED + 1, "all")])
def test_a_kept_promise_is_seen_as_kept(scene, batches, in_flight):
    report = _inspect(scene, _after(scene, batches))
    assert report.kept
    assert report.in_flight == in_flight
    assert report.in_mid_write
    assert (report.acknowledged_batches, report.acknowledged_row_writes) == (ACKNOWLEDGED, ACKNOWLEDGED * BATCH_ROWS)
    assert report.compared_rows == 50  # 140 writes went to 50 rows


def test_between_two_writes_no_batch_is_in_flight(scene):
    scene[2].begun = ACKNOWLEDGED
    report = _inspect(scene, _after(scene, ACKNOWLEDGED))
    assert report.kept
    assert not report.in_mid_write
    # What was never begun must not be there.
    assert not _inspect(scene, _after(scene, ACKNOWLEDGED + 1)).kept


def test_a_missing_batch_is_lost(scene):
    report = _inspect(scene, _after(scene, ACKNOWLEDGED - 1))
    assert not report.kept
    assert report.lost_rows == BATCH_ROWS


@pytest.mark.parametrize("change", ["gone", "payload", "vector"])
@pytest.mark.parametrize(("prefix", "counted"), [("old", "disturbed_rows"), ("new", "lost_rows")])
def test_one_wrong_row_is_found(scene, change, prefix, counted):
    stored = _after(scene, ACKNOWLEDGED)
    key = next(key for key in stored.rows if key.startswith(prefix))
    row = stored.rows.pop(key)
    if change == "payload":
        stored.rows[key] = replace(row, payload={**row.payload, "n": -1})
    elif change == "vector":
        vector = row.vector.copy()
        vector[3] += 1e-3
        stored.rows[key] = replace(row, vector=vector)
    report = _inspect(scene, stored)
    assert not report.kept
    assert getattr(report, counted) == 1


def test_half_a_batch_is_found(scene):
    _, plan, _ = scene
    stored = _after(scene, ACKNOWLEDGED)
    for row in plan.batch(ACKNOWLEDGED)[:3]:
        stored.rows[row.id] = row
    report = _inspect(scene, stored)
    assert report.in_flight == "part"
    assert not report.kept


def test_a_row_nobody_wrote_is_found(scene, rng):
    stored = _after(scene, ACKNOWLEDGED)
    stored.rows["stray"] = replace(_rows("x", 1, rng)[0], id="stray")
    assert _inspect(scene, stored).stray_rows == 1


def test_a_batch_beyond_the_one_in_flight_is_found(scene):
    assert not _inspect(scene, _after(scene, ACKNOWLEDGED + 2)).kept


def test_a_real_kill_loses_nothing(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(crash_module, "KILL_AFTER_S_MIN", 0.05)
    monkeypatch.setattr(crash_module, "KILL_AFTER_S_MAX", 0.3)
    settled, held_back = _rows("old", 200, rng), _rows("new", 90, rng)
    path = tmp_path / "kb"
    with vecdb.open(path) as database:
        collection = database.create_collection("docs", dim=DIM)
        collection.upsert(
            [row.id for row in settled], np.stack([row.vector for row in settled]), [row.payload for row in settled]
        )
    acknowledged: list[int] = []
    report, database = kill_a_writer(path, "docs", {row.id: row for row in settled}, held_back, acknowledged.append)
    with database:
        assert report.kept, report
        assert report.acknowledged_row_writes == sum(acknowledged) > 0
        assert 0 < report.compared_rows <= len(held_back)
        assert report.in_flight in ("all", "none", "idle")


def test_the_writer_announces_each_write_before_its_acknowledgement(tmp_path, rng):
    path = tmp_path / "kb"
    with vecdb.open(path) as database:
        database.create_collection("docs", dim=DIM)
    plan = BatchPlan(_rows("new", 20, rng))
    said = subprocess.run(
        [sys.executable, "-m", "vecdb.demo.writer", str(path), "docs"],
        input="".join(crash_module._encoded(plan.batch(number)) for number in range(3)),
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    lines = [line.split()[:2] for line in said.splitlines()]
    assert lines == [[what, str(number)] for number in range(3) for what in ("begin", "done")]


def test_a_writer_that_stops_by_itself_is_an_error(tmp_path, rng):
    writer = KilledWriter(tmp_path / "kb", "no such collection", BatchPlan(_rows("new", 20, rng)))
    with pytest.raises(Internal, match=r"stopped by itself.*no such collection"):
        writer.run(lambda _: None)
