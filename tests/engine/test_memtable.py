"""The memtable grows under its readers: what a view shows never changes, and capacity is kept to."""

import numpy as np
import pytest

from vecdb.arguments import upsert_request
from vecdb.bitmap import LiveRows
from vecdb.schema import CollectionSchema
from vecdb.segment.memtable import Memtable, prepare

DIM = 3


def batch(first, count, rng):
    vectors = rng.normal(size=(count, DIM)).astype(np.float32)
    request = upsert_request(range(first, first + count), vectors, None, None)
    return prepare(request, SCHEMA, b"k" * 16), vectors


SCHEMA = CollectionSchema.single(DIM, "l2")


def test_views_keep_what_they_showed_while_the_arrays_grow(rng):
    memtable = Memtable(SCHEMA, 5_000, 1)
    assert memtable.hashes.nbytes < 4_096
    views, given, rows = [], [], 0
    for seq, count in enumerate((1, 200, 60, 900, 3, 3_000), 1):
        prepared, vectors = batch(rows, count, rng)
        memtable.append(prepared, seq)
        given.append(vectors)
        rows += count
        views.append((rows, memtable.view(LiveRows.full(rows))))
    everything = np.concatenate(given)
    for seen, view in views:
        assert view.rows == seen
        assert np.array_equal(view.fields[""].vectors, everything[:seen])
    assert memtable.seqs[:rows].tolist() == [seq for seq, each in enumerate(given, 1) for _ in each]
    assert sorted(memtable.hashes[:rows][memtable.sorted_by_hash(rows)].tolist()) == sorted(
        memtable.hashes[:rows].tolist()
    )


@pytest.mark.parametrize("rows_max", [1, 100, 257, 1_030])
def test_capacity_is_reached_and_never_passed(rng, rows_max):
    memtable = Memtable(SCHEMA, rows_max, 1)
    for row in range(0, rows_max, 50):
        count = min(50, rows_max - row)
        assert memtable.fits(count)
        memtable.append(batch(row, count, rng)[0], row + 1)
    assert memtable.rows == rows_max
    assert not memtable.fits(1)
    assert memtable.hashes.shape[0] <= rows_max


def test_without_memory_nothing_changes(rng, monkeypatch):
    memtable = Memtable(SCHEMA, 5_000, 1)
    memtable.append(batch(0, 200, rng)[0], 1)

    def none(*_arguments, **_options):
        raise MemoryError

    prepared, _ = batch(200, 200, rng)
    with monkeypatch.context() as patch:
        patch.setattr("vecdb.segment.memtable.np.empty", none)
        with pytest.raises(MemoryError):
            memtable.append(prepared, 2)
    assert (memtable.rows, len(memtable.ids), len(memtable.keys), memtable.seq_last) == (200, 200, 200, 1)
    memtable.append(prepared, 2)
    assert (memtable.rows, len(memtable.ids)) == (400, 400)
