"""Filters on payloads: an expression tree, written in Python or as SQL-like text.

A tree never changes, is within its limits from the moment it is made, and is its own cache key. ``docs/filters.md`` has
the grammar and what each predicate means. The parser's library is imported when a text is parsed, not before.
"""

from __future__ import annotations

from collections.abc import Mapping

from vecdb.filter.field import Field
from vecdb.filter.literals import INTEGER_DIGITS_MAX, Path, Scalar, parse_path, path_text
from vecdb.filter.tree import (
    DEPTH_MAX,
    IN_VALUES_MAX,
    NODES_MAX,
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
    Prefix,
    all_of,
    any_of,
)

__all__ = [
    "DEPTH_MAX",
    "INTEGER_DIGITS_MAX",
    "IN_VALUES_MAX",
    "NODES_MAX",
    "And",
    "Compare",
    "Constant",
    "Contains",
    "Exists",
    "Field",
    "Filter",
    "In",
    "IsNull",
    "Not",
    "Operator",
    "Or",
    "Path",
    "Prefix",
    "Scalar",
    "all_of",
    "any_of",
    "parse_filter",
    "parse_path",
    "path_text",
]


def parse_filter(text: str, params: Mapping[str, object] | None = None) -> Filter:
    """Read a filter from text.

    Parameters
    ----------
    text
        A condition such as ``lang = 'zh' AND year >= :year``; at most 64 KiB of UTF-8.
    params
        The value of every parameter that the text names, without the colon: str, int, float, bool, None (for CONTAINS),
        or a list of them for IN. Values never become part of the text.

    Raises
    ------
    InvalidArgument
        The text is no filter (``field`` is ``where``, ``position`` the offset of the first wrong character), a limit is
        broken, or a parameter is missing, unused or of no use where it stands (``field`` is ``params.<name>``).
    """
    from vecdb.filter.grammar import parse  # importing lark takes longer than the rest of `import vecdb`

    return parse(text, params)
