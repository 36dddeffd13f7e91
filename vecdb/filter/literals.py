"""Paths and literal values of filters: what is allowed, and how each is spelled in filter text.

Whatever ``path_text`` and ``literal_text`` write, ``parse_path`` and the grammar read back as the same path, and as the
same value of the same type.
"""

from __future__ import annotations

import math
import re
import sys
from typing import TypeAlias

from vecdb.errors import InvalidArgument

Path: TypeAlias = tuple[str, ...]
"""Keys of nested payload objects from the outside in: ``("meta", "author", "name")``."""

Scalar: TypeAlias = str | int | float | bool
"""A value that a payload value can be compared with."""

INTEGER_DIGITS_MAX = 4_300
"""Digits of an integer: CPython reads and writes no longer ones unless told to."""

PATH_KEYS_MAX = 64
"""Keys of one path: payloads are not nested deeper."""

KEYWORDS = frozenset(
    ("AND", "OR", "NOT", "IN", "BETWEEN", "LIKE", "IS", "NULL", "EXISTS", "CONTAINS", "TRUE", "FALSE"),
)
"""Words that are no field names unless quoted, in any mixture of cases."""

_INTEGER_BEYOND = 10**INTEGER_DIGITS_MAX
_FIRST_KEY = re.compile(r"[^\W\d]\w*")
_LATER_KEY = re.compile(r"\w+")
_KEY = re.compile(r'"([^"]*(?:""[^"]*)*)"(?!")|([^."]+)')


def parse_path(text: str) -> Path:
    """Split dotted text into keys.

    Parameters
    ----------
    text
        Keys separated by dots. A key in double quotes may hold anything, a double quote doubled; a key without quotes
        anything but a dot or a double quote: ``meta.author``, ``meta."v1.2"``, ``发布日期``.

    Raises
    ------
    InvalidArgument
        An empty key without quotes, an unfinished quote, too many keys, or half of a surrogate pair.
    """
    if not isinstance(text, str):
        raise InvalidArgument("a field path is text", field="path", value=type(text).__name__)
    keys: list[str] = []
    at = 0
    while True:
        found = _KEY.match(text, at)
        if found is None:
            raise InvalidArgument(
                f"a key is missing or its quote does not end at character {at} of the field path",
                field="path",
                value=text,
                position=at,
            )
        quoted, bare = found.groups()
        keys.append(bare if quoted is None else quoted.replace('""', '"'))
        at = found.end()
        if at == len(text):
            return checked_path(tuple(keys))
        if text[at] != ".":
            raise InvalidArgument(
                f"keys of a field path are separated by dots; found {text[at]!r} at character {at}",
                field="path",
                value=text,
                position=at,
            )
        at += 1


def checked_path(path: Path) -> Path:
    """The same path, where it is one.

    Raises
    ------
    InvalidArgument
        Not a tuple of 1 to ``PATH_KEYS_MAX`` strings that UTF-8 can express.
    """
    if type(path) is not tuple or not path:
        raise InvalidArgument("a field path is a tuple of at least one key", field="path", value=type(path).__name__)
    if len(path) > PATH_KEYS_MAX:
        raise InvalidArgument(
            f"a field path has at most {PATH_KEYS_MAX} keys; this one has {len(path)}",
            field="path",
            limit=PATH_KEYS_MAX,
            value=len(path),
        )
    for key in path:
        if type(key) is not str:
            raise InvalidArgument("the keys of a field path are strings", field="path", value=type(key).__name__)
        if not key.isascii():
            _check_encodable(key, "path")
    return path


def path_text(path: Path) -> str:
    """Spell a path so that the grammar reads it back; keys are quoted where they have to be."""
    spelled: list[str] = []
    for key in path:
        bare = _LATER_KEY if spelled else _FIRST_KEY
        if bare.fullmatch(key) and key.upper() not in KEYWORDS:
            spelled.append(key)
        else:
            spelled.append('"' + key.replace('"', '""') + '"')
    return ".".join(spelled)


def scalar(value: object, field: str | Path) -> Scalar:
    """Take a value to compare with as a plain str, int, float or bool.

    NumPy's booleans, integers and floats of at most 64 bits are taken as the equal Python value, and so are subclasses
    of the plain types (enumerations).

    Parameters
    ----------
    value
        What the caller gave.
    field
        What the error, if any, names: an argument, or the path compared.

    Raises
    ------
    InvalidArgument
        null, NaN, infinity, an integer that is too long, half of a surrogate pair, or a value of another type.
    """
    kind = type(value)
    if kind is bool:
        return value  # type: ignore[return-value]
    if isinstance(value, str):
        if not value.isascii():
            _check_encodable(value, field)
        return value if kind is str else str.__str__(value)
    if isinstance(value, int):
        if not -_INTEGER_BEYOND < value < _INTEGER_BEYOND:
            raise InvalidArgument(
                f"an integer has at most {INTEGER_DIGITS_MAX} digits",
                field=_named(field),
                limit=f"{INTEGER_DIGITS_MAX} digits",
                value=f"an integer of {value.bit_length()} bits",
            )
        return value if kind is int else int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidArgument("NaN and infinity compare with nothing", field=_named(field), value=value)
        return value if kind is float else float(value)
    if value is None:
        raise InvalidArgument("null equals nothing: ask with IS NULL or IS NOT NULL", field=_named(field), value="null")
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic) and value.dtype.kind in "biuf" and value.itemsize <= 8:
        return scalar(value.item(), field)
    raise InvalidArgument(
        "a value to compare with is a string, a number or a boolean",
        field=_named(field),
        limit="str, int, float or bool",
        value=kind.__name__,
    )


def literal_text(value: Scalar | None) -> str:
    """Spell a value as the grammar reads it back."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value)


def prefix_pattern(prefix: str) -> str:
    """The LIKE pattern that matches what starts with ``prefix``."""
    return re.sub(r"([\\%_])", r"\\\1", prefix) + "%"


def pattern_prefix(pattern: str, field: str) -> tuple[str, bool]:
    r"""Read a LIKE pattern.

    Parameters
    ----------
    pattern
        Text that may end with ``%``; a backslash takes the special meaning from ``%``, ``_`` and the backslash.
    field
        What the error, if any, names.

    Returns
    -------
    prefix, is_open
        The text without escapes, and whether a final ``%`` allows more text after it.

    Raises
    ------
    InvalidArgument
        ``%`` before the end, ``_``, or a backslash before something else.
    """
    prefix: list[str] = []
    for piece in re.finditer(r"(?s)\\(.?)|([%_])|([^\\%_]+)", pattern):
        escaped, wildcard, plain = piece.groups()
        if plain is not None:
            prefix.append(plain)
        elif wildcard == "%" and piece.end() == len(pattern):
            return "".join(prefix), True
        elif wildcard is not None:
            raise InvalidArgument(
                f"LIKE matches prefixes only: one % at the end of the pattern; found {wildcard} at character "
                f"{piece.start()} (write \\{wildcard} for the character itself)",
                field=field,
                limit="one % at the end, no _",
                value=pattern,
            )
        elif escaped in {"%", "_", "\\"}:
            prefix.append(escaped)
        else:
            raise InvalidArgument(
                f"a backslash in a LIKE pattern stands before %, _ or another backslash; found one before "
                f"{escaped or 'the end'} at character {piece.start()}",
                field=field,
                value=pattern,
            )
    return "".join(prefix), False


def _named(field: str | Path) -> str:
    return field if isinstance(field, str) else path_text(field)


def _check_encodable(text: str, field: str | Path) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            "text holds half of a surrogate pair, which UTF-8 cannot express",
            field=_named(field),
            value=f"U+{ord(text[error.start]):04X}",
        ) from None
