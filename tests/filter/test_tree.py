"""The expression tree: what it accepts, its limits, its identity and its text."""

from __future__ import annotations

import enum
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.errors import InvalidArgument
from vecdb.filter import (
    DEPTH_MAX,
    IN_VALUES_MAX,
    NODES_MAX,
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
    all_of,
    any_of,
    parse_filter,
    parse_path,
    path_text,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
AWKWARD = st.sampled_from(["a.b", "IN", "null", 'q"q', "it's", "发布 日期", "100%_\\", "9lives", " ", "x", "é", "²"])
KEYS = st.one_of(AWKWARD, TEXT)
PATHS = st.lists(KEYS, min_size=1, max_size=3).map(tuple)
SCALARS = st.one_of(
    TEXT, AWKWARD, st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.just(10**400)
)
LEAVES = st.one_of(
    st.builds(Compare, PATHS, st.sampled_from(Operator), SCALARS),
    st.builds(In, PATHS, st.lists(SCALARS, max_size=4).map(tuple)),
    st.builds(Prefix, PATHS, st.one_of(AWKWARD, TEXT)),
    st.builds(Contains, PATHS, st.one_of(st.none(), SCALARS)),
    st.builds(IsNull, PATHS),
    st.builds(Exists, PATHS),
    st.builds(Constant, st.booleans()),
)


def _joined(inner: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    several = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.one_of(
        inner.filter(lambda each: each.depth < 8).map(Not),
        several.filter(lambda each: max(e.depth for e in each) < 8).map(And),
        several.filter(lambda each: max(e.depth for e in each) < 8).map(Or),
    )


TREES = st.recursive(LEAVES, _joined, max_leaves=10)


@settings(deadline=None)
@given(TREES)
def test_every_tree_prints_as_text_that_parses_back(tree: Filter) -> None:
    again = parse_filter(str(tree))
    assert again == tree
    assert hash(again) == hash(tree)
    assert str(again) == str(tree)
    assert pickle.loads(pickle.dumps(tree)) == tree


@settings(deadline=None)
@given(TREES)
def test_paths_depth_and_nodes_are_those_of_the_tree(tree: Filter) -> None:
    def walk(node: Filter) -> tuple[int, int, set[tuple[str, ...]]]:
        match node:
            case And(operands) | Or(operands):
                parts = [walk(each) for each in operands]
            case Not(operand):
                parts = [walk(operand)]
            case Constant():
                return 1, 1, set()
            case _:
                return 1, 1, {node.path}
        return 1 + max(p[0] for p in parts), 1 + sum(p[1] for p in parts), set().union(*(p[2] for p in parts))

    assert walk(tree) == (tree.depth, tree.nodes, tree.paths())


@settings(deadline=None)
@given(PATHS)
def test_every_path_is_spelled_so_that_it_reads_back(path: tuple[str, ...]) -> None:
    assert parse_path(path_text(path)) == path
    assert Field.at(*path).path == path


def test_values_of_different_types_make_different_trees() -> None:
    x = Field("x")
    trees = [x == 1, x == 1.0, x == True, x == "1"]  # noqa: E712
    assert len(set(trees)) == 4
    assert all((a == b) == (a is b) for a in trees for b in trees)
    assert x.is_in([1]) != x.is_in([True])
    assert x.is_in([1, 1.0, True, 1]) == In(("x",), (1, 1.0, True))
    assert x.contains(1) != x.contains(True)
    assert x.contains(None) != x.contains(False)
    assert Constant(True) != Constant(False)
    assert (x == 1) != "x = 1"
    assert x.is_null() != x.exists()


def test_python_trees_print_as_sql() -> None:
    f = (Field("year") >= 2023) & Field("lang").is_in(["zh", "en"]) | ~Field("tags").contains("x")
    assert str(f) == "year >= 2023 AND lang IN ('zh', 'en') OR tags NOT CONTAINS 'x'"
    assert str((Field("a") < 1) & ((Field("b") <= 2) | (Field("c") > 3))) == "a < 1 AND (b <= 2 OR c > 3)"
    assert str(~((Field("a") != 1) | (Field("b") == 2))) == "NOT (a != 1 OR b = 2)"
    assert str(~~Field("a").exists()) == "NOT NOT EXISTS a"
    assert str(Field("a").is_not_null()) == "a IS NOT NULL"
    assert str(Field("a").not_in([])) == "a NOT IN ()"
    assert str(Field("t").startswith("50%")) == r"t LIKE '50\%%'"
    assert str(Field("a").between(1, 2)) == "a >= 1 AND a <= 2"
    assert (5 > Field("a")) == Compare(("a",), Operator.LT, 5)  # noqa: SIM300 (the reflected comparison)
    assert repr(Field("a") == 1) == "<Filter a = 1>"
    assert repr(Field('m."a.b"')) == "Field('m.\"a.b\"')"


def test_and_and_or_are_flat() -> None:
    a, b, c = (Field(name) == 1 for name in "abc")
    assert (a & b) & c == a & (b & c) == And((a, b, c)) == all_of([a, b, c])
    assert (a | b) | c == Or((a, b, c)) == any_of(iter([a, b, c]))
    assert (a & b & c).depth == 2
    assert all_of([]) == Constant(True)
    assert any_of([]) == Constant(False)
    assert all_of([a]) is a
    assert any_of([a]) is a


def test_a_filter_is_neither_true_nor_false() -> None:
    f = Field("a") == 1
    with pytest.raises(TypeError, match=r"&, \| and ~"):
        bool(f)
    with pytest.raises(TypeError):
        assert 1 < Field("a") < 5
    with pytest.raises(TypeError):
        f & True  # type: ignore[operator]
    with pytest.raises(TypeError):
        f | "a = 1"  # type: ignore[operator]
    with pytest.raises(TypeError):
        hash(Field("a"))
    with pytest.raises(AttributeError):
        f.value = 2  # type: ignore[attr-defined]


def test_a_tree_too_deep_or_too_large_is_never_made() -> None:
    deep: Filter = Field("a") == 1
    for _ in range(DEPTH_MAX - 1):
        deep = ~deep
    with pytest.raises(InvalidArgument) as caught:
        Not(deep)
    assert (caught.value.field, caught.value.limit, caught.value.value) == ("where", "16 levels", "17")

    leaf = Field("a") == 1
    widest = And((leaf,) * (NODES_MAX - 1))
    assert widest.nodes == NODES_MAX
    assert parse_filter(str(widest)) == widest
    with pytest.raises(InvalidArgument) as caught:
        widest & leaf
    assert (caught.value.field, caught.value.limit, caught.value.value) == ("where", "1024 nodes", "1025")


def test_in_takes_ten_thousand_values() -> None:
    assert len(Field("a").is_in(range(IN_VALUES_MAX)).values) == IN_VALUES_MAX  # type: ignore[attr-defined]
    for make in (
        lambda: Field("a.b").is_in(range(IN_VALUES_MAX + 1)),
        lambda: parse_filter("a.b IN :many", {"many": list(range(IN_VALUES_MAX + 1))}),
        lambda: parse_filter("a.b IN (:half, :half, 1)", {"half": list(range(IN_VALUES_MAX // 2))}),
    ):
        with pytest.raises(InvalidArgument) as caught:
            make()
        assert (caught.value.field, caught.value.limit, caught.value.value) == ("a.b", "10000 values", "10001")


@pytest.mark.parametrize(
    "value",
    [
        *(math.nan, math.inf, -math.inf, None, b"x", [1], {"a": 1}, 1j, 10**4300, -(10**4300), "\ud800", object()),
        *(np.float32("nan"), np.datetime64("2024-01-01"), np.timedelta64(1, "ns"), np.zeros(1), np.longdouble(1)),
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_what_compares_with_nothing_is_refused(value: object) -> None:
    for make in (
        lambda: Field("m.x") == value,
        lambda: Field("m.x") < value,
        lambda: Field("m.x").is_in([1, value]),
        lambda: Field("m.x").between(1, value),
        lambda: Field("m.x").startswith(value),
    ):
        with pytest.raises(InvalidArgument) as caught:
            make()
        assert caught.value.field == "m.x"


class _Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        *((np.int64(5), 5), (np.uint8(5), 5), (np.float32(0.5), 0.5), (np.bool_(True), True), (np.str_("a"), "a")),
        *((_Colour.RED, "red"), (np.float64(2.5), 2.5), (10**4299, 10**4299)),
    ],
)
def test_equal_values_of_other_types_become_plain(given: object, plain: object) -> None:
    tree = Field("a") == given  # type: ignore[operator]
    assert tree == (Field("a") == plain)  # type: ignore[operator]
    assert type(tree.value) is type(plain)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text", ["", ".a", "a.", "a..b", '"a', '"a"b', '"', '"""', 'a"b"', "\ud800", ".".join("a" * 65)]
)
def test_paths_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Field(text)
    assert caught.value.field == "path"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Field(5),
        lambda: Field.at(),
        lambda: Field.at("a", 5),
        lambda: Compare("a", Operator.EQ, 1),
        lambda: Compare(("a",), "=", 1),
        lambda: In(("a",), [1]),
        lambda: Field("a").is_in("abc"),
        lambda: And((Field("a") == 1,)),
        lambda: Or(()),
        lambda: Or((Field("a") == 1, "b = 1")),
        lambda: Not(None),
        lambda: all_of(["a = 1"]),
        lambda: Constant(1),
    ],
)
def test_misuse_of_the_tree_is_refused(make: object) -> None:
    with pytest.raises(InvalidArgument):
        make()  # type: ignore[operator]


def test_paths_keep_odd_keys_apart() -> None:
    assert Field("meta.author.name").path == ("meta", "author", "name")
    assert Field('meta."author.name"').path == ("meta", "author.name")
    assert Field('"a""b"').path == ('a"b',)
    assert Field("发布日期").path == ("发布日期",)
    assert Field("my-key").path == ("my-key",)
    assert Field.at("a.b", "c").path == ("a.b", "c")
    assert path_text(("in", "x")) == '"in".x'
    assert path_text(("a", "2024")) == "a.2024"
    assert path_text(("2024",)) == '"2024"'


def test_importing_filters_imports_no_parser() -> None:
    code = "import sys, vecdb.filter; sys.exit('lark' in sys.modules or 'numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
