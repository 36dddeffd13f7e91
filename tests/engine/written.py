"""A writer with its model, and the comparison of what a reader sees with it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.walking import WALKS
from vecdb.api import Collection
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.options import EngineOptions
from vecdb.engine.reading import ReadOnlyCollection, ReadOnlyDatabase
from vecdb.storage.io import FileSystem

DIM = 3
OPTIONS = EngineOptions(
    memtable_size_bytes=200 * (250 + 4 * DIM),
    graph_rows_min=10_000,
    log_file_bytes_first=4_096,
    log_kept_bytes=2**20,
    verify_ahead_bytes_max=0,
    kernels="reference",
)
WITH_GRAPHS = replace(OPTIONS, graph_rows_min=30, search_costs=WALKS)


class Writer:
    """A writer with its model: what is acknowledged, by seq."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open(OPTIONS)
        self.model: dict[int, int] = {}
        self.states: dict[int, dict[int, int]] = {0: {}}
        self.seq = 0
        self.chance = np.random.default_rng(3)

    def open(self, options: EngineOptions, file_system: FileSystem | None = None) -> None:
        self.database = EmbeddedDatabase.open(self.path, options=options, file_system=file_system)
        self.collection = self.database.create_collection("c", DIM, "l2", exist_ok=True)

    def upsert(self, count: int = 3) -> None:
        ids = self.chance.choice(60, count, replace=False).tolist()
        result = self.collection.upsert(ids, self.chance.standard_normal((count, DIM)), [{"n": self.seq}] * count)
        self.model |= dict.fromkeys(ids, self.seq)
        self._acknowledged(result.seq)

    def delete(self) -> None:
        ids = [*self.model][:2]
        result = self.collection.delete(ids)
        self.model = {key: value for key, value in self.model.items() if key not in ids}
        self._acknowledged(result.seq)

    def fill(self) -> None:
        """A history that is partly in segments, partly in the log."""
        for turn in range(20):
            self.upsert(5)
            if turn % 3 == 2:
                self.delete()
            if turn % 7 == 6:
                self.collection.flush()

    def _acknowledged(self, seq: int) -> None:
        self.seq = seq
        self.states[seq] = dict(self.model)


@contextmanager
def written_in(directory: Path) -> Iterator[Writer]:
    """A writer, in memory where there is such a directory: no test of it depends on a disk, and it syncs often."""
    with ExitStack() as stack:
        memory = Path("/dev/shm")
        if os.access(memory, os.W_OK | os.X_OK):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vecdb-reading-", dir=memory)))
        made = Writer(directory / "db")
        stack.callback(lambda: made.database.close())
        yield made


def reading(path: Path, file_system: FileSystem | None = None, **options: Any) -> ReadOnlyDatabase:
    return ReadOnlyDatabase.open(path, options=replace(OPTIONS, **options), file_system=file_system)


def contents(collection: Collection) -> dict[Any, int]:
    """The points, asked for in several ways that must agree."""
    points = {each.id: each.payload["n"] for each in collection.scroll() if each.payload is not None}
    assert len(collection) == len(points) == collection.count("n >= 0")
    hits = collection.search([0.5] * DIM, k=100, recall="exact")
    assert {hit.id: hit.payload["n"] for hit in hits if hit.payload is not None} == points
    got = collection.get(range(60))
    assert {each.id: each.payload["n"] for each in got if each.payload is not None} == points
    return points


def check(collection: ReadOnlyCollection, writer: Writer, acknowledged: int) -> None:
    """What is visible is the state after one write, which is not older than ``acknowledged``."""
    seq = collection.stats().last_seq
    assert seq >= acknowledged
    assert contents(collection) == writer.states[seq]


def write_and_flush(writer: Writer) -> None:
    writer.upsert()
    writer.collection.flush()


def flush(writer: Writer) -> None:
    """Leaves no file of the log behind."""
    writer.collection.flush()


def flush_and_write(writer: Writer) -> None:
    writer.collection.flush()
    writer.upsert()


def flush_twice(writer: Writer) -> None:
    write_and_flush(writer)
    write_and_flush(writer)
