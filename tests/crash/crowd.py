"""One writer and several readers on one directory, each a process, killed and stopped at random by their keeper.

The writer follows the history of a seed and notes in a file what was acknowledged. A reader refreshes, and compares all
that it can ask with the model at the seq that it sees: lower than what was noted before the refresh is stale, anything
else than the model is wrong. What it found it notes in a file of its own, which outlives it.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.crash.history import SCHEMA, State, applied, batch
from tests.crash.observe import differences, observe
from tests.crash.workload import NAME, OPTIONS, hand_over
from vecdb.api import Collection
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.reading import ReadOnlyCollection, ReadOnlyDatabase

CROWDED = replace(OPTIONS, graph_rows_min=25, verify_ahead_bytes_max=0)
"""Graphs are built in plain Python here: with fewer of them more is written. Nothing is read in the background, so that
whatever a reader holds open between two calls is a leak."""
OPTIONS_READING = replace(CROWDED, graph_rows_min=1)
"""Where there is a graph it is used."""
_ACKNOWLEDGED = struct.Struct("<QQ")
"""Number of the batch, and its seq."""


@dataclass(frozen=True)
class Place:
    """Where a crowd works."""

    directory: Path
    seed: int

    @property
    def database(self) -> Path:
        return self.directory / "db"

    @property
    def acknowledged(self) -> Path:
        return self.directory / "acknowledged"

    @property
    def stop(self) -> Path:
        """The readers end when this is there."""
        return self.directory / "stop"

    def last_acknowledged(self) -> tuple[int, int]:
        """How many batches were acknowledged, and the seq of the last one."""
        with self.acknowledged.open("rb") as file:
            whole = os.fstat(file.fileno()).st_size // _ACKNOWLEDGED.size
            if whole == 0:
                return 0, 0
            file.seek((whole - 1) * _ACKNOWLEDGED.size)
            number, seq = _ACKNOWLEDGED.unpack(file.read(_ACKNOWLEDGED.size))
        return number + 1, seq


class Model:
    """The history of one writer, played up to a seq."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.number = 0
        self.seq = 0
        self.state: State = {}

    def advance(self, seq: int) -> State:
        """The state after the write ``seq``, which is not below the last one asked for."""
        assert seq >= self.seq, f"went back from {self.seq} to {seq}"
        while self.seq < seq:
            each = batch(self._seed, 0, self.number)
            after = applied(self.state, each)
            # A delete that finds nothing is not logged.
            self.seq += bool(each.points) or len(after) != len(self.state)
            self.state = after
            self.number += 1
        return self.state


Note = Callable[..., None]


@contextmanager
def noting(notes: Path) -> Iterator[Note]:
    """Notes of one process and of those after it, one line of JSON each; what ends the block is noted too."""
    with notes.open("ab", buffering=0) as file:

        def note(event: str, **facts: object) -> None:
            file.write(json.dumps({"event": event, **facts}).encode() + b"\n")

        try:
            yield note
        except BaseException:
            note("failed", told=traceback.format_exc())
            raise


def write(place: Place, notes: Path) -> None:
    """Write on from the last acknowledged batch, until killed."""
    number, _seq = place.last_acknowledged()
    with (
        noting(notes),
        EmbeddedDatabase.open(place.database, options=CROWDED) as database,
        place.acknowledged.open("ab", buffering=0) as noted,
    ):
        collection = database.create_collection(NAME, schema=SCHEMA, exist_ok=True)
        while True:
            result = hand_over(collection, batch(place.seed, 0, number))
            noted.write(_ACKNOWLEDGED.pack(number, result.seq))
            look_after(collection, number)
            number += 1


def look_after(collection: Collection, number: int) -> None:
    """What the writer does beside writing, by the number of the batch."""
    match number % 48:
        case 5 | 21 | 37:
            collection.flush()
        case 11:
            collection.wait_indexed(60)


def read(place: Place, notes: Path) -> None:
    """Refresh and compare, until told to stop."""
    with noting(notes) as note, ReadOnlyDatabase.open(place.database, options=OPTIONS_READING) as database:
        _compare(place, database, database.collection(NAME), note)


def _compare(place: Place, database: ReadOnlyDatabase, collection: ReadOnlyCollection, note: Note) -> None:
    model = Model(place.seed)
    rounds = 0
    while not place.stop.exists():
        _number, acknowledged = place.last_acknowledged()
        if rounds % 3:
            collection.refresh()
        else:
            database.refresh()
        seen = collection.stats()
        if seen.last_seq < acknowledged:
            note("stale", seen=seen.last_seq, acknowledged=acknowledged)
        state = model.advance(seen.last_seq)
        found = []
        strategies: set[str] = set()
        if {each.id: each.payload for each in collection.scroll()} != {
            key: each.payload for key, each in state.items()
        }:
            found.append("scroll gives other points")
        if rounds % 4 == 0:
            # Everything, and whatever the writer did meanwhile: without a refresh nothing changes.
            observed = observe(collection, range(1))
            found += differences(observed, state)
            strategies = observed.strategies
            if observed.last_seq != seen.last_seq:
                found.append(f"seq {observed.last_seq} became visible without a refresh")
        for each in found[:5]:
            note("wrong", seq=seen.last_seq, told=each)
        for each in _held_open():
            if each.startswith(str(place.database)) or "memfd" in each:
                note("held", file=each)
        rounds += 1
        note("round", seq=seen.last_seq, segments=seen.segments, strategies=sorted(strategies))


def _held_open() -> list[str]:
    """What the descriptors of this process lead to."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        # The one of the listing itself is closed by now.
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return found


@dataclass
class Outcome:
    """What became of a crowd."""

    seconds: float
    kills: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    acknowledged: int = 0
    last_seq: int = 0
    seqs: set[int] = field(default_factory=set)
    segments: set[int] = field(default_factory=set)
    strategies: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.rounds} comparisons at {len(self.seqs)} seqs, {self.acknowledged} batches acknowledged "
            f"(seq {self.last_seq}), killed {dict(self.kills)}, searched by {sorted(self.strategies)}, "
            f"{len(self.problems)} problems, {self.seconds:.1f} s"
        )


class Crowd:
    """The processes, forked from this one, and again when they were killed. This one has no threads then."""

    def __init__(self, place: Place, readers: int) -> None:
        self._place = place
        self._chance = np.random.default_rng(place.seed)
        self._names = ["writer", *(f"reader-{number}" for number in range(readers))]
        self._children: dict[str, int] = {}
        self._kills: Counter[str] = Counter()
        self._problems: list[str] = []

    def run(self, seconds: float, kills: int) -> Outcome:
        """Let them work for so long, with so many kills spread over the time."""
        place = self._place
        begun = time.monotonic()
        with EmbeddedDatabase.open(place.database, options=CROWDED) as database:
            database.create_collection(NAME, schema=SCHEMA)
        place.acknowledged.touch()
        try:
            for name in self._names:
                self._start(name)
            for turn in range(kills):
                due = begun + seconds * (turn + self._chance.random()) / kills
                time.sleep(max(0.0, due - time.monotonic()))
                self._kill_one()
            time.sleep(max(0.0, begun + seconds - time.monotonic()))
            self._end()
        finally:
            for child in self._children.values():
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        return self._outcome(time.monotonic() - begun)

    def _start(self, name: str) -> None:
        child = os.fork()
        if child:
            self._children[name] = child
            return
        status = 1
        try:
            work = write if name == "writer" else read
            work(self._place, self._place.directory / f"{name}.notes")
            status = 0
        finally:
            os._exit(status)

    def _kill_one(self) -> None:
        name = self._names[int(self._chance.integers(len(self._names)))]
        if self._chance.random() < 0.2:
            # Stopped wherever it is: the others must go on meanwhile.
            os.kill(self._children[name], signal.SIGSTOP)
            time.sleep(0.2)
        self._kill(name)
        self._kills[name.partition("-")[0]] += 1
        self._start(name)

    def _kill(self, name: str) -> None:
        child = self._children.pop(name)
        os.kill(child, signal.SIGKILL)
        self._reap(name, child, -signal.SIGKILL)

    def _reap(self, name: str, child: int, wanted: int) -> None:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status != wanted:
            self._problems.append(f"{name} ended with {status}")

    def _end(self) -> None:
        """Kill the writer, and let the readers finish: they are not told that nobody writes any more."""
        self._kill("writer")
        time.sleep(0.3)
        self._place.stop.touch()
        for name in list(self._children):
            self._reap(name, self._children.pop(name), 0)

    def _outcome(self, seconds: float) -> Outcome:
        place = self._place
        number, seq = place.last_acknowledged()
        outcome = Outcome(seconds, self._kills, acknowledged=number, last_seq=seq, problems=self._problems)
        for notes in sorted(place.directory.glob("*.notes")):
            for line in notes.read_bytes().splitlines(keepends=True):
                told: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {"event": "cut off"}
                if told["event"] == "round":
                    outcome.rounds += 1
                    outcome.seqs.add(told["seq"])
                    outcome.segments.add(told["segments"])
                    outcome.strategies.update(told["strategies"])
                elif told["event"] != "cut off":
                    outcome.problems.append(f"{notes.name}: {told}")
        outcome.problems += self._left_behind(seq)
        return outcome

    def _left_behind(self, acknowledged: int) -> list[str]:
        """Look at the directory when all are gone: the lock is free, nothing of theirs is in it, nothing is missing."""
        found = []
        with EmbeddedDatabase.open(self._place.database, options=CROWDED) as database:
            observed = observe(database.collection(NAME), range(1))
        if observed.last_seq < acknowledged:
            found.append(f"seq {acknowledged} was acknowledged and is lost; the last one is {observed.last_seq}")
        found += differences(observed, Model(self._place.seed).advance(observed.last_seq))
        names = {each.name for each in self._place.database.iterdir()}
        if names != {"VECDB", "LOCK", "RESERVE", "catalogue", "collections"}:
            found.append(f"the database holds {sorted(names)}")
        found += [f"{each} was left" for each in self._place.database.rglob("*") if each.suffix in (".tmp", ".lock")]
        return found
