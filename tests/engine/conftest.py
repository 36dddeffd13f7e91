"""What the engine tests share: small thresholds, so that a few hundred rows already flush."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from tests.engine.written import Writer, written_in
from tests.walking import WALKS
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.options import EngineOptions
from vecdb.storage.io import FileSystem

DIM = 8
SMALL = EngineOptions(
    memtable_size_bytes=64 * 400,
    graph_rows_min=40,
    search_costs=WALKS,
    log_file_bytes_first=65_536,
    log_kept_bytes=4_096,
    compaction=False,
    kernels="cpu",
)

Open: TypeAlias = Callable[..., EmbeddedDatabase]


@pytest.fixture
def open_database(tmp_path: Path) -> Iterator[Open]:
    """Opens the test's database; what is still open at the end is closed."""
    opened: list[EmbeddedDatabase] = []

    def open_it(
        options: EngineOptions = SMALL, file_system: FileSystem | None = None, path: Path | None = None
    ) -> EmbeddedDatabase:
        database = EmbeddedDatabase.open(path or tmp_path / "db", options=options, file_system=file_system)
        opened.append(database)
        return database

    yield open_it
    for database in opened:
        database.close()


@pytest.fixture
def vectors(rng: np.random.Generator) -> np.ndarray:
    """(1000, DIM) float32."""
    return rng.standard_normal((1000, DIM)).astype(np.float32)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    """A writer of a collection of its own, with its model."""
    with written_in(tmp_path) as made:
        yield made
