"""Filters written in Python: ``(Field("year") >= 2023) & Field("tags").contains("news")``.

A ``Field`` names a payload path and makes nodes of the tree; it holds nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable

from vecdb.errors import InvalidArgument
from vecdb.filter.literals import Path, Scalar, checked_path, parse_path, path_text
from vecdb.filter.tree import And, Compare, Contains, Exists, Filter, In, IsNull, Not, Operator, Prefix


class Field:
    """A payload value, to be compared.

    Parameters
    ----------
    path
        Keys separated by dots; a key that itself holds a dot stands in double quotes: ``meta."v1.2"``. No declaration
        is needed: any key of any payload can be named.

    Raises
    ------
    InvalidArgument
        ``path`` is no path.
    """

    __slots__ = ("path",)

    path: Path

    def __init__(self, path: str) -> None:
        self.path = parse_path(path)

    @classmethod
    def at(cls, *keys: str) -> Field:
        """The field below exactly these keys, from the outside in, whatever characters they hold."""
        field = cls.__new__(cls)
        field.path = checked_path(keys)
        return field

    def __eq__(self, value: Scalar) -> Filter:  # type: ignore[override]
        return Compare(self.path, Operator.EQ, value)

    def __ne__(self, value: Scalar) -> Filter:  # type: ignore[override]
        return Compare(self.path, Operator.NE, value)

    def __lt__(self, value: Scalar) -> Filter:
        return Compare(self.path, Operator.LT, value)

    def __le__(self, value: Scalar) -> Filter:
        return Compare(self.path, Operator.LE, value)

    def __gt__(self, value: Scalar) -> Filter:
        return Compare(self.path, Operator.GT, value)

    def __ge__(self, value: Scalar) -> Filter:
        return Compare(self.path, Operator.GE, value)

    __hash__ = None  # type: ignore[assignment]

    def is_in(self, values: Iterable[Scalar]) -> Filter:
        """Equal to one of ``values``."""
        if isinstance(values, str | bytes):
            # Its characters would be taken for the values.
            raise InvalidArgument(
                "is_in takes a list of values, not one string", field=path_text(self.path), value=type(values).__name__
            )
        return In(self.path, tuple(values))

    def not_in(self, values: Iterable[Scalar]) -> Filter:
        """A value that equals none of ``values``; nothing matches where there is no value."""
        return Not(self.is_in(values))

    def between(self, low: Scalar, high: Scalar) -> Filter:
        """At least ``low`` and at most ``high``."""
        return And((self >= low, self <= high))

    def startswith(self, prefix: str) -> Filter:
        """A string that starts with ``prefix``."""
        return Prefix(self.path, prefix)

    def contains(self, value: Scalar | None) -> Filter:
        """A list that holds ``value``."""
        return Contains(self.path, value)

    def is_null(self) -> Filter:
        """Missing, or null."""
        return IsNull(self.path)

    def is_not_null(self) -> Filter:
        """Neither missing nor null."""
        return Not(IsNull(self.path))

    def exists(self) -> Filter:
        """Present, even if null."""
        return Exists(self.path)

    def __repr__(self) -> str:
        return f"Field({path_text(self.path)!r})"
