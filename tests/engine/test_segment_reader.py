"""A reader of a segment keeps to the files that its segment has now, and goes when nobody holds it."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest

from tests.engine.conftest import DIM, SMALL
from vecdb.kernels.reference import ReferenceKernels
from vecdb.segment import reader as reading
from vecdb.segment.layout import Role
from vecdb.segment.reader import SegmentReader

ROWS = 60


@pytest.fixture
def made(open_database, vectors):
    """Makes readers of one segment that has a graph, of all its files or without those of some roles."""
    collection = open_database(replace(SMALL, kernels="reference")).create_collection("c", DIM)
    collection.upsert(range(ROWS), vectors[:ROWS], [{"n": number} for number in range(ROWS)])
    collection.wait_indexed()
    state = collection._lease().use(lambda opened: opened._state)
    (entry,) = state.manifest.segments
    assert entry.file(Role.GRAPH) is not None

    def make(*left_out):
        files = tuple(file for file in entry.files if file.role not in left_out)
        return SegmentReader(state.directory, replace(entry, files=files), collection.schema, ReferenceKernels())

    return make, entry


def test_an_attached_graph_is_walked_also_by_who_asked_for_the_field_before(made):
    make, entry = made
    reader = make(Role.GRAPH)
    assert not reader.field("").has_graph
    reader.attach(entry.file(Role.GRAPH))
    assert reader.field("").has_graph


def test_a_field_that_was_made_while_a_graph_was_attached_is_not_kept(made, monkeypatch):
    make, entry = made
    reader = make(Role.GRAPH)
    make_field = reading.SegmentField

    def attached_meanwhile(*arguments):
        field = make_field(*arguments)
        monkeypatch.undo()
        reader.attach(entry.file(Role.GRAPH))
        return field

    monkeypatch.setattr(reading, "SegmentField", attached_meanwhile)
    assert not reader.field("").has_graph
    assert reader.field("").has_graph
    assert reader.field("") is reader.field("")


def test_a_taken_entry_makes_anew_only_the_fields_whose_files_it_changes(made):
    make, entry = made
    reader = make(Role.GRAPH)
    reader.take(reader.entry)
    field = reader.field("")
    reader.take(reader.entry)
    assert reader.field("") is field
    reader.take(entry)
    assert reader.field("").has_graph


def test_a_reader_is_gone_as_soon_as_nobody_holds_it(made):
    make, _ = made
    reader = make()
    field = reader.field("")
    field.ensure(None)
    assert field.codes.rows == field.graph.rows == field.exact.rows == ROWS
    keys, payloads = reader.keys, reader.payloads
    assert keys.locate(keys[:2], keys.hashes[np.argsort(keys.hash_rows)[:2]]).tolist() == [0, 1]
    assert payloads[3] == b'{"n":3}' == payloads[:][3]
    gone = weakref.ref(reader)
    gc.disable()
    try:
        del reader
        # What is held on still reads: a filter that is being evaluated, say.
        assert gone() is None
        assert payloads[4] == b'{"n":4}'
    finally:
        gc.enable()
