"""Warming: afterwards everything is open, verified and in memory, as far as the budget has room."""

from __future__ import annotations

import mmap
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.engine.conftest import DIM, SMALL
from tests.engine.test_at_once import at_once
from tests.engine.test_memory_budget import MIB, Pretending, readers_of
from vecdb.errors import Corruption
from vecdb.filter.grammar import _cached_template, _parser
from vecdb.segment.layout import Role

NOT_AHEAD = replace(SMALL, memtable_size_bytes=MIB, verify_ahead_bytes_max=0)
SEARCHED = {Role.IDS, Role.CODES, Role.GRAPH}


@pytest.fixture
def closed(open_database: Any, vectors: np.ndarray) -> None:
    """A database of two segments with graphs, closed again."""
    with open_database() as database:
        collection = database.create_collection("c", DIM)
        for start in (0, 500):
            collection.upsert(range(start, start + 500), vectors[start : start + 500])
            collection.flush()
        collection.wait_indexed()


def resident(database: Any) -> dict[Role, int]:
    """Bytes in memory of the files of each role that are mapped."""
    by_address = database._resources.budget._fs.mapped_bytes_by_address()
    found: dict[Role, int] = {}
    for reader in readers_of(database):
        for role, file in reader.files.mapped():
            found[role] = found.get(role, 0) + by_address.get(file.address, 0)
    return found


def test_the_next_search_has_nothing_to_wait_for(closed: None, open_database: Any, vectors: np.ndarray) -> None:
    database = open_database(NOT_AHEAD)
    collection = database.collection("c")
    assert at_once(database, vectors[3], with_payloads=False) is None
    _parser.cache_clear()
    _cached_template.cache_clear()
    report = collection.warm(with_vectors=True)
    assert _parser.cache_info().currsize == 1
    there = resident(database)
    found = at_once(database, vectors[3], with_payloads=False)
    assert found is not None
    assert found[0] == 3
    assert report.segments == 2
    assert report.left_out_bytes == 0
    sizes = dict.fromkeys(Role, 0)
    for reader in readers_of(database):
        for file in reader.entry.files:
            sizes[file.role] += file.ref.size_bytes
    assert report.resident_bytes == sum(sizes[role] for role in SEARCHED | {Role.VECTORS})
    for role in SEARCHED | {Role.VECTORS}:
        assert there[role] >= sizes[role] - 2 * mmap.PAGESIZE, role


def test_without_vectors_they_are_left_where_they_are(closed: None, open_database: Any) -> None:
    database = open_database(NOT_AHEAD)
    database.collection("c").warm()
    assert all(not file.verified for reader in readers_of(database) for role, file in reader.files.mapped()
               if role is Role.VECTORS)  # fmt: skip
    assert all(field.has_open_graph for reader in readers_of(database) for field in reader._fields.values())


def test_what_the_budget_has_no_room_for_is_left_out(closed: None, open_database: Any) -> None:
    fs = Pretending()
    database = open_database(replace(NOT_AHEAD, memory_budget_bytes=MIB), fs)
    collection = database.collection("c")
    first = readers_of(database)[0]
    # Something of this database takes all but 40 kB.
    fs.mapped[first.files.array_file(Role.SEQS).address] = MIB - 40_000 - database._resources.budget._computed_bytes
    report = collection.warm(with_vectors=True)
    assert report.resident_bytes > 0
    assert report.left_out_bytes > 0
    for reader in readers_of(database):
        assert all(file.verified for role, file in reader.files.mapped() if role in SEARCHED)


def test_a_damaged_file_is_named(closed: None, open_database: Any, tmp_path: Any) -> None:
    (graph, *_) = sorted((tmp_path / "db").rglob("*.graph.*"))
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    collection = open_database(NOT_AHEAD).collection("c")
    with pytest.raises(Corruption, match=graph.name):
        collection.warm()
