"""Errors as statuses: each comes back as what it was, within what metadata may hold."""

import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from vecdb import errors
from vecdb.errors import Internal, InvalidArgument, NotFound, Unavailable, VecdbError
from vecdb.wire.errors import STATUS_CODES, comes_from_vecdb, decode_error, encode_error

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, VecdbError)]


def attributes(error):
    return type(error), error.message, error.field, error.limit, error.value, error.position


def sent(error):
    status = encode_error(error)
    return decode_error(status.code, status.message, status.details)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not VecdbError])
def test_every_error_comes_back(kind):
    error = kind("什么 failed", field="k", limit="1..10", value=11, position=3)
    assert attributes(sent(error)) == attributes(error)
    assert attributes(sent(kind("bare"))) == attributes(kind("bare"))


def test_the_table_holds_every_error_and_real_codes():
    assert set(STATUS_CODES) == set(KINDS) - {VecdbError}
    assert set(STATUS_CODES.values()) <= set(range(1, 17)) - {2, 11}
    shared = [kind for kind, code in STATUS_CODES.items() if list(STATUS_CODES.values()).count(code) > 1]
    assert {kind.__name__ for kind in shared} == {"Internal", "DeviceError"}


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)


@given(texts, st.none() | texts, st.none() | texts, st.none() | texts, st.none() | st.integers(0, 10**6))
def test_attributes_of_any_text_come_back(message, field, limit, value, position):
    error = InvalidArgument(message, field=field, limit=limit, value=value, position=position)
    assert attributes(sent(error)) == attributes(error)


@pytest.mark.parametrize("letter", ["x", "文", "🦜", "\x00", "%"])
def test_statuses_stay_below_what_metadata_may_hold(letter):
    long = letter * 70_000
    status = encode_error(InvalidArgument(long, field=long, limit=long, value=long, position=1))
    plain_bytes = sum(1 if 0x20 <= each < 0x7F and each != 0x25 else 3 for each in status.message.encode())
    assert plain_bytes + len(status.details) * 4 / 3 < 15_000
    found = decode_error(status.code, status.message, status.details)
    assert found.message.endswith("...")
    assert found.message[:500] == long[:500]


def test_half_a_surrogate_is_escaped():
    assert sent(InvalidArgument("a \ud800", field="\udfff")).message == "a \\ud800"


def test_a_status_of_the_transport_is_told_by_its_code():
    assert attributes(decode_error(14, "connection refused", None)) == attributes(Unavailable("connection refused"))
    assert type(decode_error(2, "?", None)) is Internal
    assert type(decode_error(11, "?", None)) is InvalidArgument
    assert not comes_from_vecdb(None)


def test_a_status_of_somebody_else_is_told_by_its_code():
    foreign = status_pb2.Status(code=5, message="other")
    foreign.details.add().Pack(error_details_pb2.ErrorInfo(reason="NOT_FOUND", domain="proxy.example"))
    for details in (foreign.SerializeToString(), b"\xff\xff\xff", b""):
        assert attributes(decode_error(5, "plain", details)) == attributes(NotFound("plain"))
        assert not comes_from_vecdb(details)


def test_a_reason_from_the_future_is_told_by_its_code():
    status = status_pb2.Status(code=8, message="quota")
    info = error_details_pb2.ErrorInfo(reason="OUT_OF_QUOTA", domain="vecdb", metadata={"field": "f"})
    status.details.add().Pack(info)
    found = decode_error(8, "quota", status.SerializeToString())
    assert (type(found), found.field) == (errors.ResourceExhausted, "f")


def test_an_error_made_elsewhere_is_internal():
    class Odd(VecdbError):
        pass

    assert encode_error(Odd("odd")).code == 13
