"""What the writers of a crash workload do, as a function of a seed, and the independent model of what that leaves.

A batch is named by its writer and its number, so that an acknowledgement needs to carry no more than these. Writers
keep to ids of their own, so that the order between two of them does not matter.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vecdb.schema import CollectionSchema, IndexSpec, VectorField
from vecdb.types import F32Array, Metric, PointId

BODY, TITLE = "body", "title"
DIMS = {BODY: 8, TITLE: 4}
METRICS = {BODY: Metric.COSINE, TITLE: Metric.L2}
GROUPS = 5
IDS_OF_WRITER = 90
SCHEMA = CollectionSchema(
    (
        VectorField(DIMS[BODY], METRICS[BODY], IndexSpec.parse(IndexSpec(m=4, ef_construction=12)), BODY),
        VectorField(DIMS[TITLE], METRICS[TITLE], IndexSpec.parse("flat"), TITLE),
    )
)


@dataclass(frozen=True)
class Stored:
    """A point of the model."""

    payload: dict[str, Any]
    vectors: Mapping[str, F32Array]


State = dict[PointId, Stored]


@dataclass(frozen=True)
class Batch:
    """One write: ``points`` to upsert, or ids to delete, or a filter to delete by."""

    writer: int
    number: int
    points: Mapping[PointId, Stored] = field(default_factory=dict)
    deleted: Sequence[PointId] = ()
    group: int | None = None

    @property
    def request_id(self) -> str:
        return f"writer {self.writer}, batch {self.number}"

    @property
    def where(self) -> str:
        return f"writer = {self.writer} AND group = {self.group}"

    def columns(self) -> dict[str, list[F32Array | None]]:
        """The vectors as ``upsert`` takes them."""
        return {name: [each.vectors.get(name) for each in self.points.values()] for name in DIMS}


def ids_of(writer: int) -> list[PointId]:
    """Every id the writer may use: every third one a string."""
    return [f"{writer}:{number}:é" if number % 3 == 0 else writer * 10_000 + number for number in range(IDS_OF_WRITER)]


def batch(seed: int, writer: int, number: int) -> Batch:
    """The writer's batch of this number."""
    chance = np.random.default_rng([seed, writer, number])
    ids = ids_of(writer)
    kind = chance.random()
    if number > 2 and kind < 0.12:
        return Batch(writer, number, group=int(chance.integers(GROUPS)))
    if number > 2 and kind < 0.3:
        chosen = chance.choice(len(ids), int(chance.integers(1, 15)), replace=False)
        return Batch(writer, number, deleted=[ids[at] for at in chosen])
    size = int(chance.choice([1, 3, 8, 14, 30, 70], p=[0.1, 0.25, 0.3, 0.2, 0.12, 0.03]))
    chosen = chance.choice(len(ids), size, replace=False)
    return Batch(writer, number, {ids[at]: _point(chance, writer, number, int(at)) for at in chosen})


def _point(chance: np.random.Generator, writer: int, number: int, at: int) -> Stored:
    # Some are long, so that files come to have more than one block.
    text = "x" * int(chance.integers(700 if at % 9 == 0 else 60))
    payload = {"writer": writer, "number": number, "group": at % GROUPS, "text": text}
    vectors = {BODY: chance.standard_normal(DIMS[BODY]).astype(np.float32)}
    if chance.random() < 0.7:
        vectors[TITLE] = chance.standard_normal(DIMS[TITLE]).astype(np.float32)
    return Stored(payload, vectors)


def applied(state: State, each: Batch) -> State:
    """The state after a batch."""
    if each.group is not None:
        return {
            key: stored
            for key, stored in state.items()
            if (stored.payload["writer"], stored.payload["group"]) != (each.writer, each.group)
        }
    gone = set(each.deleted)
    return {key: stored for key, stored in state.items() if key not in gone} | dict(each.points)


def state_after(seed: int, batches: Mapping[int, int]) -> State:
    """The state after so many batches of each writer, from the first on."""
    state: State = {}
    for writer, count in batches.items():
        for number in range(count):
            state = applied(state, batch(seed, writer, number))
    return state


@dataclass
class Reports:
    """What a child told before it ended: which batches it began and which were acknowledged.

    Attributes
    ----------
    begun, acknowledged
        Number of batches by writer.
    results
        (seq, upserted, deleted) of each writer's last acknowledged batch.
    """

    begun: dict[int, int] = field(default_factory=dict)
    acknowledged: dict[int, int] = field(default_factory=dict)
    results: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    last_seq: int = 0
    created: bool = False
    other: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def parse(cls, lines: Iterable[bytes], until: str = "") -> Reports:
        """From the lines a child wrote, up to the event ``until``; the last one may be cut off."""
        reports = cls()
        for line in lines:
            if not line.startswith(b"{") or not line.endswith(b"\n"):
                # What follows is what the child said of its own failure.
                break
            told = json.loads(line)
            match told["event"]:
                case "created":
                    reports.created = True
                case "begun":
                    assert reports.begun.get(told["writer"], told["number"]) == told["number"], line
                    reports.begun[told["writer"]] = told["number"] + 1
                case "acknowledged":
                    assert reports.begun[told["writer"]] == told["number"] + 1, line
                    reports.acknowledged[told["writer"]] = told["number"] + 1
                    reports.results[told["writer"]] = (told["seq"], told["upserted"], told["deleted"])
                    reports.last_seq = max(reports.last_seq, told["seq"])
                case _:
                    reports.other.append(told)
            if told["event"] == until:
                break
        return reports

    def changing_results(self) -> list[tuple[int, tuple[int, int, int]]]:
        """The results by writer, where something changed: that nothing did is not remembered across a crash."""
        return [(writer, told) for writer, told in sorted(self.results.items()) if any(told[1:])]

    def in_flight(self, seed: int) -> list[Batch]:
        """The batches that were begun and not acknowledged: at most one a writer."""
        return [
            batch(seed, writer, count - 1)
            for writer, count in self.begun.items()
            if self.acknowledged.get(writer, 0) < count
        ]

    def state(self, seed: int) -> State:
        """What must be there."""
        return state_after(seed, self.acknowledged)

    def allowed_states(self, seed: int) -> list[State]:
        """What may be there: all or none of each batch in flight."""
        states = [self.state(seed)]
        for each in self.in_flight(seed):
            states += [applied(state, each) for state in states]
        return states
