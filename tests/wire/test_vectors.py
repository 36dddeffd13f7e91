"""Vectors as bytes: views of the message, and lengths that are checked before anything else."""

import numpy as np
import pytest

from vecdb.errors import InvalidArgument, Unimplemented
from vecdb.requests import VectorColumn
from vecdb.v1.values_pb2 import DTYPE_FLOAT32
from vecdb.v1.values_pb2 import VectorColumn as Message
from vecdb.wire.vectors import decode_column, encode_column


def sent(field, column):
    return Message.FromString(encode_column(field, column).SerializeToString())


def test_vectors_come_back_as_they_were(rng):
    values = rng.normal(size=(5, 3)).astype(np.float32)
    values[1, 2], values[0, 0] = np.nan, -np.inf
    message = sent("标题", VectorColumn(values))
    decoded = decode_column(message, 5)
    assert message.field == "标题"
    assert decoded.rows is None
    assert decoded.values.tobytes() == values.tobytes()
    assert decoded.values.shape == (5, 3)


def test_decoding_copies_nothing_and_cannot_be_written(rng):
    decoded = decode_column(sent("", VectorColumn(rng.normal(size=(5, 3)).astype(np.float32))), 5).values
    assert not decoded.flags.owndata
    assert not decoded.flags.writeable


def test_rows_come_back_and_none_is_not_all():
    some = decode_column(sent("", VectorColumn(np.ones((2, 3), np.float32), np.array([1, 4], np.uint32))), 5)
    assert some.rows.tolist() == [1, 4]
    none = decode_column(sent("", VectorColumn(np.zeros((0, 0), np.float32), np.zeros(0, np.uint32))), 5)
    assert (none.rows.tolist(), none.values.shape) == ([], (0, 0))
    flat = decode_column(sent("", VectorColumn(np.zeros((5, 0), np.float32))), 5)
    assert (flat.rows, flat.values.shape) == (None, (5, 0))


def rows(*numbers):
    return np.array(numbers, "<u4").tobytes()


@pytest.mark.parametrize(
    ("message", "field", "kind"),
    [
        (Message(dim=2, dtype=DTYPE_FLOAT32, data=bytes(15)), "vectors.data", InvalidArgument),
        (Message(dim=2, dtype=DTYPE_FLOAT32, data=bytes(24)), "vectors.data", InvalidArgument),
        (Message(dim=2, dtype=DTYPE_FLOAT32), "vectors.data", InvalidArgument),
        (Message(dim=2**31, dtype=DTYPE_FLOAT32), "vectors.dim", InvalidArgument),
        (Message(dim=2, data=bytes(16)), "vectors.dtype", InvalidArgument),
        (Message(dim=2, dtype=9, data=bytes(16)), "vectors.dtype", Unimplemented),
        (Message(dim=2, dtype=DTYPE_FLOAT32, data=bytes(8), rows=b"abc"), "vectors.rows", InvalidArgument),
        (Message(dim=2, dtype=DTYPE_FLOAT32, data=bytes(8), rows=rows(2)), "vectors.rows", InvalidArgument),
        (Message(dim=2, dtype=DTYPE_FLOAT32, data=bytes(16), rows=rows(1, 1)), "vectors.rows", InvalidArgument),
        (Message(dim=2, dtype=DTYPE_FLOAT32, data=bytes(16), rows=rows(1, 0)), "vectors.rows", InvalidArgument),
        (Message(dim=2, dtype=DTYPE_FLOAT32, data=bytes(16), rows=rows(1)), "vectors.data", InvalidArgument),
    ],
)
def test_messages_that_are_none(message, field, kind):
    with pytest.raises(kind) as caught:
        decode_column(message, 2)
    assert type(caught.value) is kind
    assert caught.value.field == field


def test_a_wrong_length_names_what_was_expected_and_found():
    with pytest.raises(InvalidArgument) as caught:
        decode_column(Message(dim=3, dtype=DTYPE_FLOAT32, data=bytes(20)), 2, "vectors['title']")
    assert (caught.value.field, caught.value.limit, caught.value.value) == ("vectors['title'].data", "24 bytes", "20")
