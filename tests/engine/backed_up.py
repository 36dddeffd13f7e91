"""A small database of batches, to be backed up and compared with what its batches leave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.crash.history import SCHEMA, batch, state_after
from tests.crash.observe import differences, observe
from tests.crash.workload import QUIET as WITH_GRAPHS
from tests.crash.workload import hand_over
from vecdb.engine.check import check_database
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.options import EngineOptions
from vecdb.engine.state import CollectionState
from vecdb.storage.io import FileSystem

OPTIONS = replace(WITH_GRAPHS, graph_rows_min=10_000)


SEED = 5


@contextmanager
def opened(
    path: Path, file_system: FileSystem | None = None, options: EngineOptions = OPTIONS
) -> Iterator[EmbeddedDatabase]:
    with EmbeddedDatabase.open(path, options=options, file_system=file_system) as database:
        yield database


def filled(database: EmbeddedDatabase, name: str = "docs", *, writer: int = 0, first: int = 0, last: int = 12) -> int:
    """Write some batches; the last seq."""
    collection = database.create_collection(name, schema=SCHEMA, exist_ok=True)
    for number in range(first, last):
        hand_over(collection, batch(SEED, writer, number))
    return collection.stats().last_seq


def assert_holds(path: Path, counts: dict[int, int], name: str = "docs") -> None:
    """A database is sound and holds so many batches of each writer."""
    assert check_database(path).problems == ()
    with opened(path) as database:
        assert differences(observe(database.collection(name), sorted(counts)), state_after(SEED, counts)) == []


def state_of(database: EmbeddedDatabase, name: str) -> CollectionState:
    with database._lease(name, database.collection(name).collection_id) as found:
        return found._state


def make_base(directory: Path) -> Path:
    """A closed database with 12 batches in "docs" and 5 in "more"."""
    with opened(directory / "db") as database:
        filled(database)
        filled(database, "more", writer=1, last=5)
    return directory / "db"
