"""Filter text: what is accepted, what is refused and where, and that nothing else ever happens."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vecdb.errors import InvalidArgument
from vecdb.filter import Constant, Contains, Exists, Field, Filter, Prefix, parse_filter

a, b, c = Field("a"), Field("b"), Field("c")

ACCEPTED = [
    ("a = 1", a == 1),
    ("a == 1", a == 1),
    ("a<>1", a != 1),
    ("a!=1", a != 1),
    ("a<1", a < 1),
    ("a <= -1", a <= -1),
    ("a>+1.5", a > 1.5),
    ("a >= 1e3", a >= 1000.0),
    ("a = -2.5E-3", a == -0.0025),
    (f"a = {10**50}", a == 10**50),
    ("a = 0005", a == 5),
    ("a = 'it''s'", a == "it's"),
    ("a = ''", a == ""),
    ("a = 'two\nlines, \"quoted\"'", a == 'two\nlines, "quoted"'),
    ("a = TRUE and b = false", (a == True) & (b == False)),  # noqa: E712
    ("a IN (1, 'x', true, 2.5)", a.is_in([1, "x", True, 2.5])),
    ("a in ()", a.is_in([])),
    ("a NOT in (1)", a.not_in([1])),
    ("a BETWEEN 1 AND 2", a.between(1, 2)),
    ("a between 1 and 2 and b = 3", (a >= 1) & (a <= 2) & (b == 3)),
    ("a NOT BETWEEN 'x' AND 'y'", ~a.between("x", "y")),
    ("a LIKE 'pre%'", a.startswith("pre")),
    ("a like '%'", a.startswith("")),
    ("a like 'whole'", a == "whole"),
    (r"a LIKE '50\% \_x\\y%'", a.startswith("50% _x\\y")),
    (r"a LIKE 'all\%'", a == "all%"),
    ("a NOT LIKE 'pre%'", ~a.startswith("pre")),
    ("a CONTAINS 'x'", a.contains("x")),
    ("a contains NULL", Contains(("a",), None)),
    ("a NOT CONTAINS 5", ~a.contains(5)),
    ("a IS NULL", a.is_null()),
    ("a is not null", a.is_not_null()),
    ("EXISTS a.b", Field("a.b").exists()),
    ("NOT exists a", ~a.exists()),
    ("TRUE", Constant(True)),
    ("not False", ~Constant(False)),
    ("a = 1 OR b = 2 AND c = 3", (a == 1) | ((b == 2) & (c == 3))),
    ("(a = 1 OR b = 2) AND c = 3", ((a == 1) | (b == 2)) & (c == 3)),
    ("NOT a = 1 AND b = 2", ~(a == 1) & (b == 2)),
    ("NOT (a = 1 AND b = 2)", ~((a == 1) & (b == 2))),
    ("NOT NOT a = 1", ~~(a == 1)),
    ("((((a = 1))))", a == 1),
    ("\t a\n=\r\n1 ", a == 1),
    ("meta.author.name = 'x'", Field("meta.author.name") == "x"),
    ('"odd.key"."with space" = 1', Field.at("odd.key", "with space") == 1),
    ('"say ""hi""" = 1', Field.at('say "hi"') == 1),
    ('"in" = 1 and x.in = 2', (Field.at("in") == 1) & (Field.at("x", "in") == 2)),
    ('a."" = 1', Field.at("a", "") == 1),
    ('"""" = 1', Field.at('"') == 1),
    ("x.2024 = 1", Field.at("x", "2024") == 1),
    ("发布日期 >= '2024-01-01' AND _x1 = 1", (Field("发布日期") >= "2024-01-01") & (Field("_x1") == 1)),
    (
        "nothing = 1 or island = 2 or android = 3",
        (Field("nothing") == 1) | (Field("island") == 2) | (Field("android") == 3),
    ),
    ('EXISTS "exists"', Exists(("exists",))),
]


@pytest.mark.parametrize(("text", "tree"), ACCEPTED)
def test_text_means_the_tree(text: str, tree: Filter) -> None:
    assert parse_filter(text) == tree
    assert parse_filter(text, {}) == tree
    assert parse_filter(str(tree)) == tree


REFUSED = [
    ("", 0, "found the end of the filter at character 0"),
    ("   ", 3, "a field name"),
    ("a", 1, "a comparison"),
    ("a =", 3, "a value"),
    ("a = = 1", 4, "found = at character 4"),
    ("a = b", 4, "found b at character 4"),
    ('lang = "zh"', 7, "single quotes"),
    ("a = 1 b = 2", 6, "AND or OR"),
    ("a = 1 AND", 9, "a field name"),
    ("(a = 1", 6, ")"),
    ("a = 1)", 5, "the end of the filter"),
    ("()", 1, "a field name"),
    ("a = 'x", 4, "string that starts at character 4 of the filter does not end"),
    ('"a = 1', 0, "quoted field name"),
    ("a = 'x''", 4, "does not end"),
    ("a ~ 1", 2, "'~'"),
    ("my-key = 1", 2, "double quotes"),
    ("a = 1; b", 5, "';'"),
    ("a. = 1", 1, "'.'"),
    (".a = 1", 0, "'.'"),
    ("a = : x", 4, "a parameter is a colon and a name"),
    ("5 < a", 0, "found 5"),
    ("a = 5x", 5, "found x"),
    ("a = .5", 4, "'.'"),
    ("and = 1", 0, "found and"),
    ("a IN 5", 5, "( or a parameter"),
    ("a IN (1 2)", 8, "a comma"),
    ("a IN (1,)", 8, "a value"),
    ("a IN (1", 7, ") or a comma"),
    ("a IS 5", 5, "NOT or NULL"),
    ("a NOT = 5", 6, "BETWEEN, CONTAINS, IN or LIKE"),
    ("a NOT NULL", 6, "found NULL"),
    ("a BETWEEN 1 OR 2", 12, "AND"),
    ("a = 1 = 2", 6, "found ="),
    ("EXISTS (a)", 7, "a field name"),
    ("a = null", 4, "IS NULL"),
    ("a IN (1, null)", 9, "IS NULL"),
    ("a = 1e999", 4, "too large"),
    ("a = NaN", 4, "found NaN"),
    ("a = -inf", 4, "'-'"),
    ("a = " + "9" * 4301, 4, "4300 digits"),
    ("a LIKE '%x'", 7, "prefixes only"),
    ("a LIKE 'x%y%'", 7, "prefixes only"),
    ("a LIKE 'x_'", 7, "prefixes only"),
    ("a LIKE 'x%%'", 7, "prefixes only"),
    (r"a LIKE 'x\y%'", 7, "backslash"),
    ("a LIKE 'x\\'", 7, "backslash"),
    ("a LIKE 5", 7, "LIKE takes a string"),
    ("a." + ".".join("a" * 64) + " = 1", 0, "64 keys"),
    ("a = '\ud800'", 4, "surrogate"),
    ("a = 1 \x00", 6, "nothing starts with it"),
]


@pytest.mark.parametrize(("text", "position", "words"), REFUSED)
def test_text_is_refused_where_it_goes_wrong(text: str, position: int, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_filter(text)
    assert caught.value.field == "where"
    assert caught.value.position == position
    assert words in caught.value.message


def test_parameters_are_bound() -> None:
    values = {"low": 1, "name": "it's", "list": [1, "x", True], "yes": False, "pre": "a%", "none": None}
    text = "a >= :low AND b = :name OR c IN :list AND NOT a IN (:low, :list, 7)"
    text += " OR b = :yes OR b LIKE :pre OR c CONTAINS :none"
    assert parse_filter(text, values) == (
        (a >= 1) & (b == "it's")
        | c.is_in([1, "x", True]) & ~a.is_in([1, "x", True, 7])
        | (b == False)  # noqa: E712
        | Prefix(("b",), "a")
        | c.contains(None)
    )
    assert parse_filter("a = :low", {"low": True}) == (a == True)  # noqa: E712
    assert parse_filter("a = :low", {"low": 1.0}) == (a == 1.0)
    assert parse_filter("a = :名", {"名": 1}) == (a == 1)
    assert parse_filter("a BETWEEN :x AND :x", {"x": 5}) == a.between(5, 5)
    assert parse_filter("a IN :x", {"x": (1, 2)}) == parse_filter("a IN :x", {"x": [1, 2]})
    injected = "x' OR TRUE OR b = 'y"
    assert parse_filter("a = :x", {"x": injected}) == (a == injected)


@pytest.mark.parametrize(
    ("text", "params", "field", "position"),
    [
        ("a = :x", None, "params.x", 4),
        ("a = :x AND b = :y", {"x": 1}, "params.y", 15),
        ("a = :x", {"x": 1, "y": 2}, "params.y", None),
        ("a = 1", {"y": 2}, "params.y", None),
        ("a = :x", {"x": None}, "params.x", 4),
        ("a = :x", {"x": [1]}, "params.x", 4),
        ("a IN :x", {"x": [1, None]}, "params.x", 5),
        ("a IN :x", {"x": [[1]]}, "params.x", 5),
        ("a = :x", {"x": float("nan")}, "params.x", 4),
        ("a CONTAINS :x", {"x": b"x"}, "params.x", 11),
        ("a LIKE :x", {"x": "%"[:0] + "a_b"}, "params.x", 7),
        ("a LIKE :x", {"x": 5}, "params.x", 7),
        ("a BETWEEN 1 AND :x", {"x": {}}, "params.x", 16),
    ],
)
def test_parameters_that_do_not_fit_are_named(
    text: str, params: dict[str, object] | None, field: str, position: int | None
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_filter(text, params)
    assert (caught.value.field, caught.value.position) == (field, position)


def test_limits_hold_for_text() -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_filter("a = '" + "é" * 32_768 + "'")
    assert (caught.value.field, caught.value.limit, caught.value.value) == ("where", "65536 bytes", "65542 bytes")
    with pytest.raises(InvalidArgument) as caught:
        parse_filter("NOT " * 16 + "a = 1")
    assert (caught.value.field, caught.value.limit) == ("where", "16 levels")
    with pytest.raises(InvalidArgument) as caught:
        parse_filter(" OR ".join(["a = 1"] * 1_024))
    assert (caught.value.field, caught.value.limit) == ("where", "1024 nodes")
    with pytest.raises(InvalidArgument) as caught:
        # The levels and nodes that a bound BETWEEN brings count too.
        parse_filter("NOT " * 15 + "a BETWEEN :x AND 2", {"x": 1})
    assert caught.value.limit == "16 levels"
    with pytest.raises(InvalidArgument):
        parse_filter(5)  # type: ignore[arg-type]


def _parsed_or_refused(text: str, params: dict[str, object]) -> Filter | InvalidArgument:
    try:
        return parse_filter(text, params)
    except InvalidArgument as error:
        return error


HOSTILE = [
    "(" * 65_536,
    "(" * 32_000 + "TRUE" + ")" * 32_000,
    "NOT " * 16_384,
    "NOT(" * 16_384,
    "'" * 65_535,
    '"' * 65_535,
    "a" * 65_536,
    "a" + ".a" * 32_000 + " = 1",
    '""' * 32_768,
    "a IN (" + "1," * 32_000,
    "a = " + "-" * 60_000,
    "a = " + "9" * 65_000,
    "a = 1e" + "9" * 65_000,
    "a = 0." + "9" * 65_000,
    "AND " * 16_000,
    "a=1 OR " * 9_000,
    "a LIKE '" + "\\" * 60_000 + "'",
    "a LIKE '" + "%" * 60_000 + "'",
    ":" * 65_536,
    "\x00" * 65_536,
    " " * 65_536,
    "\ud800" * 20_000,
    "a = '" + "\U0001f600" * 16_000 + "'",
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:10]))
def test_long_hostile_text_ends_in_a_filter_or_a_refusal(text: str) -> None:
    found = _parsed_or_refused(text, {})
    if isinstance(found, InvalidArgument):
        assert found.field == "where"
        assert len(found.message) < 500
    else:
        assert parse_filter(str(found)) == found


PIECES = [
    *("a", "b.c", '"d e"', "发布", "1", "-2.5", "1e9", "'x'", "'it''s'", "'p%'", "true", "FALSE", "null", ":p", ":q"),
    *("=", "!=", "<>", "<", "<=", ">", ">=", "==", "(", ")", ",", ".", ":", "'", '"', "%", "\\", "-", ";", "\x00"),
    *("AND", "OR", "NOT", "IN", "BETWEEN", "LIKE", "IS", "EXISTS", "CONTAINS", "and", "Or", "nOt", "in", "\ud800", "é"),
]
PARAMS = {"p": [1, "x"], "q": 5}


def _fuzzed(rng: random.Random) -> str:
    if rng.random() < 0.3:
        text = rng.choice(ACCEPTED)[0]
        at = rng.randrange(len(text) + 1)
        return text[:at] + rng.choice(PIECES) + text[at + rng.randrange(3) :]
    return rng.choice(["", " "]).join(rng.choice(PIECES) for _ in range(rng.randrange(12)))


def _check_fuzzed(text: str) -> bool:
    named = [name for name in PARAMS if f":{name}" in text]
    found = _parsed_or_refused(text, {name: PARAMS[name] for name in named})
    if isinstance(found, InvalidArgument):
        assert found.field is not None
        return False
    assert parse_filter(str(found)) == found
    return True


def test_fuzzed_text_is_parsed_or_refused() -> None:
    rng = random.Random(11)
    accepted = sum(_check_fuzzed(_fuzzed(rng)) for _ in range(2_000))
    assert accepted > 50


@pytest.mark.slow
def test_much_fuzzed_text_is_parsed_or_refused() -> None:
    rng = random.Random(12)
    assert sum(_check_fuzzed(_fuzzed(rng)) for _ in range(20_000)) > 500


@settings(max_examples=300, deadline=None)
@example("a = '\ud800'")
@given(st.text(st.characters(), max_size=30))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    _check_fuzzed(text)
