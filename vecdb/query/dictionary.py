"""The distinct scalar values of one payload path, each with a code.

A dictionary is only ever appended to, by one thread at a time; any number of threads may read it meanwhile. A code that
a reader has seen stays what it is.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from vecdb.filter import Scalar
from vecdb.types import I8Array, I32Array

MISSING: Final = -1
"""Code of a row whose payload has nothing at the path."""

NULL: Final = -2
"""Code of a row that has null."""

LIST: Final = -3
"""Code of a row that has a list; its elements are kept apart."""

OBJECT: Final = -4
"""Code of a row that has an object."""

NUMBER: Final = 0
STRING: Final = 1
BOOLEAN: Final = 2
"""Kinds of scalars: values of different kinds do not compare."""

_KIND_OF = {int: NUMBER, float: NUMBER, str: STRING, bool: BOOLEAN}


class Absent:
    """What ``dict.get`` returns for a key that is not there."""


ABSENT = Absent()
_TRUE, _FALSE = object(), object()
# These stand for the booleans among the keys of a dictionary, where True would be found as 1.

_HASHABLE_TYPES = frozenset((str, int, float, type(None), Absent))


class _Codes(dict[Any, int]):
    """Value to code; a value looked up for the first time gets the next one."""

    __slots__ = ("values_in_order",)

    def __init__(self) -> None:
        super().__init__({ABSENT: MISSING, None: NULL})
        self.values_in_order: list[Scalar] = []

    def __missing__(self, value: Any) -> int:
        code = len(self.values_in_order)
        # First the value, then its code: a concurrent reader never finds a code beyond the values.
        self.values_in_order.append(value is _TRUE if value is _TRUE or value is _FALSE else value)
        self[value] = code
        return code


@dataclass(frozen=True, slots=True)
class _Order:
    """Numbers and strings of a dictionary in ascending order, each beside its code."""

    size: int
    numbers: list[int | float]
    number_codes: I32Array
    strings: list[str]
    string_codes: I32Array


class ValueDictionary:
    """The distinct scalars of one path, numbered by first appearance; only ever appended to.

    Attributes
    ----------
    values
        The scalars; the index is the code.
    """

    __slots__ = ("_codes", "_kinds", "_lock", "_order", "values")

    def __init__(self) -> None:
        self._codes = _Codes()
        self.values: Sequence[Scalar] = self._codes.values_in_order
        self._kinds: I8Array = np.zeros(0, np.int8)
        empty = np.zeros(0, np.int32)
        self._order = _Order(0, [], empty, [], empty)
        self._lock = threading.Lock()

    def encode(self, values: list[Any]) -> list[int]:
        """The code of each value; new scalars are added, lists and objects get ``LIST`` and ``OBJECT``."""
        codes = self._codes
        types = set(map(type, values))
        if _HASHABLE_TYPES.issuperset(types):
            return list(map(codes.__getitem__, values))
        return [self._code(value) for value in values]

    def _code(self, value: Any) -> int:
        kind = type(value)
        if kind is bool:
            return self._codes[_TRUE if value else _FALSE]
        if kind is list:
            return LIST
        if kind is dict:
            return OBJECT
        return self._codes[value]

    def find(self, value: Scalar | None) -> int | None:
        """The code of a value, ``NULL`` for null; None where no row has it."""
        if type(value) is bool:
            return self._codes.get(_TRUE if value else _FALSE)
        return self._codes.get(value)

    def kinds(self) -> I8Array:
        """``NUMBER``, ``STRING`` or ``BOOLEAN`` for each value, (at least the values that any column uses,) int8."""
        kinds = self._kinds
        if kinds.shape[0] == len(self.values):
            return kinds
        with self._lock:
            added = self.values[self._kinds.shape[0] :]
            kinds = np.fromiter(map(_KIND_OF.__getitem__, map(type, added)), np.int8, len(added))
            self._kinds = np.concatenate((self._kinds, kinds))
            return self._kinds

    def codes_between(
        self,
        low: Scalar | None,
        high: Scalar | None,
        *,
        low_included: bool = True,
        high_included: bool = True,
    ) -> I32Array:
        """Codes of the numbers, or of the strings, between two bounds of one kind, of which one may be None."""
        order = self._sorted()
        bound = high if low is None else low
        values: list[Any] = order.strings if isinstance(bound, str) else order.numbers
        codes = order.string_codes if isinstance(bound, str) else order.number_codes
        first, last = 0, len(values)
        if low is not None:
            first = (bisect_left if low_included else bisect_right)(values, low)
        if high is not None:
            last = (bisect_right if high_included else bisect_left)(values, high)
        return codes[first:last]

    def codes_with_prefix(self, prefix: str) -> I32Array:
        """Codes of the strings that start with ``prefix``."""
        order = self._sorted()
        first = bisect_left(order.strings, prefix)
        last = bisect_right(order.strings, prefix, first, key=lambda value: value[: len(prefix)])
        return order.string_codes[first:last]

    def _sorted(self) -> _Order:
        if self._order.size == len(self.values):
            return self._order
        with self._lock:
            order = self._order
            if order.size == len(self.values):
                return order
            values: Sequence[Any] = self.values
            size = len(values)
            added = range(order.size, size)
            numbers = [code for code in added if _KIND_OF[type(values[code])] == NUMBER]
            strings = [code for code in added if type(values[code]) is str]
            # Two ascending runs: sorting them is one merge.
            numbers = sorted(
                order.number_codes.tolist() + sorted(numbers, key=values.__getitem__), key=values.__getitem__
            )
            strings = sorted(
                order.string_codes.tolist() + sorted(strings, key=values.__getitem__), key=values.__getitem__
            )
            self._order = _Order(
                size,
                [values[code] for code in numbers],
                np.array(numbers, np.int32),
                [values[code] for code in strings],
                np.array(strings, np.int32),
            )
            return self._order
