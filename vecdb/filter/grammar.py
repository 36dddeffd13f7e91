"""The text grammar of filters: text in, ``Filter`` out.

The parser is an LALR automaton of the lark library, built once; it keeps its own stack, so no text however nested
exhausts Python's. Bound parameters never become text: a text is parsed to a tree with gaps, kept for the next call, and
the values are put into the gaps. The grammar is written down for users in ``docs/filters.md``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedToken, v_args

from vecdb.errors import InvalidArgument
from vecdb.filter.literals import INTEGER_DIGITS_MAX, KEYWORDS, Path, parse_path
from vecdb.filter.syntax import character_error, syntax_error
from vecdb.filter.tree import And, Constant, Filter, Not, Or
from vecdb.filter.unbound import (
    COMPARISONS,
    Bound,
    Operand,
    Unbound,
    between,
    bind,
    collect_parameters,
    contains,
    exists,
    in_list,
    is_null,
    like,
)

TEXT_BYTES_MAX = 65_536
"""Size of a filter text in UTF-8."""

_CACHED_CHARACTERS_MAX = 4_096
_CACHED_TEXTS_MAX = 512

_GRAMMAR = r"""
start: disjunction
?disjunction: conjunction (_OR conjunction)*
?conjunction: negation (_AND negation)*
?negation: _NOT negation                          -> negation
    | predicate
?predicate: PATH OPERATOR operand                 -> comparison
    | PATH _IN values                             -> in_values
    | PATH _NOT _IN values                        -> not_in_values
    | PATH _BETWEEN operand _AND operand          -> between
    | PATH _NOT _BETWEEN operand _AND operand     -> not_between
    | PATH _LIKE operand                          -> like
    | PATH _NOT _LIKE operand                     -> not_like
    | PATH _CONTAINS operand                      -> contains
    | PATH _NOT _CONTAINS operand                 -> not_contains
    | PATH _IS NULL                               -> is_null
    | PATH _IS _NOT NULL                          -> is_not_null
    | _EXISTS PATH                                -> exists
    | TRUE                                        -> always
    | FALSE                                       -> never
    | _LPAR disjunction _RPAR
values: _LPAR [operand (_COMMA operand)*] _RPAR
    | bare
?bare: PARAMETER                                  -> parameter
?operand: NUMBER                                  -> number
    | STRING                                      -> string
    | TRUE                                        -> true
    | FALSE                                       -> false
    | NULL                                        -> null
    | PARAMETER                                   -> parameter

PATH: /(?:[^\W\d]\w*|"[^"]*(?:""[^"]*)*"(?!"))(?:\.(?:\w+|"[^"]*(?:""[^"]*)*"(?!")))*/
NUMBER: /[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/
STRING: /'[^']*(?:''[^']*)*'(?!')/
PARAMETER: /:[^\W\d]\w*/
OPERATOR: /<=|>=|!=|<>|==?|<|>/
_LPAR: "("
_RPAR: ")"
_COMMA: ","
%ignore /\s+/
%declare _AND _OR _NOT _IN _BETWEEN _LIKE _IS _EXISTS _CONTAINS NULL TRUE FALSE
"""

_KEPT_KEYWORDS = frozenset(("NULL", "TRUE", "FALSE"))
"""Keywords whose tokens reach the actions; the grammar spells the others with an underscore, which drops them."""


class _Template(NamedTuple):
    """A parsed text, and the positions of its parameters by name."""

    tree: Filter
    parameters: dict[str, int]


def parse(text: str, params: Mapping[str, object] | None = None) -> Filter:
    """Parse filter text and bind its parameters; see ``vecdb.filter.parse_filter``."""
    if not isinstance(text, str):
        raise InvalidArgument("a filter text is a string", field="where", value=type(text).__name__)
    template = _cached_template(text) if len(text) <= _CACHED_CHARACTERS_MAX else _template(text)
    given = {} if params is None else params
    for name, position in template.parameters.items():
        if name not in given:
            raise InvalidArgument(
                f"the filter names the parameter :{name}, but no value was given for it",
                field=f"params.{name}",
                position=position,
            )
    if len(given) > len(template.parameters):
        unused = next(name for name in given if name not in template.parameters)
        raise InvalidArgument(
            f"a value was given for the parameter {unused}, which the filter does not name", field=f"params.{unused}"
        )
    return bind(template.tree, given) if template.parameters else template.tree


def _template(text: str) -> _Template:
    size_bytes = len(text.encode("utf-8", "surrogatepass"))
    if size_bytes > TEXT_BYTES_MAX:
        raise InvalidArgument(
            f"a filter text has at most {TEXT_BYTES_MAX} bytes; this one has {size_bytes} (bind long lists instead)",
            field="where",
            limit=f"{TEXT_BYTES_MAX} bytes",
            value=f"{size_bytes} bytes",
        )
    try:
        tree = _parser().parse(text)
    except UnexpectedToken as error:
        raise syntax_error(text, error) from None
    except UnexpectedCharacters as error:
        raise character_error(text, error.pos_in_stream or 0) from None
    # With the transformer inside the parser, lark returns what `start` returned.
    assert isinstance(tree, Filter)
    parameters: dict[str, int] = {}
    collect_parameters(tree, parameters)
    return _Template(tree, parameters)


_cached_template = functools.lru_cache(maxsize=_CACHED_TEXTS_MAX)(_template)


def _leaf(path: Token, build: Callable[[Path, list[Bound]], Filter], *operands: Operand) -> Filter:
    try:
        keys = parse_path(path)
    except InvalidArgument as error:
        error.field, error.position = "where", path.start_pos
        raise
    leaf = Unbound(keys, build, operands)
    return leaf if any(each.parameter is not None for each in operands) else leaf.bound({})


@v_args(inline=True)
class _Actions(Transformer[Token, Filter]):
    """What each rule of the grammar makes of its parts."""

    def start(self, tree: Filter) -> Filter:
        return tree

    def disjunction(self, *operands: Filter) -> Filter:
        return Or(operands) if len(operands) > 1 else operands[0]

    def conjunction(self, *operands: Filter) -> Filter:
        return And(operands) if len(operands) > 1 else operands[0]

    def negation(self, operand: Filter) -> Filter:
        return Not(operand)

    def comparison(self, path: Token, operator: Token, operand: Operand) -> Filter:
        return _leaf(path, COMPARISONS[str(operator)], operand)

    def in_values(self, path: Token, values: tuple[Operand, ...]) -> Filter:
        return _leaf(path, in_list, *values)

    def not_in_values(self, path: Token, values: tuple[Operand, ...]) -> Filter:
        return Not(_leaf(path, in_list, *values))

    def between(self, path: Token, low: Operand, high: Operand) -> Filter:
        return _leaf(path, between, low, high)

    def not_between(self, path: Token, low: Operand, high: Operand) -> Filter:
        return Not(_leaf(path, between, low, high))

    def like(self, path: Token, pattern: Operand) -> Filter:
        return _leaf(path, like, pattern)

    def not_like(self, path: Token, pattern: Operand) -> Filter:
        return Not(_leaf(path, like, pattern))

    def contains(self, path: Token, value: Operand) -> Filter:
        return _leaf(path, contains, value)

    def not_contains(self, path: Token, value: Operand) -> Filter:
        return Not(_leaf(path, contains, value))

    def is_null(self, path: Token, _null: Token) -> Filter:
        return _leaf(path, is_null)

    def is_not_null(self, path: Token, _null: Token) -> Filter:
        return Not(_leaf(path, is_null))

    def exists(self, path: Token) -> Filter:
        return _leaf(path, exists)

    def always(self, _true: Token) -> Filter:
        return Constant(True)

    def never(self, _false: Token) -> Filter:
        return Constant(False)

    def values(self, *operands: Operand) -> tuple[Operand, ...]:
        return operands

    def number(self, token: Token) -> Operand:
        return Operand(_number(token), token.start_pos or 0)

    def string(self, token: Token) -> Operand:
        return Operand(token[1:-1].replace("''", "'"), token.start_pos or 0)

    def true(self, token: Token) -> Operand:
        return Operand(True, token.start_pos or 0)

    def false(self, token: Token) -> Operand:
        return Operand(False, token.start_pos or 0)

    def null(self, token: Token) -> Operand:
        return Operand(None, token.start_pos or 0)

    def parameter(self, token: Token) -> Operand:
        return Operand(None, token.start_pos or 0, str(token[1:]))


def _number(token: Token) -> int | float:
    if any(character in token for character in ".eE"):
        value = float(token)
        if math.isfinite(value):
            return value
        problem, limit = "a number is too large for a 64-bit float", "about 1.8e308"
    elif len(token) <= INTEGER_DIGITS_MAX + 1 and len(token.lstrip("+-")) <= INTEGER_DIGITS_MAX:
        return int(token)
    else:
        problem, limit = f"an integer has at most {INTEGER_DIGITS_MAX} digits", f"{INTEGER_DIGITS_MAX} digits"
    raise InvalidArgument(problem, field="where", limit=limit, value=str(token), position=token.start_pos)


def _keyword(token: Token) -> Token:
    """Give a bare word that is a keyword, in any mixture of cases, the keyword's terminal."""
    word = token.upper()
    if word in KEYWORDS:
        token.type = word if word in _KEPT_KEYWORDS else f"_{word}"
    return token


@functools.cache
def _parser() -> Lark:
    return Lark(
        _GRAMMAR,
        parser="lalr",
        lexer="basic",
        transformer=_Actions(),
        lexer_callbacks={"PATH": _keyword},
        maybe_placeholders=False,
    )
