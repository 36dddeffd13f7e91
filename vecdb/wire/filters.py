"""Filters as messages: text with its parameters as it is, a tree as a tree of the same shape.

Text is not parsed here but where it is answered, so that every caller gets the same error at the same position. Values
keep their types: ``1``, ``1.0``, ``true`` and an integer beyond 64 bits arrive as they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vecdb.errors import InvalidArgument, Unimplemented
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
    parse_filter,
)
from vecdb.filter.literals import INTEGER_DIGITS_MAX, scalar
from vecdb.filter.tree import IN_VALUES_MAX, NODES_MAX
from vecdb.requests import FilterText, Where
from vecdb.v1 import values_pb2
from vecdb.wire.schemas import known_member

TEXT_CHARACTERS_MAX = 65_536
"""Longer text is refused by the parser anyway; it is not sent."""

_OPERATORS: Mapping[int, Operator] = {
    values_pb2.OPERATOR_EQ: Operator.EQ,
    values_pb2.OPERATOR_NE: Operator.NE,
    values_pb2.OPERATOR_LT: Operator.LT,
    values_pb2.OPERATOR_LE: Operator.LE,
    values_pb2.OPERATOR_GT: Operator.GT,
    values_pb2.OPERATOR_GE: Operator.GE,
}
_OPERATOR_NUMBERS = {operator: number for number, operator in _OPERATORS.items()}


def encode_where(where: Where) -> values_pb2.Filter | None:
    """A filter as a message; ``None`` for none.

    Raises
    ------
    InvalidArgument
        A text or parameter that no message can carry, with the error that parsing it gives.
    """
    if where is None:
        return None
    if isinstance(where, Filter):
        return values_pb2.Filter(expression=encode_expression(where))
    message = _encode_text(where)
    if message is None:
        # The parser says what is wrong with it, or takes it for a value after all.
        return values_pb2.Filter(expression=encode_expression(parse_filter(where.text, where.parameters)))
    return message


def _encode_text(where: FilterText) -> values_pb2.Filter | None:
    """The text and its parameters; ``None`` where they hold what no message can carry."""
    if len(where.text) > TEXT_CHARACTERS_MAX:
        return None
    try:
        parameters = {name: _encode_parameter(value) for name, value in where.parameters.items()}
        return values_pb2.Filter(text=where.text, parameters=parameters)
    except (InvalidArgument, TypeError, ValueError):
        # A surrogate, a name that is no text, or a value that is no scalar.
        return None


def decode_where(message: values_pb2.Filter) -> Where:
    """The filter of a message.

    Raises
    ------
    InvalidArgument
        A tree beyond the limits of ``vecdb.filter``, or a value that cannot be compared with.
    Unimplemented
        A form, predicate, operator or value unknown here.
    """
    form = message.WhichOneof("form")
    if form == "text":
        if len(message.parameters) > NODES_MAX:
            raise InvalidArgument(
                f"a filter has at most {NODES_MAX} parameters, got {len(message.parameters)}",
                field="params",
                limit=NODES_MAX,
                value=len(message.parameters),
            )
        return FilterText(message.text, {name: _decode_parameter(each) for name, each in message.parameters.items()})
    if form == "expression":
        if message.parameters:
            raise InvalidArgument(
                "params belong to a filter given as text", field="params", value=", ".join(message.parameters)
            )
        _check_nodes(message.expression)
        return decode_expression(message.expression)
    raise unknown_choice("where")


def _check_nodes(message: values_pb2.Expression) -> None:
    """Count a tree before any of it is turned into objects: a small message can hold a great many nodes."""
    waiting = [message]
    nodes = 0
    while waiting:
        node = waiting.pop()
        form = node.WhichOneof("node")
        nodes += 1
        below = getattr(node, form).operands if form in ("all_of", "any_of") else ()
        if nodes + len(waiting) + len(below) > NODES_MAX:
            raise InvalidArgument(f"a filter has at most {NODES_MAX} nodes", field="where", limit=f"{NODES_MAX} nodes")
        waiting.extend(below)
        if form == "negation":
            waiting.append(node.negation)


def _check_values(count: int) -> None:
    """Refuse a list far beyond the limit before it is turned into objects; the filter itself knows the limit."""
    if count > 10 * IN_VALUES_MAX:
        raise InvalidArgument(
            f"IN takes at most {IN_VALUES_MAX} values, got {count}", field="where", limit=IN_VALUES_MAX, value=count
        )


def unknown_choice(name: str) -> Unimplemented:
    """The error for a oneof in which nothing is set that is known here."""
    return Unimplemented(
        f"{name} holds nothing that this server knows: it is empty, or the client is newer",
        field=name,
        limit="a known choice",
    )


def encode_expression(tree: Filter) -> values_pb2.Expression:
    """A filter tree as a message."""
    match tree:
        case And(operands):
            return values_pb2.Expression(all_of=_encode_operands(operands))
        case Or(operands):
            return values_pb2.Expression(any_of=_encode_operands(operands))
        case Not(operand):
            return values_pb2.Expression(negation=encode_expression(operand))
        case Compare(path, op, value):
            return values_pb2.Expression(
                comparison=values_pb2.Comparison(
                    path=_encode_path(path),
                    operator=_OPERATOR_NUMBERS[op],  # type: ignore[arg-type]
                    value=encode_scalar(value),
                )
            )
        case In(path, values):
            return values_pb2.Expression(
                membership=values_pb2.Membership(path=_encode_path(path), values=map(encode_scalar, values))
            )
        case Prefix(path, prefix):
            return values_pb2.Expression(prefix=values_pb2.Prefix(path=_encode_path(path), prefix=prefix))
        case Contains(path, value):
            return values_pb2.Expression(
                containment=values_pb2.Containment(path=_encode_path(path), value=encode_scalar(value))
            )
        case IsNull(path):
            return values_pb2.Expression(is_null=_encode_path(path))
        case Exists(path):
            return values_pb2.Expression(exists=_encode_path(path))
        case Constant(value):
            return values_pb2.Expression(constant=value)
    raise AssertionError(f"no message for {type(tree).__name__}")


def decode_expression(message: values_pb2.Expression) -> Filter:
    """The filter tree of a message; raises as ``decode_where``."""
    match message.WhichOneof("node"):
        case "all_of":
            return And(_decode_operands(message.all_of))
        case "any_of":
            return Or(_decode_operands(message.any_of))
        case "negation":
            return Not(decode_expression(message.negation))
        case "comparison":
            comparison = message.comparison
            operator = known_member(_OPERATORS, comparison.operator, "where.operator")
            return Compare(_decode_path(comparison.path), operator, _decode_value(comparison.value))
        case "membership":
            membership = message.membership
            _check_values(len(membership.values))
            return In(_decode_path(membership.path), tuple(map(_decode_value, membership.values)))
        case "prefix":
            return Prefix(_decode_path(message.prefix.path), message.prefix.prefix)
        case "containment":
            return Contains(_decode_path(message.containment.path), decode_scalar(message.containment.value))
        case "is_null":
            return IsNull(_decode_path(message.is_null))
        case "exists":
            return Exists(_decode_path(message.exists))
        case "constant":
            return Constant(message.constant)
        case _:
            raise unknown_choice("where")


def encode_scalar(value: Scalar | None) -> values_pb2.Scalar:
    """A value to compare with, or null, as a message."""
    if value is None:
        return values_pb2.Scalar(null=True)
    if isinstance(value, bool):
        return values_pb2.Scalar(boolean=value)
    if isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return values_pb2.Scalar(integer=value)
        return values_pb2.Scalar(big_integer=str(value))
    if isinstance(value, float):
        return values_pb2.Scalar(number=value)
    return values_pb2.Scalar(text=value)


def decode_scalar(message: values_pb2.Scalar) -> Scalar | None:
    """The value of a message; raises as ``decode_where``."""
    match message.WhichOneof("value"):
        case "null":
            return None
        case "boolean":
            return message.boolean
        case "integer":
            return message.integer
        case "number":
            return message.number
        case "text":
            return message.text
        case "big_integer":
            return _decode_integer(message.big_integer)
        case _:
            raise unknown_choice("where.value")


def _decode_value(message: values_pb2.Scalar) -> Scalar:
    value = decode_scalar(message)
    # Null is refused here, with the words that the tree's own constructors have for it.
    return scalar(value, "where") if value is None else value


def _decode_integer(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= INTEGER_DIGITS_MAX):
        raise InvalidArgument(
            f"a big_integer is written with 1 to {INTEGER_DIGITS_MAX} decimal digits",
            field="where.value",
            limit=f"{INTEGER_DIGITS_MAX} digits",
            value=text,
        )
    return int(text)


def _encode_parameter(value: Any) -> values_pb2.Parameter:
    if isinstance(value, list | tuple | set | frozenset):
        return values_pb2.Parameter(list=values_pb2.ScalarList(values=map(_encode_given, value)))
    return values_pb2.Parameter(scalar=_encode_given(value))


def _encode_given(value: Any) -> values_pb2.Scalar:
    return encode_scalar(None if value is None else scalar(value, "params"))


def _decode_parameter(message: values_pb2.Parameter) -> Any:
    match message.WhichOneof("value"):
        case "scalar":
            return decode_scalar(message.scalar)
        case "list":
            _check_values(len(message.list.values))
            return [decode_scalar(each) for each in message.list.values]
        case _:
            raise unknown_choice("params")


def _encode_path(path: Path) -> values_pb2.Path:
    return values_pb2.Path(keys=path)


def _decode_path(message: values_pb2.Path) -> Path:
    return tuple(message.keys)


def _encode_operands(operands: tuple[Filter, ...]) -> values_pb2.Operands:
    return values_pb2.Operands(operands=map(encode_expression, operands))


def _decode_operands(message: values_pb2.Operands) -> tuple[Filter, ...]:
    return tuple(map(decode_expression, message.operands))
