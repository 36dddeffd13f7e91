"""Whenever the power is lost, what bears the name of a backup or a restored database is whole; once told, it stays."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash.history import SCHEMA, batch, state_after
from tests.crash.observe import differences, observe
from tests.crash.workload import OPTIONS, hand_over
from tests.storage.forgetful import ForgetfulFileSystem, PowerLoss
from vecdb import verify_backup
from vecdb.engine import backup
from vecdb.engine.check import check_database
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.restore import restore_with

SEED = 31
BATCHES = 8
SURVIVORS = (None, 5, 24)
"""Seeds of what survives of what was not synced; ``None``: nothing of it."""
PLAIN = replace(OPTIONS, graph_rows_min=10_000)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a flushed database and a backup of it."""
    place = tmp_path_factory.mktemp("source")
    with EmbeddedDatabase.open(place / "db", options=PLAIN) as database:
        docs = database.create_collection("docs", schema=SCHEMA)
        for number in range(BATCHES):
            hand_over(docs, batch(SEED, 0, number))
        database.backup(place / "a.vbak")
    return place


def back_up(place: Path, file_system: ForgetfulFileSystem) -> None:
    with EmbeddedDatabase.open(place / "db", options=PLAIN, file_system=file_system) as database:
        database.backup(place / "target")


def whole_backup(target: Path) -> bool:
    return verify_backup(target).collections[0].points == len(state_after(SEED, {0: BATCHES}))


def restored(place: Path, file_system: ForgetfulFileSystem) -> None:
    restore_with(file_system, place / "a.vbak", place / "target")


def whole_database(target: Path) -> bool:
    sound = check_database(target).problems == ()
    with EmbeddedDatabase.open(target, options=PLAIN) as database:
        return sound and not differences(observe(database.collection("docs"), [0]), state_after(SEED, {0: BATCHES}))


@pytest.mark.parametrize(("act", "whole"), [(back_up, whole_backup), (restored, whole_database)])
def test_the_power_is_lost_at_any_call(
    source: Path, tmp_path: Path, act: Callable[[Path, ForgetfulFileSystem], None], whole: Callable[[Path], bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(backup, "JOINED_BYTES", 8_192)

    def lost_at(call: int | None) -> tuple[int, list[Path]]:
        place = tmp_path / f"{call}"
        shutil.copytree(source, place)
        file_system = ForgetfulFileSystem(place, lose_at=call)
        try:
            act(place, file_system)
        except PowerLoss:
            assert call is not None
        left = [tmp_path / f"{call}-left-{seed}" for seed in SURVIVORS]
        for path, seed in zip(left, SURVIVORS, strict=True):
            file_system.materialise(path, seed=seed)
        return file_system.calls, [path / "target" for path in left if (path / "target").exists()]

    total, targets = lost_at(None)
    assert len(targets) == len(SURVIVORS), "what was told to be done is lost"
    assert all(whole(target) for target in targets)
    assert total > 10
    found = 0
    for call in sorted({*range(max(1, total - 8), total + 1), *range(1, total, 1 + total // 4)}):
        for target in lost_at(call)[1]:
            assert whole(target)
            found += 1
    print(f"{total} calls, {found} targets")
    assert found, "no point was between the name and the end"
