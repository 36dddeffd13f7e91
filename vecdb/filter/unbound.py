"""Predicates whose values are given later: how a parsed text waits for its parameters.

One builder a predicate makes the node from its values, whether they stood in the text or were bound, so that a bound
value can do exactly what a literal can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from vecdb.errors import InvalidArgument
from vecdb.filter.literals import Path, Scalar, path_text, pattern_prefix, scalar
from vecdb.filter.tree import (
    And,
    Compare,
    Contains,
    Exists,
    Filter,
    In,
    IsNull,
    Not,
    Operator,
    Or,
    Prefix,
    check_in_count,
)


class Operand(NamedTuple):
    """A literal, or the name of a parameter that will stand in its place."""

    value: Scalar | None
    position: int
    parameter: str | None = None


Bound: TypeAlias = tuple[object, str, int]
"""A value, what an error about it names, and where it stands in the text."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Unbound(Filter):
    """A predicate that waits for the values of its parameters."""

    path: Path
    build: Callable[[Path, list[Bound]], Filter]
    operands: tuple[Operand, ...]

    def __post_init__(self) -> None:
        self._seal(self.path, self.build, self.operands, path=self.path)

    def bound(self, params: Mapping[str, object]) -> Filter:
        """The predicate with its values."""
        return self.build(
            self.path,
            [
                (each.value, "where", each.position)
                if each.parameter is None
                else (params[each.parameter], f"params.{each.parameter}", each.position)
                for each in self.operands
            ],
        )


def bind(tree: Filter, params: Mapping[str, object]) -> Filter:
    """The same tree with every gap filled; ``params`` has a value for each."""
    match tree:
        case And(operands):
            return And(tuple(bind(each, params) for each in operands))
        case Or(operands):
            return Or(tuple(bind(each, params) for each in operands))
        case Not(operand):
            return Not(bind(operand, params))
        case Unbound():
            return tree.bound(params)
        case _:
            return tree


def collect_parameters(tree: Filter, into: dict[str, int]) -> None:
    """Note the name and first position of every parameter of the tree."""
    match tree:
        case And(operands) | Or(operands):
            for each in operands:
                collect_parameters(each, into)
        case Not(operand):
            collect_parameters(operand, into)
        case Unbound():
            for literal in tree.operands:
                if literal.parameter is not None:
                    into.setdefault(literal.parameter, literal.position)
        case _:
            pass


def _value(operand: Bound) -> Scalar:
    value, field, position = operand
    try:
        return scalar(value, field)
    except InvalidArgument as error:
        error.position = position
        raise


def _comparison(operator: Operator) -> Callable[[Path, list[Bound]], Filter]:
    def build(path: Path, operands: list[Bound]) -> Filter:
        return Compare(path, operator, _value(operands[0]))

    return build


COMPARISONS = {operator.value: _comparison(operator) for operator in Operator}
"""Builders by how the operator is spelled."""
COMPARISONS["=="] = COMPARISONS["="]
COMPARISONS["<>"] = COMPARISONS["!="]


def in_list(path: Path, operands: list[Bound]) -> Filter:
    """``path IN (...)``; an operand that is a list stands for its values."""
    flat: list[Bound] = []
    for value, field, position in operands:
        if isinstance(value, list | tuple | set | frozenset):
            check_in_count(path, len(value))
            flat.extend((each, field, position) for each in value)
        else:
            flat.append((value, field, position))
    check_in_count(path, len(flat))
    return In(path, tuple(_value(each) for each in flat))


def between(path: Path, operands: list[Bound]) -> Filter:
    """``path BETWEEN low AND high``, both ends included."""
    low, high = (_value(each) for each in operands)
    return And((Compare(path, Operator.GE, low), Compare(path, Operator.LE, high)))


def like(path: Path, operands: list[Bound]) -> Filter:
    """``path LIKE pattern``: a prefix, or the whole text where the pattern has no ``%``."""
    pattern = _value(operands[0])
    _, field, position = operands[0]
    if not isinstance(pattern, str):
        raise InvalidArgument(
            f"LIKE takes a string; {path_text(path)} was compared with a {type(pattern).__name__}",
            field=field,
            value=type(pattern).__name__,
            position=position,
        )
    try:
        prefix, is_open = pattern_prefix(pattern, field)
    except InvalidArgument as error:
        error.position = position
        raise
    return Prefix(path, prefix) if is_open else Compare(path, Operator.EQ, prefix)


def contains(path: Path, operands: list[Bound]) -> Filter:
    """``path CONTAINS value``."""
    return Contains(path, None if operands[0][0] is None else _value(operands[0]))


def is_null(path: Path, _operands: list[Bound]) -> Filter:
    """``path IS NULL``."""
    return IsNull(path)


def exists(path: Path, _operands: list[Bound]) -> Filter:
    """``EXISTS path``."""
    return Exists(path)
