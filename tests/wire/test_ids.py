"""Ids as columns: every id comes back with its kind, and columns that contradict themselves are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.errors import InvalidArgument, Unimplemented
from vecdb.v1.values_pb2 import IdColumn
from vecdb.wire.ids import decode_ids, encode_ids

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=128)
ids = st.integers(0, 2**64 - 1) | texts


@given(st.lists(ids, max_size=20))
def test_ids_come_back(drawn):
    decoded = decode_ids(IdColumn.FromString(encode_ids(drawn).SerializeToString()))
    assert decoded == tuple(drawn)
    assert [type(each) for each in decoded] == [type(each) for each in drawn]


def test_kinds_are_sent_only_where_both_occur():
    assert encode_ids([1, 2]).kinds == encode_ids(["a"]).kinds == encode_ids([]).kinds == b""
    assert encode_ids([1, "1", 2]).kinds == b"\x00\x01\x00"


@pytest.mark.parametrize(
    ("column", "field", "kind"),
    [
        (IdColumn(integers=[1], strings=["a"]), "ids.kinds", InvalidArgument),
        (IdColumn(integers=[1], strings=["a"], kinds=b"\x00"), "ids.kinds", InvalidArgument),
        (IdColumn(integers=[1], strings=["a"], kinds=b"\x00\x01\x01"), "ids.kinds", InvalidArgument),
        (IdColumn(integers=[1, 2], kinds=b"\x00\x01"), "ids.kinds", InvalidArgument),
        (IdColumn(integers=[1, 2], kinds=b"\x00\x02"), "ids.kinds", Unimplemented),
        (IdColumn(strings=["a", ""]), "ids[1]", InvalidArgument),
        (IdColumn(strings=["x" * 513]), "ids[0]", InvalidArgument),
        (IdColumn(strings=["文" * 171]), "ids[0]", InvalidArgument),
        (IdColumn(integers=[7], strings=[""], kinds=b"\x00\x01"), "ids[1]", InvalidArgument),
    ],
)
def test_columns_that_are_none(column, field, kind):
    with pytest.raises(kind) as caught:
        decode_ids(column)
    assert type(caught.value) is kind
    assert caught.value.field == field


def test_the_longest_ids_are_taken():
    longest = ["x" * 512, "é" * 256, "🦜" * 128]
    assert decode_ids(encode_ids(longest)) == tuple(longest)
