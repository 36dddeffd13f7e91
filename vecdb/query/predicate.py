"""Which payloads satisfy a filter, exactly.

Truth has three values, as in SQL: a comparison with what is missing, null, a list, an object or a scalar of another
kind is unknown, the negation of unknown is unknown, and only what is true matches; ``docs/filters.md`` has every case.
Each predicate is decided for the distinct values, and the answers are looked up by code.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from vecdb.filter import (
    And,
    Compare,
    Constant,
    Contains,
    Exists,
    Filter,
    In,
    IsNull,
    Not,
    Operator,
    Or,
    Path,
    Prefix,
    Scalar,
)
from vecdb.query.columns import FieldColumn, PayloadColumns
from vecdb.query.dictionary import BOOLEAN, LIST, MISSING, NULL, NUMBER, OBJECT, STRING, ValueDictionary
from vecdb.types import BoolArray, I32Array

__all__ = ["FieldColumn", "PayloadColumns", "matches"]

_RESERVED_CODES: Final = -OBJECT
"""Codes below zero: they index a table of answers from its end."""

_RELATIONS: dict[Operator, Callable[[Any, Any], bool]] = {
    Operator.EQ: operator.eq,
    Operator.NE: operator.ne,
    Operator.LT: operator.lt,
    Operator.LE: operator.le,
    Operator.GT: operator.gt,
    Operator.GE: operator.ge,
}


def matches(where: Filter, columns: Mapping[Path, FieldColumn], n: int) -> BoolArray:
    """Evaluate a filter over ``n`` rows.

    Parameters
    ----------
    where
        The filter.
    columns
        A column of ``n`` rows for each of ``where.paths()``.
    n
        Number of rows.

    Returns
    -------
    BoolArray
        (n,) bool: where the filter is true.
    """
    return _rows_where(where, columns, n, truth=True)


def _rows_where(where: Filter, columns: Mapping[Path, FieldColumn], n: int, *, truth: bool) -> BoolArray:
    """Where the filter is true, or where it is false: unknown is neither.

    Negation asks for the other set, so that each predicate is looked up once, for the one set that counts.
    """
    match where:
        case Constant(value):
            return np.full(n, value is truth)
        case Not(operand):
            return _rows_where(operand, columns, n, truth=not truth)
        case And(operands) | Or(operands):
            join = np.logical_and if isinstance(where, And) is truth else np.logical_or
            parts = (_rows_where(each, columns, n, truth=truth) for each in operands)
            rows = next(parts)
            for part in parts:
                join(rows, part, out=rows)
            return rows
        case IsNull(path):
            codes = _column(columns, path, n).codes
            empty: BoolArray = (codes == MISSING) | (codes == NULL)
            return empty if truth else ~empty
        case Exists(path):
            codes = _column(columns, path, n).codes
            absent: BoolArray = codes == MISSING
            return ~absent if truth else absent
        case Contains(path, value):
            return _rows_containing(_column(columns, path, n), value, truth=truth)
        case Compare(path, Operator.NE, value):
            return _rows_compared(Compare(path, Operator.EQ, value), _column(columns, path, n), truth=not truth)
        case Compare(path) | In(path) | Prefix(path):
            return _rows_compared(where, _column(columns, path, n), truth=truth)
    raise AssertionError(where)


def _column(columns: Mapping[Path, FieldColumn], path: Path, n: int) -> FieldColumn:
    column = columns[path]
    assert column.n == n, (path, column.n, n)
    return column


def _rows_containing(column: FieldColumn, value: Scalar | None, *, truth: bool) -> BoolArray:
    code = column.dictionary.find(value)
    rows = np.zeros(column.n, np.bool_) if truth else column.codes == LIST
    if code is not None:
        rows[column.element_rows[column.element_codes == code]] = truth
    return rows


def _rows_compared(where: Compare | In | Prefix, column: FieldColumn, *, truth: bool) -> BoolArray:
    # Codes before kinds: the dictionary may grow meanwhile, and the table must have room for every code.
    codes = _true_codes(where, column.dictionary)
    if truth and codes.shape[0] <= 1:
        return column.codes == codes[0] if codes.shape[0] else np.zeros(column.n, np.bool_)
    kind_of = column.dictionary.kinds()
    table = np.zeros(kind_of.shape[0] + _RESERVED_CODES, np.bool_)
    if not truth:
        table[: kind_of.shape[0]] = _of_kinds_compared(where)[kind_of]
    table[codes] = truth
    return table.take(column.codes)


def _true_codes(where: Compare | In | Prefix, dictionary: ValueDictionary) -> I32Array:
    """The codes of the values for which the predicate is true, each once."""
    match where:
        case Prefix(_, prefix):
            return dictionary.codes_with_prefix(prefix)
        case In(_, values):
            return _codes_of(dictionary, values)
        case Compare(_, Operator.EQ, value):
            return _codes_of(dictionary, (value,))
        case Compare(_, op, bool(value)):
            return _codes_of(dictionary, tuple(each for each in (False, True) if _RELATIONS[op](each, value)))
        case Compare(_, op, value):
            included = op in {Operator.LE, Operator.GE}
            if op in {Operator.LT, Operator.LE}:
                return dictionary.codes_between(None, value, high_included=included)
            return dictionary.codes_between(value, None, low_included=included)


def _codes_of(dictionary: ValueDictionary, values: tuple[Scalar, ...]) -> I32Array:
    found = {dictionary.find(value) for value in values}
    return np.array(sorted(code for code in found if code is not None), np.int32)


def _of_kinds_compared(where: Compare | In | Prefix) -> BoolArray:
    """(3,) bool: the kinds of values for which the predicate is true or false and not unknown."""
    match where:
        case Prefix():
            values: tuple[Scalar, ...] = ("",)
        case In(_, values):
            pass
        case Compare(_, _, value):
            values = (value,)
    compared = np.zeros(3, np.bool_)
    for value in values:
        compared[BOOLEAN if isinstance(value, bool) else STRING if isinstance(value, str) else NUMBER] = True
    return compared
