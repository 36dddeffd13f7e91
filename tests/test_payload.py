"""Payload bytes: what goes in comes out, and everything that JSON would change is refused."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.errors import Corruption, InvalidArgument
from vecdb.payload import (
    INTEGER_DIGITS_MAX,
    PAYLOAD_BYTES_MAX,
    PAYLOAD_DEPTH_MAX,
    check_payload,
    decode_payload,
    encode_payload,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXT, st.just(-(10**400))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=12,
)
PAYLOADS = st.dictionaries(TEXT, VALUES, max_size=6)


def _same(one: Any, other: Any) -> bool:
    """Equal in value, type and sign of zero, at every level and in order."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return bool(one == other)


@settings(deadline=None)
@given(PAYLOADS)
def test_payloads_come_back_as_they_went_in(payload: dict[str, Any]) -> None:
    data = encode_payload(payload)
    assert _same(decode_payload(data), payload)
    assert json.loads(data.decode("utf-8")) == payload
    check_payload(data)


REFUSED_VALUES: list[Any] = [
    *(math.nan, math.inf, -math.inf, b"x", bytearray(b"x"), (1, 2), {1}, frozenset(), 1j, object(), range(3), len),
    *(datetime.datetime(2024, 1, 1), datetime.date(2024, 1, 1), decimal.Decimal(1), "\ud800", "a\udfffb"),
    *({1: 2}, {None: 1}, {True: 1}, {(1,): 2}, {b"a": 1}, {"\ud800": 1}, 10**INTEGER_DIGITS_MAX),
    *(
        np.zeros(2),
        np.zeros(()),
        np.float64("nan"),
        np.float32("inf"),
        np.datetime64("2024-01-01"),
        np.longdouble(1),
    ),
    *(np.timedelta64(1, "ns"), np.complex64(1), np.bytes_(b"x")),
]


@pytest.mark.parametrize("bad", REFUSED_VALUES, ids=lambda bad: type(bad).__name__)
def test_values_that_json_lacks_are_refused(bad: Any) -> None:
    for payload, place in (({"v": bad}, "payloads[0].v"), ({"n": np.int64(1), "v": [bad]}, "payloads[0].v[0]")):
        with pytest.raises(InvalidArgument) as caught:
            encode_payload(payload)
        assert caught.value.field is not None
        assert caught.value.field.startswith(place)


@settings(deadline=None)
@given(
    PAYLOADS, st.sampled_from(REFUSED_VALUES), st.lists(st.sampled_from(["[]", "{}"]), max_size=5), st.integers(0, 9)
)
def test_anything_else_is_refused_by_place(
    payload: dict[str, Any], bad: Any, wrapping: list[str], position: int
) -> None:
    value, place = bad, ""
    for wrap in wrapping:
        value, place = ([0, value], f"[1]{place}") if wrap == "[]" else ({"in": value}, f".in{place}")
    payload["bad"] = value
    with pytest.raises(InvalidArgument) as caught:
        encode_payload(payload, position)
    assert caught.value.field is not None
    assert caught.value.field.startswith(f"payloads[{position}].bad{place}")


class _Colour(enum.StrEnum):
    RED = "red"


class _Level(enum.IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        *(
            (np.int64(-5), -5),
            (np.uint64(2**64 - 1), 2**64 - 1),
            (np.bool_(True), True),
            (np.float32(0.1), float(np.float32(0.1))),
        ),
        *((np.float64(0.1), 0.1), (np.float16(0.5), 0.5), (np.str_("a"), "a"), (_Colour.RED, "red"), (_Level.HIGH, 3)),
        *((collections.OrderedDict(b=1, a=[np.int8(1)]), {"b": 1, "a": [1]}), (collections.Counter("aa"), {"a": 2})),
        ([np.int64(1), "x"], [1, "x"]),
    ],
)
def test_equal_values_of_other_types_are_stored_plain(given: Any, stored: Any) -> None:
    payload = {"before": "é", "x": given, "after": [None]}
    assert _same(decode_payload(encode_payload(payload)), {"before": "é", "x": stored, "after": [None]})
    assert payload["x"] is given
    assert _same(decode_payload(encode_payload({_Colour.RED: 1, np.str_("k"): 2})), {"red": 1, "k": 2})


@pytest.mark.parametrize("payload", [None, [], "x", 5, [("a", 1)], b"{}"])
def test_a_payload_is_an_object(payload: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        encode_payload(payload, 7)
    assert (caught.value.field, caught.value.value) == ("payloads[7]", type(payload).__name__)


def _nested(levels: int, kind: type) -> dict[str, Any]:
    value: Any = 1
    for _ in range(levels - 1):
        value = [value] if kind is list else {"k": value}
    return {"k": value}


@pytest.mark.parametrize("kind", [list, dict])
def test_depth_is_limited(kind: type) -> None:
    deepest = _nested(PAYLOAD_DEPTH_MAX, kind)
    assert decode_payload(encode_payload(deepest)) == deepest
    check_payload(json.dumps(deepest).encode())
    for refuse in (
        lambda: encode_payload(_nested(PAYLOAD_DEPTH_MAX + 1, kind), 2),
        lambda: encode_payload({**_nested(PAYLOAD_DEPTH_MAX + 1, kind), "n": np.int64(1)}, 2),
        lambda: check_payload(json.dumps(_nested(PAYLOAD_DEPTH_MAX + 1, kind)).encode(), 2),
    ):
        with pytest.raises(InvalidArgument) as caught:
            refuse()
        assert caught.value.limit == "64 levels"
        assert caught.value.field is not None
        assert caught.value.field.startswith("payloads[2].k")
    cycle: dict[str, Any] = {}
    cycle["self"] = [cycle]
    with pytest.raises(InvalidArgument):
        encode_payload(cycle)


def test_size_is_limited() -> None:
    largest = {"x": "é" * ((PAYLOAD_BYTES_MAX - 8) // 2)}
    data = encode_payload(largest)
    assert len(data) == PAYLOAD_BYTES_MAX
    check_payload(data)
    largest["x"] += "a"
    for refuse in (lambda: encode_payload(largest, 4), lambda: check_payload(data + b" ", 4)):
        with pytest.raises(InvalidArgument) as caught:
            refuse()
        assert (caught.value.field, caught.value.limit, caught.value.value) == (
            "payloads[4]",
            "1048576 bytes",
            "1048577 bytes",
        )


def test_long_integers_are_kept_up_to_the_limit() -> None:
    longest = {"x": 10**INTEGER_DIGITS_MAX - 1, "y": [-(10**INTEGER_DIGITS_MAX) + 1]}
    assert decode_payload(encode_payload(longest)) == longest


def test_errors_do_not_quote_values() -> None:
    secret = "canary-secret"
    for refuse in (
        lambda: encode_payload({"a": {secret}}),
        lambda: encode_payload({"a": secret + "\ud800"}),
        lambda: encode_payload({"a": secret.encode()}),
        lambda: check_payload(b'{"a": "' + secret.encode() + b'", "b"}'),
        lambda: check_payload(b'["' + secret.encode() + b'"]'),
        lambda: check_payload(b'{"a": "' + secret.encode() + b'\xff"}'),
    ):
        with pytest.raises(InvalidArgument) as caught:
            refuse()
        assert secret not in f"{caught.value.message} {caught.value.value} {caught.value.field}"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1,}', "not JSON"),
        (b'{"a": 01}', "not JSON"),
        (b"\xff{}", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        ('{"a": "é"}'.encode("latin-1"), "not JSON"),
        (b'{"a": "\n"}', "not JSON"),
        (b"[]", "JSON object"),
        (b"null", "JSON object"),
        (b'"x"', "JSON object"),
        (b"{} {}", "goes on"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": [-Infinity]}', "Infinity"),
        (b'{"a": 1e400}', "infinity"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\udc00": 1}', "surrogate"),
        (b'{"a": 1, "a": 1}', "twice"),
        (b'{"x": [{"a": 1, "b": 2, "a": 3}]}', "twice"),
        (b'{"a": ' + b"9" * 4301 + b"}", "4300 digits"),
        (b'{"a": ' + b"[" * 100_000 + b"}", "deeper"),
        (b'{"a":' * 100_000, "deeper"),
    ],
)
def test_json_from_outside_is_checked(data: bytes, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_payload(data, 3)
    assert words in caught.value.message
    assert caught.value.field is not None
    assert caught.value.field.startswith("payloads[3]")


def test_json_from_outside_may_be_spelled_in_any_way() -> None:
    data = b' \n{ "a" : [1e2, "\\u00e9\\ud83d\\ude00", -0 ], "b":{}}\t'
    check_payload(data)
    assert decode_payload(data) == {"a": [100.0, "é😀", 0], "b": {}}


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[1]", b"{}{}", b"{} x", b"nul", b"[" * 100_000])
def test_damaged_bytes_are_corruption(data: bytes) -> None:
    with pytest.raises(Corruption):
        decode_payload(data)
