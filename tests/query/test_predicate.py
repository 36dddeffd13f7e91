"""Exact evaluation of filters: columns, single rows and an oracle written here agree, case by case and at random."""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.errors import Corruption
from vecdb.filter import (
    And,
    Compare,
    Constant,
    Contains,
    Exists,
    Field,
    Filter,
    In,
    IsNull,
    Not,
    Operator,
    Or,
    Prefix,
    parse_filter,
)
from vecdb.payload import encode_payload
from vecdb.query import columns as columns_module
from vecdb.query.dictionary import LIST, MISSING, NULL, OBJECT
from vecdb.query.predicate import PayloadColumns, matches

Payload = dict[str, Any]
GAP = object()


def _oracle(where: Filter, payload: Payload) -> str:
    """'T', 'F' or 'U'; numbers as fractions, strings as UTF-8, one line for every rule of docs/filters.md."""
    if isinstance(where, Constant):
        return "T" if where.value else "F"
    if isinstance(where, Not):
        return {"T": "F", "F": "T", "U": "U"}[_oracle(where.operand, payload)]
    if isinstance(where, And):
        return min((_oracle(each, payload) for each in where.operands), key="FUT".index)
    if isinstance(where, Or):
        return max((_oracle(each, payload) for each in where.operands), key="FUT".index)
    node: Any = payload
    for key in where.path:  # type: ignore[attr-defined]
        node = node.get(key, GAP) if isinstance(node, dict) else GAP
    if isinstance(where, IsNull):
        return "T" if node is GAP or node is None else "F"
    if isinstance(where, Exists):
        return "F" if node is GAP else "T"
    if isinstance(where, Contains):
        if not isinstance(node, list):
            return "U"
        wanted = _ranked(where.value)
        return "T" if any(_ranked(each) == wanted for each in node) else "F"
    kind, value = _ranked(node)
    if isinstance(where, Prefix):
        return "U" if kind != "string" else "T" if value.startswith(where.prefix.encode()) else "F"
    if isinstance(where, In):
        alike = [ranked for ranked in map(_ranked, where.values) if ranked[0] == kind]
        return "U" if not alike else "T" if (kind, value) in alike else "F"
    assert isinstance(where, Compare)
    other_kind, other = _ranked(where.value)
    if kind != other_kind:
        return "U"
    sign = (value > other) - (value < other)
    return (
        "T"
        if sign in {"=": {0}, "!=": {-1, 1}, "<": {-1}, "<=": {-1, 0}, ">": {1}, ">=": {0, 1}}[where.op.value]
        else "F"
    )


def _ranked(value: Any) -> tuple[str, Any]:
    match value:
        case bool():
            return "boolean", value
        case int() | float():
            return "number", Fraction(value)
        case str():
            return "string", value.encode()
        case None:
            return "null", None
        case list() | dict():
            return "nested", id(value)
        case _:
            return "missing", None


FAMILIES: list[list[Any]] = [
    [0, 1, -1, 0.0, -0.0, False, True, "", "0"],
    [1, 1.0, True, "1", 2, 1.5, "true"],
    [2**53, 2**53 + 1, float(2**53), 2**53 + 2, -(2**53) - 1],
    [2**63, float(2**63), 2**64 + 1, 10**30, 1e30, 10**400],
    ["a", "ab", "abc", "b", "", "\x00"],
    ["é", "z", "\uffff", "\U0001f600", "退货", "退货政策"],
]
# Filters and payloads of one example draw from the same few values, so that they meet.
FAMILY = st.shared(st.sampled_from([*FAMILIES, [value for family in FAMILIES for value in family]]), key="family")
SCALARS = FAMILY.flatmap(st.sampled_from)
ELEMENTS = st.one_of(SCALARS, st.none(), st.just([1]), st.just({"a": 1}))
LEAF_VALUES = st.one_of(SCALARS, SCALARS, st.none(), st.lists(ELEMENTS, max_size=3))
NAMES = st.sampled_from(["a", "b", "c.d"])
OBJECTS = st.dictionaries(NAMES, LEAF_VALUES, max_size=3)
PAYLOADS = st.dictionaries(NAMES, st.one_of(LEAF_VALUES, LEAF_VALUES, OBJECTS), max_size=3)
PATHS = st.sampled_from([("a",), ("a",), ("b",), ("c.d",), ("a", "b"), ("a", "c.d"), ("b", "a", "a"), ("never",)])
LEAVES = st.one_of(
    st.builds(Compare, PATHS, st.sampled_from(Operator), SCALARS),
    st.builds(In, PATHS, st.lists(SCALARS, max_size=3).map(tuple)),
    st.builds(Prefix, PATHS, st.sampled_from(["", "a", "ab", "é", "退", "\U0001f600", "\uffff"])),
    st.builds(Contains, PATHS, st.one_of(SCALARS, st.none())),
    st.builds(IsNull, PATHS),
    st.builds(Exists, PATHS),
    st.builds(Constant, st.booleans()),
)
FILTERS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.filter(lambda each: each.depth < 8).map(Not),
        *(
            st.lists(inner.filter(lambda each: each.depth < 8), min_size=2, max_size=3).map(
                lambda some, kind=kind: kind(tuple(some))
            )
            for kind in (And, Or)
        ),
    ),
    max_leaves=6,
)


def _check(where: Filter, payloads: list[Payload]) -> None:
    expected = [_oracle(where, payload) == "T" for payload in payloads]
    columns = PayloadColumns([encode_payload(payload) for payload in payloads]).columns(where.paths())
    found = matches(where, columns, len(payloads))
    assert found.dtype == np.bool_
    assert found.tolist() == expected


@settings(max_examples=400, deadline=None)
@given(FILTERS, st.lists(PAYLOADS, max_size=12))
def test_columns_and_oracle_agree(where: Filter, payloads: list[Payload]) -> None:
    _check(where, payloads)


@pytest.mark.slow
@settings(max_examples=4_000, deadline=None)
@given(FILTERS, st.lists(PAYLOADS, max_size=12))
def test_columns_and_oracle_agree_on_much_more(where: Filter, payloads: list[Payload]) -> None:
    _check(where, payloads)


VALUES: Payload = {
    "none": None,
    "int": 1,
    "float": 1.0,
    "true": True,
    "false": False,
    "one": "1",
    "big": 2**53 + 1,
    "text": "abc",
    "list": [1, "x", None, True],
    "empty": [],
    "object": {"x": 1},
}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("v = 1", {"int", "float"}),
        ("v = 1.0", {"int", "float"}),
        ("v = true", {"true"}),
        ("v = '1'", {"one"}),
        ("v != 1", {"big"}),
        ("NOT v = 1", {"big"}),
        ("v != 'x'", {"one", "text"}),
        ("v < 5", {"int", "float"}),
        ("v > 1", {"big"}),
        ("v < 1", set()),
        ("v <= 1.0", {"int", "float"}),
        ("v > '1'", {"text"}),
        ("NOT v >= 1", set()),
        ("NOT v < 5", {"big"}),
        ("v > 9007199254740992.0", {"big"}),
        ("v = 9007199254740992.0", set()),
        ("v >= '1'", {"one", "text"}),
        ("v >= false", {"true", "false"}),
        ("v < true", {"false"}),
        ("v != true", {"false"}),
        ("NOT v IN (true)", {"false"}),
        ("NOT v IN (true, 'x', 1)", {"false", "one", "text", "big"}),
        ("v IN (1, 'abc')", {"int", "float", "text"}),
        ("v NOT IN (1, 'abc')", {"big", "one"}),
        ("v IN ()", set()),
        ("v NOT IN ()", set()),
        ("v BETWEEN 0 AND 1", {"int", "float"}),
        ("v LIKE 'a%'", {"text"}),
        ("v NOT LIKE 'a%'", {"one"}),
        ("v LIKE '%'", {"one", "text"}),
        ("v CONTAINS 1", {"list"}),
        ("v CONTAINS null", {"list"}),
        ("v CONTAINS false", set()),
        ("v CONTAINS 'a'", set()),
        ("v NOT CONTAINS 1", {"empty"}),
        ("v IS NULL", {"none", "missing"}),
        ("v IS NOT NULL", set(VALUES) - {"none"}),
        ("EXISTS v", set(VALUES)),
        ("NOT EXISTS v", {"missing"}),
        ("v.x = 1", {"object"}),
        ("v.x IS NULL", {*VALUES, "missing"} - {"object"}),
        ("v = 1 OR v != 1", {"int", "float", "big"}),
        ("v = 1 OR TRUE", {*VALUES, "missing"}),
        ("NOT (v = 1 AND FALSE)", {*VALUES, "missing"}),
    ],
)
def test_what_each_predicate_means(text: str, names: set[str]) -> None:
    rows: dict[str, Payload] = {name: {"v": value} for name, value in VALUES.items()}
    rows["missing"] = {"w": 1}
    where = parse_filter(text)
    columns = PayloadColumns([encode_payload(row) for row in rows.values()]).columns(where.paths())
    found = matches(where, columns, len(rows))
    assert {name for name, hit in zip(rows, found, strict=True) if hit} == names


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a.b = 1", [0]),
        ("a.b IS NULL", [1, 2, 3, 4, 5, 6]),
        ("EXISTS a.b", [0, 1]),
        ("NOT EXISTS a.b", [2, 3, 4, 5, 6]),
        ("a.b.c IS NULL", [0, 1, 2, 3, 4, 5, 6]),
        ("EXISTS a.b.c", []),
        ('"a.b" = 1', [6]),
        ("EXISTS a", [0, 1, 2, 3, 4, 5]),
        ("a IS NULL", [5, 6]),
    ],
)
def test_paths_lead_through_objects_only(text: str, rows: list[int]) -> None:
    payloads: list[Payload] = [
        *({"a": {"b": 1}}, {"a": {"b": None}}, {"a": {"c": 1}}, {"a": [{"b": 1}]}, {"a": "b"}, {"a": None}, {"a.b": 1}),
    ]
    where = parse_filter(text)
    columns = PayloadColumns([encode_payload(each) for each in payloads]).columns(where.paths())
    assert np.flatnonzero(matches(where, columns, len(payloads))).tolist() == rows


def test_a_column_holds_each_value_once() -> None:
    payloads = [{"v": value} for value in (1, True, "1", 1.0, False, 0, [1, None, [2], {}], {}, None, "1", [])] + [{}]
    column = PayloadColumns([encode_payload(each) for each in payloads]).columns([("v",)])[("v",)]
    assert [(type(each), each) for each in column.values] == [
        (int, 1),
        (bool, True),
        (str, "1"),
        (bool, False),
        (int, 0),
    ]
    assert column.codes.tolist() == [0, 1, 2, 0, 3, 4, LIST, OBJECT, NULL, 2, LIST, MISSING]
    assert column.element_rows.tolist() == [6, 6, 6, 6]
    assert column.element_codes.tolist() == [0, NULL, LIST, OBJECT]
    assert column.codes.dtype == column.element_codes.dtype == column.element_rows.dtype == np.int32
    assert column.n == 12
    assert column.nbytes > column.codes.nbytes
    with pytest.raises(ValueError, match="read-only"):
        column.codes[0] = 5


def test_a_column_of_fewer_rows_is_cut_between_lists() -> None:
    lists: list[list[int]] = [[1, 2], [], [3], [4, 5, 6]]
    columns = PayloadColumns([encode_payload({"v": each}) for each in lists])
    columns.columns([("v",)])
    for n in range(len(lists) + 1):
        column = columns.columns([("v",)], n)[("v",)]
        assert column.codes.tolist() == [LIST] * n
        assert column.element_rows.tolist() == [row for row in range(n) for _ in lists[row]]
        assert [column.values[code] for code in column.element_codes] == [each for row in lists[:n] for each in row]


WHERE = [
    parse_filter(text)
    for text in (
        "n < 700",
        "n >= 300 AND NOT n = 512",
        "name LIKE 'row 1%'",
        "tags CONTAINS 3",
        "NOT tags CONTAINS 3 AND even = true",
        "name IN ('row 5', 'row 1024') OR n IS NULL",
    )
]


def _row(at: int) -> Payload:
    row: Payload = {"n": at, "name": f"row {at}", "tags": [at % 5, at % 7][: at % 3], "even": at % 2 == 0}
    if at % 11 == 0:
        del row["n"]
    return row


@given(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 5), st.floats(0, 1)), min_size=1, max_size=8))
@settings(max_examples=25, deadline=None)
def test_columns_of_a_growing_part_are_those_of_its_rows(steps: list[tuple[int, int, float]]) -> None:
    payloads: list[bytes] = []
    columns = PayloadColumns(payloads)
    kept = []
    for added, which, share in steps:
        payloads.extend(encode_payload(_row(at)) for at in range(len(payloads), len(payloads) + added))
        where = WHERE[which]
        n = round(share * len(payloads))
        kept.append((where, n, columns.columns(where.paths(), n)))
    # Columns taken early still describe their own rows after later growth.
    for where, n, taken in kept:
        expected = [_oracle(where, _row(at)) == "T" for at in range(n)]
        assert matches(where, taken, n).tolist() == expected
    for where in WHERE:
        now = columns.columns(where.paths())
        assert matches(where, now, len(payloads)).tolist() == [
            _oracle(where, _row(at)) == "T" for at in range(len(payloads))
        ]


def test_each_row_is_decoded_once_for_paths_asked_together() -> None:
    class Counting(list[bytes]):
        rows_read = 0

        def __getitem__(self, at: Any) -> Any:
            part = super().__getitem__(at)
            Counting.rows_read += len(part)
            return part

    payloads = Counting(encode_payload(_row(at)) for at in range(1_300))
    columns = PayloadColumns(payloads)
    columns.columns([("n",), ("tags",), ("name",)])
    assert Counting.rows_read == 1_300
    columns.columns([("n",)])
    columns.columns([("n",), ("tags",)], 700)
    assert Counting.rows_read == 1_300
    payloads.extend(encode_payload(_row(at)) for at in range(1_300, 1_310))
    columns.columns([("n",), ("tags",)])
    assert Counting.rows_read == 1_310
    # A path that is new is read from the start, and one that is behind joins it.
    columns.columns([("even",), ("name",)])
    assert Counting.rows_read == 2_620
    assert columns.nbytes > 0
    assert matches(WHERE[0], columns.columns([("n",)], 5), 5).tolist() == [False, True, True, True, True]


def test_threads_may_ask_while_rows_arrive() -> None:
    payloads: list[bytes] = []
    columns = PayloadColumns(payloads)
    failures: list[object] = []
    done = threading.Event()

    def ask(first: int) -> None:
        turn = first
        while not done.is_set() or turn < first + len(WHERE):
            where = WHERE[turn % len(WHERE)]
            turn += 1
            n = len(payloads)
            found = matches(where, columns.columns(where.paths(), n), n)
            if found.tolist() != expected[where][:n]:
                failures.append((where, n))

    expected = {where: [_oracle(where, _row(at)) == "T" for at in range(3_000)] for where in WHERE}
    threads = [threading.Thread(target=ask, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    for at in range(3_000):
        payloads.append(encode_payload(_row(at)))
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize("bad", [b"", b"{", b"[1]", b"{},{}", b"\xff", b"1"])
def test_a_damaged_payload_is_named_by_its_row(bad: bytes) -> None:
    payloads = [encode_payload(_row(at)) for at in range(700)]
    payloads[600] = bad
    with pytest.raises(Corruption, match="row 600"):
        PayloadColumns(payloads).columns([("n",)])


def test_large_payloads_are_decoded_in_bounded_pieces() -> None:
    payloads = [encode_payload({"n": at, "text": "x" * 1_000_000}) for at in range(6)]
    assert matches(WHERE[0], PayloadColumns(payloads).columns([("n",)]), 6).all()


def test_no_rows_match_nothing() -> None:
    for where in (*WHERE, Constant(True), Field("a").is_null()):
        assert matches(where, PayloadColumns([]).columns(where.paths()), 0).shape == (0,)


class _FailingNumpy:
    """NumPy, of which the ``fails_at``-th call of ``zeros`` finds no memory."""

    def __init__(self, fails_at: int) -> None:
        self._left = fails_at

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def zeros(self, *arguments: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            raise MemoryError
        return np.zeros(*arguments)


@pytest.mark.parametrize("fails_at", range(1, 12))
def test_a_column_that_could_not_be_extended_is_extended_once_by_the_next_call(
    monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    values: list[Any] = [index % 5 if index % 3 else [index % 5, "x"] for index in range(1_500)]
    columns = PayloadColumns([encode_payload({"v": each}) for each in values])
    columns.columns([("v",)], 10)
    with monkeypatch.context() as patch:
        patch.setattr(columns_module, "np", _FailingNumpy(fails_at))
        with suppress(MemoryError):
            columns.columns([("v",)])
    _require_values(columns, values)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("interrupted_at", range(1, 10))
def test_a_column_whose_extension_was_interrupted_is_extended_once_by_the_next_call(
    monkeypatch: pytest.MonkeyPatch, interrupted_at: int
) -> None:
    values: list[Any] = [[index % 5] if index % 2 else index for index in range(1_500)]
    columns = PayloadColumns([encode_payload({"v": each}) for each in values])
    calls = 0
    write = columns_module._GrowingArray.write

    def interrupted(self: Any, size: int, added: list[int]) -> None:
        nonlocal calls
        write(self, size, added)
        calls += 1
        if calls == interrupted_at:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(columns_module._GrowingArray, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            columns.columns([("v",)])
    _require_values(columns, values)


def _require_values(columns: PayloadColumns, values: list[Any]) -> None:
    column = columns.columns([("v",)])[("v",)]
    lists = {row: each for row, each in enumerate(values) if isinstance(each, list)}
    told = [LIST if code == LIST else column.values[code] for code in column.codes]
    assert told == [LIST if isinstance(each, list) else each for each in values]
    elements = [(row, each) for row, found in lists.items() for each in found]
    assert column.element_rows.tolist() == [row for row, _ in elements]
    assert [column.values[code] for code in column.element_codes] == [each for _, each in elements]
