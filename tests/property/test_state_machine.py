"""The embedded engine beside a dict and NumPy: whatever is done in whatever order, both give the same answers."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.crash.observe import ranking_differences, same_vectors
from tests.property.freezing import FreezableFileSystem
from tests.trust import Trust
from tests.walking import WALKS
from vecdb.api import Collection
from vecdb.engine.check import check_database
from vecdb.engine.database import EmbeddedDatabase, choose_kernels
from vecdb.engine.options import EngineOptions
from vecdb.errors import InvalidArgument
from vecdb.filter import Field
from vecdb.results.points import Point
from vecdb.results.write import WriteResult
from vecdb.schema import CollectionSchema, IndexSpec, VectorField
from vecdb.types import F32Array, Metric, PointId

BODY, TITLE = "body", "title"
METRICS = {BODY: Metric.COSINE, TITLE: Metric.L2}
DIMS = {BODY: 4, TITLE: 3}
HNSW = IndexSpec(m=3, ef_construction=8)
SCHEMA = CollectionSchema(tuple(VectorField(DIMS[name], METRICS[name], HNSW, name) for name in DIMS))
OPTIONS = EngineOptions(
    memtable_size_bytes=20 * (250 + 4 * sum(DIMS.values())),
    graph_rows_min=3,
    search_costs=WALKS,
    compaction_fanout=2,
    log_file_bytes_first=4_096,
    log_kept_bytes=2_048,
    kernels="reference",
)
KERNELS = choose_kernels("reference")
MEMORY = Path("/dev/shm")
EXAMPLES_OF_A_PART = 20
SNAPSHOTS = ("first", "二", "third")

IDS: list[PointId] = [*range(9), *map(str, range(9)), 2**64 - 1, "é" * 200, "退货"]
ids = st.sampled_from(IDS)
whole = st.integers(-4, 4).map(float)
vectors_of = {
    BODY: st.lists(whole, min_size=4, max_size=4).filter(any),
    TITLE: st.lists(whole, min_size=3, max_size=3),
}
payloads = st.fixed_dictionaries(
    {},
    optional={
        "n": st.one_of(st.integers(0, 5), st.just(2.5)),
        "tag": st.sampled_from(["a", "b", "c"]),
        "tags": st.lists(st.sampled_from(["x", "y"]), max_size=2),
        "deep": st.fixed_dictionaries({"n": st.integers(0, 2)}),
    },
)


@dataclass(frozen=True)
class Stored:
    """A point of the model."""

    payload: dict[str, Any]
    vectors: Mapping[str, F32Array]


@dataclass(frozen=True)
class Condition:
    """A filter as text, and the same in Python."""

    text: str
    parameters: dict[str, Any]
    holds: Callable[[dict[str, Any]], bool]


def number(payload: dict[str, Any]) -> float:
    return payload.get("n", -1)  # type: ignore[no-any-return]


conditions = st.one_of(
    st.integers(0, 5).map(lambda x: Condition("n >= :x", {"x": x}, lambda payload: number(payload) >= x)),
    st.integers(0, 5).map(lambda x: Condition("n = :x", {"x": x}, lambda payload: number(payload) == x)),
    st.sampled_from("abc").map(lambda t: Condition("tag = :t", {"t": t}, lambda payload: payload.get("tag") == t)),
    st.just(Condition("n IS NULL", {}, lambda payload: "n" not in payload)),
    st.just(Condition("tags CONTAINS 'x'", {}, lambda payload: "x" in payload.get("tags", ()))),
    st.just(Condition("deep.n < 2", {}, lambda payload: payload.get("deep", {}).get("n", 2) < 2)),
    st.just(
        Condition(
            "tag = 'a' OR n IN (1, 2.5)", {}, lambda payload: payload.get("tag") == "a" or number(payload) in (1, 2.5)
        )
    ),
    st.just(Condition("n = 99", {}, lambda payload: False)),
)


@st.composite
def batches(draw: st.DrawFn) -> dict[PointId, Stored]:
    """Points to upsert; some lack a vector, some lack both."""
    chosen = draw(st.lists(ids, min_size=1, max_size=14, unique=True))
    points = {}
    for each in chosen:
        present = draw(st.sampled_from([(BODY, TITLE), (BODY, TITLE), (BODY,), (TITLE,), ()]))
        found = {name: np.array(draw(vectors_of[name]), np.float32) for name in present}
        points[each] = Stored(draw(payloads), found)
    return points


class EngineBesideModel(RuleBasedStateMachine):
    """The rules.

    Attributes
    ----------
    counted
        Examples and steps so far.
    """

    counted: ClassVar[list[int]] = [0, 0]

    def __init__(self) -> None:
        super().__init__()
        self.counted[0] += 1
        self.root = Path(tempfile.mkdtemp(prefix="vecdb-machine-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
        self.file_system = FreezableFileSystem()
        self.places = 0
        self.model: dict[PointId, Stored] = {}
        self.snapshots: dict[str, dict[PointId, Stored]] = {}
        self.last_seq = 0
        self.applied: list[tuple[str, Callable[[str], WriteResult], WriteResult]] = []
        self.requests = 0
        self.path = self.root / "0"
        self.database: EmbeddedDatabase | None = None

    @initialize()
    def create(self) -> None:
        self.open()
        assert self.database is not None
        self.database.create_collection("docs", schema=SCHEMA)

    def open(self) -> None:
        self.database = EmbeddedDatabase.open(self.path, options=OPTIONS, kernels=KERNELS, file_system=self.file_system)

    @property
    def collection(self) -> Collection:
        assert self.database is not None
        return self.database.collection("docs")

    def write(self, wanted: tuple[int, int], hand_over: Callable[[str], WriteResult]) -> None:
        """Hand a batch over, check the answer, and remember it for a retry."""
        self.requests += 1
        request_id = f"request {self.requests}"
        result = hand_over(request_id)
        assert (result.upserted, result.deleted) == wanted
        self.last_seq += any(wanted)
        assert (result.seq, result.durable_seq) == (self.last_seq, self.last_seq)
        if any(wanted):
            self.applied.append((request_id, hand_over, result))

    @rule(points=batches())
    def upsert(self, points: dict[PointId, Stored]) -> None:
        columns = {name: [each.vectors.get(name) for each in points.values()] for name in DIMS}
        given = [each.payload for each in points.values()]
        self.write(
            (len(points), 0),
            lambda request_id: self.collection.upsert(list(points), columns, given, request_id=request_id),
        )
        self.model.update(points)

    @rule(chosen=st.lists(ids, max_size=8))
    def delete(self, chosen: list[PointId]) -> None:
        gone = self.model.keys() & set(chosen)
        self.write((0, len(gone)), lambda request_id: self.collection.delete(chosen, request_id=request_id))
        for each in gone:
            del self.model[each]

    @rule(condition=conditions)
    def delete_where(self, condition: Condition) -> None:
        gone = [each for each, stored in self.model.items() if condition.holds(stored.payload)]
        self.write(
            (0, len(gone)),
            lambda request_id: self.collection.delete(
                where=condition.text, params=condition.parameters, request_id=request_id
            ),
        )
        for each in gone:
            del self.model[each]

    @precondition(lambda self: self.applied)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        request_id, hand_over, told = data.draw(st.sampled_from(self.applied[-5:]))
        again = hand_over(request_id)
        assert (again.seq, again.upserted, again.deleted) == (told.seq, told.upserted, told.deleted)
        with pytest.raises(InvalidArgument, match="another request"):
            self.collection.delete(["never written"], request_id=request_id)

    @rule()
    def flush(self) -> None:
        self.collection.flush()
        assert self.collection.stats().memtable_rows == 0

    @rule()
    def wait_indexed(self) -> None:
        self.collection.wait_indexed(60)

    @rule()
    def reopen(self) -> None:
        assert self.database is not None
        self.database.close()
        self.open()

    @rule()
    def crash(self) -> None:
        """Go on with what kill -9 would have left now."""
        self.places += 1
        after = self.root / str(self.places)
        self.file_system.copy(self.path, after)
        assert self.database is not None
        self.database.close()
        shutil.rmtree(self.path)
        self.path = after
        self.open()
        self.look()

    @rule(points=batches(), request=st.booleans())
    def crash_after_upsert(self, points: dict[PointId, Stored], request: bool) -> None:
        """A batch, kill -9, and the same batch handed over again, as a client does that heard no answer."""
        self.upsert(points)  # type: ignore[call-arg]
        request_id, hand_over, told = self.applied[-1]
        self.crash()  # type: ignore[call-arg]
        if request:
            again = hand_over(request_id)
            assert (again.seq, again.upserted, again.deleted) == (told.seq, told.upserted, told.deleted)

    @rule()
    def compact(self) -> None:
        self.collection.compact()

    @rule(name=st.sampled_from(SNAPSHOTS))
    def create_snapshot(self, name: str) -> None:
        if name not in self.snapshots:
            self.collection.create_snapshot(name)
            self.snapshots[name] = dict(self.model)

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def drop_snapshot(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.snapshots)))
        self.collection.drop_snapshot(name)
        del self.snapshots[name]

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data(), field=st.sampled_from([BODY, TITLE]), k=st.sampled_from([1, 5, 40]))
    def look_at_snapshot(self, data: st.DataObject, field: str, k: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.snapshots)))
        held = self.snapshots[name]
        assert self.collection.count(at=name) == len(held)
        found = self.collection.get(IDS, with_vectors=True, at=name)
        assert [each.id for each in found] == [each for each in IDS if each in held]
        for each in found:
            assert each.payload == held[each.id].payload
            assert same_vectors(each.vectors, held[each.id].vectors)
        query = np.array(data.draw(vectors_of[field]), np.float32)
        hits = self.collection.search(query, k, field=field, recall="exact", at=name)
        allowed = {each: stored.vectors[field] for each, stored in held.items() if field in stored.vectors}
        assert not ranking_differences(hits.ids, hits.distances.tolist(), allowed, query, METRICS[field], k, exact=True)

    @rule(chosen=st.lists(ids, max_size=10))
    def get(self, chosen: list[PointId]) -> None:
        found = self.collection.get(chosen, with_vectors=True)
        assert [each.id for each in found] == [each for each in chosen if each in self.model]
        self.same(found)

    def same(self, points: list[Point]) -> None:
        for each in points:
            assert each.payload == self.model[each.id].payload
            assert same_vectors(each.vectors, self.model[each.id].vectors), each.id

    @rule(page_rows=st.integers(1, 7), condition=st.none() | conditions)
    def scroll(self, page_rows: int, condition: Condition | None) -> None:
        found = list(
            self.collection.scroll(
                None if condition is None else condition.text,
                params=None if condition is None else condition.parameters,
                with_vectors=True,
                page_rows=page_rows,
            )
        )
        wanted = [each for each, stored in self.model.items() if condition is None or condition.holds(stored.payload)]
        assert len(found) == len(wanted)
        assert {each.id for each in found} == set(wanted)
        self.same(found)

    @rule(condition=conditions)
    def count(self, condition: Condition) -> None:
        wanted = sum(condition.holds(stored.payload) for stored in self.model.values())
        assert self.collection.count(condition.text, params=condition.parameters) == wanted

    @rule(
        data=st.data(),
        name=st.sampled_from([BODY, TITLE]),
        k=st.sampled_from([1, 2, 5, 40]),
        recall=st.sampled_from(["exact", 0.95, None]),
        ef=st.sampled_from([None, None, 1, 4]),
        condition=st.none() | conditions,
    )
    def search(
        self,
        data: st.DataObject,
        name: str,
        k: int,
        recall: float | str | None,
        ef: int | None,
        condition: Condition | None,
    ) -> None:
        queries = np.array(data.draw(st.lists(vectors_of[name], min_size=1, max_size=3)), np.float32)
        answers = self.collection.search_batch(
            queries,
            k,
            field=name,
            where=None if condition is None else condition.text,
            params=None if condition is None else condition.parameters,
            recall=recall,  # type: ignore[arg-type]
            ef=ef,
            with_vectors=True,
        )
        allowed = {
            each: stored.vectors[name]
            for each, stored in self.model.items()
            if name in stored.vectors and (condition is None or condition.holds(stored.payload))
        }
        for query, hits in zip(queries, answers, strict=True):
            assert hits.complete
            wrong = ranking_differences(
                hits.ids, hits.distances.tolist(), allowed, query, METRICS[name], k, exact=recall == "exact" and not ef
            )
            assert not wrong, (wrong, hits.strategy)
            for hit in hits:
                assert hit.payload == self.model[hit.id].payload
                assert same_vectors(hit.vectors, self.model[hit.id].vectors)

    @invariant()
    def counts(self) -> None:
        self.counted[1] += 1
        if self.database is not None:
            assert self.collection.count() == len(self.model)
            wanted = sum(number(stored.payload) >= 2 for stored in self.model.values())
            assert self.collection.count(Field("n") >= 2) == wanted

    def look(self) -> None:
        """Everything, at once."""
        assert self.collection.count() == len(self.model)
        self.scroll(100, None)  # type: ignore[call-arg]
        self.get(IDS)  # type: ignore[call-arg]
        assert self.collection.stats().last_seq == self.last_seq

    def teardown(self) -> None:
        try:
            if self.database is not None:
                self.look()
                self.database.close()
                report = check_database(self.path)
                assert report.ok, report.problems
        finally:
            shutil.rmtree(self.root, ignore_errors=True)


def run(trust: Trust, examples: int, steps: int, limit_s: float) -> None:
    """Run examples in parts, each with a seed of its own, until there are enough or the time is up."""
    begun_s = time.monotonic()
    counted = [0, 0]
    try:
        for part in range(-(-examples // EXAMPLES_OF_A_PART)):
            if time.monotonic() > begun_s + limit_s:
                break
            drawn = trust.seed * 1_000_000 + part
            machine = seed(drawn)(type("EngineBesideModel", (EngineBesideModel,), {"counted": counted}))
            how = settings(
                settings.get_profile("gate"),
                max_examples=min(EXAMPLES_OF_A_PART, examples - part * EXAMPLES_OF_A_PART),
                stateful_step_count=steps,
            )
            try:
                run_state_machine_as_test(machine, settings=how)
            except Exception as error:
                error.add_note(f"part {part}: seed({drawn})")
                raise
    finally:
        trust.points("P9 P2 P10", counted[1], told=f"steps, in {counted[0]} examples")
    assert counted[0] > examples // 20


def test_the_engine_beside_a_model(trust: Trust) -> None:
    run(trust, 300, 40, 25.0)


@pytest.mark.slow
def test_the_engine_beside_a_model_for_long(trust: Trust) -> None:
    run(trust, trust.sized(20_000), 60, 8 * 3_600)
