"""Ids of a segment: whatever their kinds, in one step where they are all integers."""

import numpy as np
import pytest

from vecdb.errors import Corruption
from vecdb.segment.ids import PackedKeys, key_of, pack

_ROWS = np.array([2, 0, 2, 1])


@pytest.mark.parametrize(
    "ids",
    [
        [0, 1, 2**64 - 1],
        [256, 2**63, 5],
        ["a", "é", "x" * 512],
        [7, "12345678", 9],
        ["12345678", "abcdefgh", "xxxxxxxx"],
    ],
)
def test_ids_of_rows(ids):
    packed = PackedKeys(*pack([key_of(each) for each in ids]))
    found = packed.ids_at(_ROWS)
    assert found == [ids[row] for row in _ROWS]
    assert [type(each) for each in found] == [type(ids[row]) for row in _ROWS]
    assert found == [packed.id_at(row) for row in _ROWS.tolist()]


@pytest.mark.parametrize("keys", [[b"\0" * 9, b"\2" + b"\0" * 8, b"\0" * 9], [b"\0" * 8, b"\0" * 10, b"\0" * 9]])
def test_bytes_that_encode_no_id(keys):
    packed = PackedKeys(*pack(keys))
    assert packed.ids_at(np.array([2])) == [0]
    with pytest.raises(Corruption):
        packed.ids_at(_ROWS)
