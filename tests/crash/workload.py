"""What the children of the crash tests run: writers with flushes, graphs and reopenings between, and their inspection.

A child tells of each batch before it is handed over and after it was acknowledged, by one small write to a pipe, which
survives the child.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from tests.crash.history import SCHEMA, Batch, batch, state_after
from tests.crash.observe import Observation, differences, observe
from tests.walking import WALKS
from vecdb.api import Collection
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.manifest import Manifest
from vecdb.engine.options import EngineOptions
from vecdb.engine.state import LOG, MIRROR
from vecdb.errors import NotFound, ResourceExhausted, VecdbError
from vecdb.kernels.protocol import Kernels
from vecdb.results.write import WriteResult
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem
from vecdb.storage.mirror import read_mirror
from vecdb.storage.wal import Log

NAME = "docs"
ROW_BYTES = 250 + 4 * 12
OPTIONS = EngineOptions(
    memtable_size_bytes=64 * ROW_BYTES,
    graph_rows_min=10,
    search_costs=WALKS,
    compaction_fanout=2,
    log_file_bytes_first=8_192,
    log_kept_bytes=65_536,
    reserve_size_bytes=4_096,
    kernels="reference",
)
QUIET = replace(OPTIONS, compaction=False)
"""For tests that look at the files of the segments that they made."""

Report = Callable[..., None]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Plan:
    """One run of the workload.

    Attributes
    ----------
    writers
        Threads that write; one is deterministic as long as nothing is flushed in the background.
    first, batches
        Number of each writer's first batch, and how many follow.
    pause_every
        After so many batches the first writer does one of: flush, wait for graphs, close and open again.
    """

    path: str
    seed: int
    writers: int
    batches: int
    first: int = 0
    pause_every: int = 4


def reporter(fd: int) -> Report:
    """Writes one line of JSON a report."""

    def report(event: str, **facts: object) -> None:
        os.write(fd, json.dumps({"event": event, **facts}).encode() + b"\n")

    return report


def hand_over(collection: Collection, each: Batch) -> WriteResult:
    """Write a batch."""
    if each.group is not None:
        return collection.delete(where=each.where, request_id=each.request_id)
    if each.deleted:
        return collection.delete(each.deleted, request_id=each.request_id)
    payloads = [stored.payload for stored in each.points.values()]
    return collection.upsert(list(each.points), each.columns(), payloads, request_id=each.request_id)


class Workload:
    """A run of a plan; ``run`` closes the database, ``write`` leaves it open."""

    options = OPTIONS

    def __init__(self, plan: Plan, file_system: FileSystem, kernels: Kernels, report: Report) -> None:
        self.plan = plan
        self._file_system = file_system
        self._kernels = kernels
        self._report = report
        self.database: EmbeddedDatabase | None = None
        self.closed = False

    def open(self) -> Collection:
        if self.database is None or self.closed:
            self.database = EmbeddedDatabase.open(
                self.plan.path, options=self.options, kernels=self._kernels, file_system=self._file_system
            )
            self.closed = False
        collection = self.database.create_collection(NAME, schema=SCHEMA, exist_ok=True)
        self._report("created")
        return collection

    def run(self) -> None:
        self.write(self.open())
        self.close()

    def close(self) -> None:
        assert self.database is not None
        self.closed = True
        self.database.close()
        self._report("closed")

    def write(self, collection: Collection) -> None:
        plan = self.plan
        failures: list[BaseException] = []

        def others(writer: int) -> None:
            try:
                for number in range(plan.first, plan.first + plan.batches):
                    self.write_one(collection, batch(plan.seed, writer, number))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=others, args=(writer,)) for writer in range(1, plan.writers)]
        for thread in threads:
            thread.start()
        try:
            for number in range(plan.first, plan.first + plan.batches):
                self.write_one(collection, batch(plan.seed, 0, number))
                if (number + 1) % plan.pause_every == 0:
                    collection = self.pause(collection, (number + 1) // plan.pause_every)
        finally:
            for thread in threads:
                thread.join()
        if failures:
            raise failures[0]

    def write_one(self, collection: Collection, each: Batch) -> None:
        self._report("begun", writer=each.writer, number=each.number)
        result = hand_over(collection, each)
        self._report(
            "acknowledged",
            writer=each.writer,
            number=each.number,
            seq=result.seq,
            upserted=result.upserted,
            deleted=result.deleted,
        )

    def pause(self, collection: Collection, turn: int) -> Collection:
        match (turn + self.plan.seed) % 4:
            case 0:
                collection.flush()
            case 1 if self.plan.writers == 1:
                self.close()
                collection = self.open()
            case 2:
                collection.wait_indexed(60)
        return collection


class QuietWorkload(Workload):
    """Compacts once, at a given batch, and nothing in the background: its files are the same every time."""

    options = QUIET
    COMPACTED_AFTER = 12

    def pause(self, collection: Collection, turn: int) -> Collection:
        collection = super().pause(collection, turn)
        if turn * self.plan.pause_every == self.COMPACTED_AFTER:
            collection.compact(60)
        return collection


class PersistentWorkload(Workload):
    """Tries everything that is refused for want of space a second time."""

    def __init__(self, plan: Plan, file_system: FileSystem, kernels: Kernels, report: Report) -> None:
        super().__init__(plan, file_system, kernels, report)
        self._acknowledged: dict[int, int] = {}

    def open(self) -> Collection:
        return again(super().open)

    def close(self) -> None:
        self.report_differences()
        # The log could not be ended; it is as whole as after a crash.
        with suppress(ResourceExhausted):
            super().close()

    def write_one(self, collection: Collection, each: Batch) -> None:
        self._report("begun", writer=each.writer, number=each.number)
        result = again(lambda: hand_over(collection, each))
        self._acknowledged[each.writer] = each.number + 1
        told = {"seq": result.seq, "upserted": result.upserted, "deleted": result.deleted}
        self._report("acknowledged", writer=each.writer, number=each.number, **told)

    def pause(self, collection: Collection, turn: int) -> Collection:
        # Graphs that could not be written are built at the next open; until then wait_indexed tells why they lack.
        with suppress(ResourceExhausted):
            return super().pause(collection, turn)
        return collection

    def report_differences(self) -> None:
        """Compare what the open database answers with what was acknowledged."""
        if self.database is None or self.closed:
            return
        try:
            observed = observe(self.database.collection(NAME), range(self.plan.writers))
        except NotFound:
            return
        state = state_after(self.plan.seed, self._acknowledged)
        for each in differences(observed, state):
            self._report("differs", told=each)


def again(call: Callable[[], Result]) -> Result:
    """Call again where space was lacking: there is some by then, but a failed flush needs a moment to be repeated."""
    for _ in range(500):
        with suppress(ResourceExhausted):
            return call()
        time.sleep(0.01)
    return call()


@dataclass(frozen=True)
class Inspection:
    """A database looked at after a crash, in a fresh process.

    Attributes
    ----------
    before
        What it holds; ``None`` where the collection does not exist.
    retried
        (seq, upserted, deleted) that a second attempt at each batch gave, in the order asked for.
    after
        What it holds after those, and after closing and opening once more.
    rebuildable_seq
        The last write that could be had back without the metadata, from the mirror, segments and log; or why not.
    """

    before: Observation | None
    retried: list[tuple[int, int, int]]
    after: Observation | None
    rebuildable_seq: int | str


def rebuildable_seq(path: Path) -> int | str:
    """As ``Inspection`` says; reads only."""
    last = 0
    for place in sorted((path / "collections").glob("*")):
        directory = MmapDirectory(place, FileSystem(), read_only=True)
        try:
            mirror = read_mirror(directory, MIRROR)
            if mirror is None:
                continue
            manifest = Manifest.decode(mirror.payload, str(place / MIRROR))
            missing = manifest.file_names() - set(directory.names())
            if missing:
                return f"the mirror names files that are not there: {sorted(missing)}"
            last = max(last, manifest.flushed_seq)
            log = Log(directory.child(LOG, create=False))
            last = max(last, *(seq for seq, _ in log.replay(manifest.flushed_seq)), 0)
        except VecdbError as error:
            return f"mirror, segments and log do not do without the metadata: {error}"
    return last


def inspect(path: str, writers: int, retries: list[Batch], kernels: Kernels, *, twice: bool) -> Inspection:
    """Open, ask everything, hand the ``retries`` over again, and ask once more."""
    before = after = None
    rebuildable = rebuildable_seq(Path(path))
    retried: list[tuple[int, int, int]] = []
    with EmbeddedDatabase.open(path, options=OPTIONS, kernels=kernels) as database:
        with suppress(NotFound):
            before = observe(database.collection(NAME), range(writers))
        if before is not None:
            collection = database.collection(NAME)
            for each in retries:
                result = hand_over(collection, each)
                retried.append((result.seq, result.upserted, result.deleted))
            if not twice:
                after = observe(collection, range(writers))
    if before is not None and twice:
        with EmbeddedDatabase.open(path, options=OPTIONS, kernels=kernels) as database:
            after = observe(database.collection(NAME), range(writers))
    return Inspection(before, retried, after, rebuildable)
