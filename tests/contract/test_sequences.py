"""Sequences of operations, drawn by Hypothesis: every implementation stays equal to the oracle."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.implementations import NAMES, opened
from tests.contract.memory_database import MemoryDatabase
from vecdb.schema import CollectionSchema, VectorField

SCHEMA = CollectionSchema((VectorField(2, "l2", name="a"), VectorField(3, "dot", name="b")))

ids = st.sampled_from([0, 1, 2, 3, "0", "1", "二", 2**64 - 1])
numbers = st.integers(-3, 3)
vectors_a = st.none() | st.tuples(numbers, numbers)
vectors_b = st.none() | st.tuples(numbers, numbers, numbers)
payloads = st.fixed_dictionaries({"n": st.integers(0, 4)}, optional={"tag": st.sampled_from(["x", "y", None])})
points = st.lists(st.tuples(ids, vectors_a, vectors_b, payloads), max_size=6, unique_by=lambda each: repr(each[0]))
filters = st.sampled_from(["n < 2", "tag = 'x'", "tag IS NULL", "n IN (1, 3) OR tag != 'y'"])
operations = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), points),
        st.tuples(st.just("upsert"), points),
        st.tuples(st.just("delete"), st.lists(ids, max_size=4)),
        st.tuples(st.just("delete where"), filters),
        st.tuples(st.just("flush"), st.none()),
        st.tuples(st.just("read"), filters),
    ),
    min_size=1,
    max_size=14,
)


def apply(docs, operation, argument):
    """What the caller sees of one operation, comparable over implementations."""
    match operation:
        case "upsert":
            written = docs.upsert(
                [each[0] for each in argument],
                {"a": [each[1] for each in argument], "b": [each[2] for each in argument]},
                [each[3] for each in argument],
            )
            return written.seq, written.upserted, written.deleted
        case "delete":
            written = docs.delete(argument)
            return written.seq, written.upserted, written.deleted
        case "delete where":
            written = docs.delete(where=argument)
            return written.seq, written.upserted, written.deleted
        case "flush":
            return docs.flush()
        case "read":
            return docs.count(argument), ranking(docs, argument), everything(docs, argument)


def ranking(docs, where):
    """Distances of all that matches: ids of equal distance come in no promised order."""
    hits = docs.search([0.5, -1.5], k=100, field="a", where=where)
    return sorted(np.round(hits.distances.astype(float), 4).tolist()), sorted(map(repr, hits.ids)), hits.complete


def everything(docs, where=None):
    return {
        (type(point.id), point.id): (
            point.payload,
            {name: values.tolist() for name, values in sorted(point.vectors.items())},
        )
        for point in docs.scroll(where, with_vectors=True, page_rows=3)
    }


@pytest.mark.parametrize("name", [each for each in NAMES if each != "memory"])
def test_sequences_of_operations(name, loop):
    @settings(max_examples=25)
    @given(operations)
    def check(drawn):
        with tempfile.TemporaryDirectory() as folder, opened(name, Path(folder) / "db", loop) as database:
            docs = database.create_collection("docs", schema=SCHEMA)
            known = MemoryDatabase().create_collection("docs", schema=SCHEMA)
            for operation, argument in drawn:
                assert apply(docs, operation, argument) == apply(known, operation, argument), operation
            assert everything(docs) == everything(known)
            assert docs.stats().points == len(known.points)

    check()
