"""Filters on the wire: the same tree or text with the same typed values, and nothing unknown is passed over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.errors import InvalidArgument, Unimplemented
from vecdb.filter import (
    DEPTH_MAX,
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
)
from vecdb.requests import FilterText
from vecdb.v1 import values_pb2
from vecdb.wire.filters import decode_where, encode_where

texts = st.text(st.characters(codec="utf-8"), max_size=8)
scalars = st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | texts
paths = st.lists(texts.filter(bool), min_size=1, max_size=3).map(tuple)
leaves = (
    st.builds(Compare, paths, st.sampled_from(Operator), scalars)
    | st.builds(In, paths, st.lists(scalars, max_size=5).map(tuple))
    | st.builds(Prefix, paths, texts)
    | st.builds(Contains, paths, st.none() | scalars)
    | st.builds(IsNull, paths)
    | st.builds(Exists, paths)
    | st.builds(Constant, st.booleans())
)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.builds(Not, inner)
        | st.lists(inner, min_size=2, max_size=3).map(lambda each: And(tuple(each)))
        | st.lists(inner, min_size=2, max_size=3).map(lambda each: Or(tuple(each)))
    ),
    max_leaves=8,
)
parameters = st.dictionaries(texts, st.none() | scalars | st.lists(st.none() | scalars, max_size=4), max_size=4)


def sent(where):
    return decode_where(values_pb2.Filter.FromString(encode_where(where).SerializeToString()))


@given(trees)
def test_trees_come_back_equal(tree):
    assert sent(tree) == tree


@given(texts, parameters)
def test_text_and_parameters_come_back(text, drawn):
    found = sent(FilterText(text, drawn))
    assert isinstance(found, FilterText)
    assert (found.text, found.parameters) == (text, drawn)
    assert {name: repr(each) for name, each in found.parameters.items()} == {
        name: repr(each) for name, each in drawn.items()
    }


def test_every_node_has_a_message():
    def kinds(of):
        return {each for kind in of.__subclasses__() for each in (kind, *kinds(kind))}

    # `Unbound` is the parser's, and ends before a filter is used.
    assert {kind.__name__ for kind in kinds(Filter)} - {"Unbound"} == {
        "And", "Compare", "Constant", "Contains", "Exists", "In", "IsNull", "Not", "Or", "Prefix",
    }  # fmt: skip


def test_no_filter_is_no_message():
    assert encode_where(None) is None


def test_what_no_message_can_hold_is_parsed_where_it_is():
    # Sets of numbers beyond what a parameter holds are still values to the parser.
    assert isinstance(sent(FilterText("a IN :a", {"a": frozenset((1, 2))})), FilterText)
    for text, given_, field in (
        ("a = :a", {"a": object()}, "params.a"),
        ("a = '\ud800'", {}, "where"),
        ("a = 1", {"\ud800": 1}, "params.\ud800"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            encode_where(FilterText(text, given_))
        assert caught.value.field == field


def expression(**node):
    return values_pb2.Filter(expression=values_pb2.Expression(**node))


A = values_pb2.Path(keys=["a"])


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (values_pb2.Filter(), Unimplemented),
        (values_pb2.Filter(expression=values_pb2.Expression()), Unimplemented),
        (expression(comparison=values_pb2.Comparison(path=A, operator=99, value={"integer": 1})), Unimplemented),
        (expression(comparison=values_pb2.Comparison(path=A, value={"integer": 1})), InvalidArgument),
        (expression(comparison=values_pb2.Comparison(path=A, operator=1)), Unimplemented),
        (expression(comparison=values_pb2.Comparison(operator=1, value={"integer": 1})), InvalidArgument),
        (expression(comparison=values_pb2.Comparison(path=A, operator=1, value={"null": True})), InvalidArgument),
        (expression(comparison={"path": A, "operator": 1, "value": {"number": float("nan")}}), InvalidArgument),
        (expression(comparison={"path": A, "operator": 1, "value": {"big_integer": "1e9"}}), InvalidArgument),
        (expression(comparison={"path": A, "operator": 1, "value": {"big_integer": "9" * 5_000}}), InvalidArgument),
        (expression(comparison={"path": A, "operator": 1, "value": {"big_integer": "--1"}}), InvalidArgument),
        (expression(membership={"path": A, "values": [{}]}), Unimplemented),
        (expression(membership={"path": A, "values": [{"integer": 1}] * 10_001}), InvalidArgument),
        (expression(all_of={"operands": [{"constant": True}]}), InvalidArgument),
        (expression(any_of={}), InvalidArgument),
        (expression(negation={}), Unimplemented),
        (expression(is_null={}), InvalidArgument),
        (values_pb2.Filter(text="a = :a", parameters={"a": values_pb2.Parameter()}), Unimplemented),
        (values_pb2.Filter(text="a = :a", parameters={"a": {"scalar": {}}}), Unimplemented),
        (
            values_pb2.Filter(expression={"constant": True}, parameters={"a": {"scalar": {"integer": 1}}}),
            InvalidArgument,
        ),
    ],
)
def test_messages_that_are_none(message, kind):
    with pytest.raises(kind) as caught:
        decode_where(message)
    assert type(caught.value) is kind
    assert caught.value.field


def test_a_tree_deeper_than_allowed_is_refused():
    message = values_pb2.Expression(constant=True)
    for _ in range(DEPTH_MAX):
        message = values_pb2.Expression(negation=message)
    with pytest.raises(InvalidArgument, match="levels"):
        decode_where(values_pb2.Filter(expression=message))


def test_a_field_of_the_tree_keeps_exotic_keys():
    tree = Field.at("a.b", 'quo"te', "空 格") == 1
    assert sent(tree) == tree


def test_a_tree_of_too_many_nodes_is_refused_before_it_is_built(monkeypatch):
    leaf = values_pb2.Expression(constant=True)
    wide = values_pb2.Expression(all_of=values_pb2.Operands(operands=[leaf] * 300))
    tree = values_pb2.Filter(
        expression=values_pb2.Expression(any_of=values_pb2.Operands(operands=[wide, wide, wide, wide]))
    )
    monkeypatch.setattr("vecdb.wire.filters.decode_expression", lambda _: pytest.fail("it was built"))
    with pytest.raises(InvalidArgument) as caught:
        decode_where(tree)
    assert (caught.value.field, caught.value.limit) == ("where", "1024 nodes")


def test_a_list_far_beyond_the_limit_is_refused_before_it_is_built():
    values = [values_pb2.Scalar(integer=1)] * 100_001
    parameter = values_pb2.Parameter(list=values_pb2.ScalarList(values=values))
    with pytest.raises(InvalidArgument, match="100001"):
        decode_where(values_pb2.Filter(text="x IN :v", parameters={"v": parameter}))
