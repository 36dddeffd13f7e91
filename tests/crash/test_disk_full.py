"""A real disk that is filled and freed again and again under a database that stays open.

While it is full upserts are refused whole, deletes and reads go on; once there is space the very next write succeeds.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.crash.disks import Ballast, small_disk
from tests.crash.history import SCHEMA, State, applied, batch
from tests.crash.observe import differences, observe
from tests.crash.workload import NAME, OPTIONS, ROW_BYTES, hand_over
from vecdb.api import Collection
from vecdb.engine.check import check_database
from vecdb.engine.database import EmbeddedDatabase, choose_kernels
from vecdb.engine.options import EngineOptions
from vecdb.errors import ResourceExhausted
from vecdb.storage.reserve import RESERVE_NAME

SEED = 41
RESERVE_BYTES = 256 * 1024
DISK_OPTIONS = replace(
    OPTIONS,
    memtable_size_bytes=200 * ROW_BYTES,
    log_file_bytes_first=65_536,
    reserve_size_bytes=RESERVE_BYTES,
)
CYCLES = 20
DISK_BYTES = 24 * 2**20


def opened(path: Path, options: EngineOptions = DISK_OPTIONS) -> EmbeddedDatabase:
    return EmbeddedDatabase.open(path, options=options, kernels=choose_kernels("reference"))


class Client:
    """Writes batch after batch and keeps the model of what was acknowledged."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self.number = 0
        self.refused = 0
        self.told = ""
        self.state: State = {}

    def write(self) -> bool:
        """Write the next batch; whether it was taken. Only an upsert may be refused."""
        each = batch(SEED, 0, self.number)
        self.number += 1
        try:
            hand_over(self.collection, each)
        except ResourceExhausted as error:
            self.told = str(error)
            assert each.points, "a delete was refused"
            self.refused += 1
            return False
        self.state = applied(self.state, each)
        return True

    def write_upsert(self) -> bool:
        """Write the next batch that is an upsert."""
        while not batch(SEED, 0, self.number).points:
            self.number += 1
        return self.write()

    def delete_one(self) -> None:
        """Delete some point that is there."""
        gone = next(iter(self.state))
        assert self.collection.delete([gone]).deleted == 1
        del self.state[gone]

    def check(self, *, whole: bool = True) -> None:
        """Compare every answer with the model, or the points alone."""
        if not whole:
            found_points = {point.id: point.payload for point in self.collection.scroll()}
            assert found_points == {key: stored.payload for key, stored in self.state.items()}
            return
        found = differences(observe(self.collection, [0]), self.state)
        assert not found, found


def test_writes_resume_after_each_of_many_full_disks(tmp_path: Path) -> None:
    chance = np.random.default_rng(SEED)
    with small_disk(tmp_path / "disk", DISK_BYTES) as disk, ExitStack() as closing:
        closing.callback(lambda: database.close())
        database = opened(disk / "db")
        client = Client(database.create_collection(NAME, schema=SCHEMA))
        ballast = Ballast(disk)
        seen: Counter[str] = Counter()
        for cycle in range(CYCLES):
            for _ in range(6):
                assert client.write(), "refused though there is space"
            refusals = 0
            for _ in range(200):
                if (disk / "db" / RESERVE_NAME).exists():
                    # A log that was trimmed made room; what deletes were given is left to them.
                    ballast.fill(int(chance.integers(0, 20_000)))
                refusals += not client.write()
                if refusals == 3:
                    break
            assert refusals == 3, "the disk never was full"
            for _ in range(3):
                client.delete_one()
            client.check(whole=cycle % 4 == 0)
            if cycle % 5 == 4:
                # Also opening again, with the disk as full as it is, and going on.
                seen.update(client.collection.stats().events)
                database.close()
                database = opened(disk / "db")
                client.collection = database.collection(NAME)
                client.check()
                client.delete_one()
            ballast.drop()
            assert client.write_upsert(), f"cycle {cycle}: refused though there is space again: {client.told}"
            assert (disk / "db" / RESERVE_NAME).stat().st_size == RESERVE_BYTES
        client.check()
        seen.update(client.collection.stats().events)
        assert seen["write_refused_disk_full"] == client.refused
        assert seen["reserve_released"]
        assert seen["reserve_taken"]
        assert not seen["writer_stopped"]
        database.close()
        assert check_database(disk / "db").ok
        with opened(disk / "db") as database:
            client.collection = database.collection(NAME)
            client.check()


def test_a_merge_leaves_writes_the_space_that_they_need(tmp_path: Path) -> None:
    dim, rows = 64, 1_000
    waiting = replace(DISK_OPTIONS, compaction=False, memtable_size_bytes=2**20, graph_rows_min=10**6)
    merging = replace(waiting, compaction=True, compaction_fanout=4)
    vectors = np.random.default_rng(SEED).standard_normal((rows, dim)).astype(np.float32)
    with small_disk(tmp_path / "disk", DISK_BYTES) as disk, ExitStack() as closing:
        closing.callback(lambda: database.close())
        database = opened(disk / "db", waiting)
        docs = database.create_collection(NAME, dim)
        for first in range(0, 4 * rows, rows):
            docs.upsert(range(first, first + rows), vectors)
            docs.flush()
        database.close()
        ballast = Ballast(disk)
        ballast.fill(RESERVE_BYTES + 300_000)
        database = opened(disk / "db", merging)
        docs = database.collection(NAME)
        deadline = time.monotonic() + 20
        while not docs.stats().events.get("compaction_waits_for_disk"):
            assert time.monotonic() < deadline, "the merge did not wait"
            time.sleep(0.01)
        for number in range(20):
            docs.upsert([number], vectors[:1])
        events = docs.stats().events
        assert "reserve_released" not in events
        assert "write_refused_disk_full" not in events
        with pytest.raises(ResourceExhausted, match=r"\d+ bytes .* are free"):
            docs.compact()
        ballast.drop()
        docs.compact()
        assert docs.stats().segments == 1
        assert docs.count() == 4 * rows
