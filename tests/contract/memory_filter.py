"""Filters evaluated on one payload by the book: truth is True, False or None for unknown, and only True matches.

Shares nothing with ``vecdb.query``; the parser is the library's, because its errors are the contract.
"""

from __future__ import annotations

from typing import Any

from vecdb.filter import And, Compare, Constant, Contains, Exists, Filter, In, IsNull, Not, Operator, Or, Prefix

ABSENT = object()


def satisfies(tree: Filter, payload: dict[str, Any]) -> bool:
    return truth(tree, payload) is True


def truth(tree: Filter, payload: dict[str, Any]) -> bool | None:
    if isinstance(tree, Constant):
        return tree.value
    if isinstance(tree, Not):
        inner = truth(tree.operand, payload)
        return None if inner is None else not inner
    if isinstance(tree, And | Or):
        decisive = isinstance(tree, Or)
        found = [truth(each, payload) for each in tree.operands]
        if any(each is decisive for each in found):
            return decisive
        return None if None in found else not decisive
    value = reach(payload, tree.path)
    if isinstance(tree, IsNull):
        return value is ABSENT or value is None
    if isinstance(tree, Exists):
        return value is not ABSENT
    if isinstance(tree, Contains):
        if not isinstance(value, list):
            return None
        return any(each is None if tree.value is None else same(each, tree.value) for each in value)
    if isinstance(tree, Prefix):
        return value.startswith(tree.prefix) if isinstance(value, str) else None
    if isinstance(tree, In):
        kinds = {kind(each) for each in tree.values}
        return any(same(value, each) for each in tree.values) if kind(value) in kinds else None
    assert isinstance(tree, Compare)
    if kind(value) is None or kind(value) != kind(tree.value):
        return None
    match tree.op:
        case Operator.EQ:
            return value == tree.value
        case Operator.NE:
            return value != tree.value
        case Operator.LT:
            return value < tree.value
        case Operator.LE:
            return value <= tree.value
        case Operator.GT:
            return value > tree.value
        case Operator.GE:
            return value >= tree.value


def reach(payload: dict[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = payload
    for key in path:
        value = value.get(key, ABSENT) if isinstance(value, dict) else ABSENT
    return value


def kind(value: Any) -> str | None:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else None


def same(one: Any, other: Any) -> bool:
    return kind(one) == kind(other) is not None and one == other
