"""A repair that is killed at any write and begun again comes to the end that it would have come to at once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.crash.history import batch
from tests.crash.workload import QUIET, hand_over
from tests.engine.repairing import (
    DOCS,
    SEED,
    add_snapshot,
    build,
    checked,
    collection_path,
    copied,
    flip,
    manifest_of,
    snapshot_ids,
)
from tests.storage.faults import CountingFileSystem
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.quarantine import REPAIRING
from vecdb.engine.repair import repair_database
from vecdb.errors import Corruption, FailedPrecondition

BATCHES = 14


class Killed(BaseException):
    """Stands for kill -9: nothing after it reaches the disk."""


class DyingFileSystem(CountingFileSystem):
    """Dies instead of the n-th write-class call, and stays dead."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self._n = n

    def before(self, call: str, *arguments: Any) -> None:
        super().before(call)
        if self.total >= self._n:
            raise Killed


def lost_environment(directory: Path) -> None:
    flip(directory / "data.mdb", 5000)
    for offset in range(0, 30_000, 501):
        flip(directory / "data.mdb", offset)


def damaged_rows(directory: Path) -> None:
    flip(directory / "0000000001.vectors.0.0", 700)
    flip(directory / "0000000001.graph.0.0", 300)


def everything(directory: Path) -> None:
    lost_environment(directory)
    damaged_rows(directory)
    for name in ("catalogue/mirror", "catalogue/data.mdb", "VECDB"):
        flip(directory.parent.parent / name, 20)


def damaged_mirrors(directory: Path) -> None:
    flip(directory / "mirror", 100)
    flip(directory.parent.parent / "catalogue" / "mirror", 100)


def damaged_log(directory: Path) -> None:
    for each in sorted((directory / "log").iterdir())[:1]:
        flip(each, 900)


def both_metadata(directory: Path) -> None:
    lost_environment(directory)
    flip(directory / "mirror", 100)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("built") / "db"
    build(path, batches=BATCHES, snapshot=False)
    add_snapshot(path, "kept")
    with EmbeddedDatabase.open(path, options=QUIET) as database:
        for number in range(BATCHES, BATCHES + 3):
            hand_over(database.collection(DOCS), batch(SEED, 0, number))
    return path


def outcome(path: Path) -> dict[str, Any]:
    """Everything that must not depend on where a repair was interrupted."""
    kept: dict[str, Any] = {"ok": checked(path).problems}
    with EmbeddedDatabase.open(path, options=QUIET) as database:
        for name in database.collections():
            kept[name] = sorted(
                (str(each.id), str(each.payload), each.vectors["body"].tobytes())
                for each in database.collection(name).scroll(with_vectors=True)
            )
    if DOCS in kept:
        kept["snapshots"] = snapshot_ids(collection_path(path))
    kept["marked"] = (path / REPAIRING).exists()
    return kept


def quarantined(path: Path) -> dict[str, bytes]:
    place = path / "quarantine"
    return {
        str(each.relative_to(place)): each.read_bytes()
        for each in place.rglob("*")
        if each.is_file() and each.name != "report.json"
    }


@pytest.mark.parametrize(
    ("damage", "points"),
    [
        (damaged_log, 3),
        (both_metadata, 3),
        (everything, 7),
        *(
            pytest.param(each, 1000, marks=pytest.mark.slow)
            for each in (lost_environment, damaged_rows, damaged_mirrors, damaged_log, both_metadata, everything)
        ),
    ],
)
def test_a_repair_killed_at_any_write_is_begun_again(
    built: Path, tmp_path: Path, damage: Callable[[Path], None], points: int
):
    base = copied(built, tmp_path / "damaged")
    damage(collection_path(base))
    whole = copied(base, tmp_path / "whole")
    counting = CountingFileSystem()
    report = repair_database(whole, file_system=counting)
    assert report.needed
    wanted_files, wanted = quarantined(whole), outcome(whole)
    assert wanted["ok"] == ()
    assert not wanted["marked"]
    assert wanted_files
    for n in sorted({int(each) for each in np.linspace(2, counting.total, min(points, counting.total))}):
        path = copied(base, tmp_path / f"{n}")
        with pytest.raises(Killed):
            repair_database(path, file_system=DyingFileSystem(n))
        if (path / REPAIRING).exists():
            with pytest.raises((FailedPrecondition, Corruption), match="repair"):
                EmbeddedDatabase.open(path, options=QUIET)
        with suppress(Killed):  # Once more, somewhere else.
            repair_database(path, file_system=DyingFileSystem(n // 2 + 2))
        repair_database(path)
        assert quarantined(path) == wanted_files, n
        assert outcome(path) == wanted, n


def test_the_report_stays_beside_what_was_moved(built: Path, tmp_path: Path):
    path = copied(built, tmp_path / "db")
    damaged_rows(collection_path(path))
    report = repair_database(path)
    assert report.losses
    text = (path / report.quarantine / "report.json").read_text()
    for loss in report.losses:
        assert loss.message in text
    assert manifest_of(collection_path(path)).segments
