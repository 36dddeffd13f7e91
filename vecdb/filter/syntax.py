"""Syntax errors of filter text, in plain words: what was found, where, and what could stand there.

An error quotes the caller's own filter text, at most ``_FOUND_CHARACTERS_MAX`` characters of it, and nothing else.
"""

from __future__ import annotations

from lark import Token, UnexpectedToken

from vecdb.errors import InvalidArgument
from vecdb.filter.literals import KEYWORDS

_VALUE_TERMINALS = frozenset(("NUMBER", "STRING", "PARAMETER"))
_VALUE_KEYWORDS = frozenset(("NULL", "TRUE", "FALSE"))

_TERMINAL_WORDS = {
    "PATH": "a field name",
    "OPERATOR": "a comparison (= != < <= > >=)",
    "_LPAR": "(",
    "_RPAR": ")",
    "_COMMA": "a comma",
    "$END": "the end of the filter",
}
"""How an error calls what the grammar expects, where it is not a keyword or a value."""

_FOUND_CHARACTERS_MAX = 40


def syntax_error(text: str, error: UnexpectedToken) -> InvalidArgument:
    """The error for a word that cannot stand where it does, or for an end that comes too early."""
    token: Token = error.token
    expected = error.accepts
    hint = ""
    if token.type == "$END":
        position, found = len(text), "the end of the filter"
    else:
        position, found = token.start_pos or 0, _shortened(str(token))
        if token.startswith('"') and "STRING" in expected:
            hint = " (text stands in single quotes; double quotes are for field names)"
    return InvalidArgument(
        f"found {found} at character {position} of the filter, where {_expectation(expected)} was expected{hint}",
        field="where",
        value=found,
        position=position,
    )


def _expectation(terminals: set[str]) -> str:
    """What the grammar accepts next, in plain words."""
    words = [word for terminal, word in _TERMINAL_WORDS.items() if terminal in terminals]
    if terminals & _VALUE_TERMINALS:
        literals = terminals & (_VALUE_TERMINALS | _VALUE_KEYWORDS)
        words.append("a parameter (:name)" if literals == {"PARAMETER"} else "a value ('text', number, true, :name)")
        terminals = terminals - literals
    words.extend(sorted(name for name in (terminal.lstrip("_") for terminal in terminals) if name in KEYWORDS))
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


def character_error(text: str, position: int) -> InvalidArgument:
    """The error for a character that begins nothing."""
    character = text[position]
    if character in "'\"":
        kind = "string" if character == "'" else "quoted field name"
        problem = f"the {kind} that starts at character {position} of the filter does not end"
    else:
        problem = f"found {character!r} at character {position} of the filter, where nothing starts with it"
        if character == ":":
            problem += " (a parameter is a colon and a name: :year)"
        else:
            problem += " (a field name with other characters than letters, digits and _ stands in double quotes)"
    return InvalidArgument(problem, field="where", value=character, position=position)


def _shortened(found: str) -> str:
    return found if len(found) <= _FOUND_CHARACTERS_MAX else found[: _FOUND_CHARACTERS_MAX - 3] + "..."
