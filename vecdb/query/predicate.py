"""Which payloads satisfy a filter: exactly, over columns or one by one.

Truth has three values, as in SQL: a comparison with what is missing, null, a list, an object or a scalar of another
kind is unknown, the negation of unknown is unknown, and only what is true matches; ``docs/filters.md`` has every case.
``matches`` decides each predicate for the distinct values and looks the answers up by code; ``row_matches`` reads one
payload as it stands and shares none of that.
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
from vecdb.types import BoolArray, I32Array, Payload

__all__ = ["FieldColumn", "PayloadColumns", "matches", "row_matches"]

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


def row_matches(where: Filter, payload: Payload) -> bool:
    """Evaluate a filter on one payload."""
    return _row_truth(where, payload) is True


class _Nothing:
    """What stands at a path where the payload has nothing."""


def _row_truth(where: Filter, payload: Payload) -> bool | None:
    """True, false, or None for unknown."""
    match where:
        case Constant(value):
            return value
        case And(operands):
            truths = {_row_truth(each, payload) for each in operands}
            return False if False in truths else (None if None in truths else True)
        case Or(operands):
            truths = {_row_truth(each, payload) for each in operands}
            return True if True in truths else (None if None in truths else False)
        case Not(operand):
            truth = _row_truth(operand, payload)
            return None if truth is None else not truth
        case IsNull(path):
            found = _value_at(payload, path)
            return found is None or found is _Nothing
        case Exists(path):
            return _value_at(payload, path) is not _Nothing
        case Contains(path, value):
            found = _value_at(payload, path)
            return any(_equal(each, value) for each in found) if isinstance(found, list) else None
        case Compare(path, op, value):
            found = _value_at(payload, path)
            return _RELATIONS[op](found, value) if _comparable(found, value) else None
        case In(path, values):
            found = _value_at(payload, path)
            alike = [value for value in values if _comparable(found, value)]
            return any(found == value for value in alike) if alike else None
        case Prefix(path, prefix):
            found = _value_at(payload, path)
            return found.startswith(prefix) if isinstance(found, str) else None
    raise AssertionError(where)


def _value_at(payload: Payload, path: Path) -> Any:
    value: Any = payload
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return _Nothing
        value = value[key]
    return value


def _comparable(one: object, other: object) -> bool:
    """Whether both are booleans, both strings, or both numbers."""
    if isinstance(one, bool) or isinstance(other, bool):
        return isinstance(one, bool) and isinstance(other, bool)
    if isinstance(one, str):
        return isinstance(other, str)
    return isinstance(one, int | float) and isinstance(other, int | float)


def _equal(element: object, value: Scalar | None) -> bool:
    if value is None:
        return element is None
    return _comparable(element, value) and element == value
