"""The filter expression tree: what a payload must satisfy.

A node never changes and is checked when it is made: no tree is deeper than ``DEPTH_MAX`` or has more than ``NODES_MAX``
nodes, so that whoever walks one may recurse. Trees are equal where they have the same structure and the same typed
values (``1``, ``1.0`` and ``True`` differ), and equal trees have equal hashes, computed once: a tree is its own cache
key. Truth has three values, as in SQL; ``docs/filters.md`` says which predicate is unknown when.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NoReturn

from vecdb.errors import InvalidArgument
from vecdb.filter.literals import Path, Scalar, checked_path, literal_text, path_text, prefix_pattern, scalar

DEPTH_MAX = 16
"""Levels of a tree: a single predicate has one."""

NODES_MAX = 1_024
"""Nodes of a tree, inner ones included."""

IN_VALUES_MAX = 10_000
"""Values of one IN list."""


class Filter:
    """A condition on a payload; base of every node.

    Attributes
    ----------
    depth
        Levels from this node down, at least 1.
    nodes
        Nodes of this tree, at least 1.
    """

    __slots__ = ("_hash", "_key", "_paths", "depth", "nodes")

    depth: int
    nodes: int
    _key: tuple[object, ...]
    _hash: int
    _paths: frozenset[Path]

    def _seal(self, *key: object, path: Path | None = None, operands: tuple[Filter, ...] = ()) -> None:
        """Fill the derived attributes and refuse what breaks a limit."""
        below = 0
        nodes = 1
        paths: frozenset[Path] = frozenset() if path is None else frozenset((path,))
        for operand in operands:
            below = max(below, operand.depth)
            nodes += operand.nodes
            paths |= operand.paths()
        depth = below + 1
        if depth > DEPTH_MAX:
            raise InvalidArgument(
                f"a filter has at most {DEPTH_MAX} levels; this one has {depth}",
                field="where",
                limit=f"{DEPTH_MAX} levels",
                value=depth,
            )
        if nodes > NODES_MAX:
            raise InvalidArgument(
                f"a filter has at most {NODES_MAX} nodes; this one has {nodes} (use IN for lists of values)",
                field="where",
                limit=f"{NODES_MAX} nodes",
                value=nodes,
            )
        identity = (type(self), *key)
        assign = object.__setattr__
        assign(self, "depth", depth)
        assign(self, "nodes", nodes)
        assign(self, "_key", identity)
        assign(self, "_hash", hash(identity))
        assign(self, "_paths", paths)

    def paths(self) -> frozenset[Path]:
        """The payload paths that the filter looks at."""
        return self._paths

    def __and__(self, other: Filter) -> Filter:
        if not isinstance(other, Filter):
            return NotImplemented
        return And((self, other))

    def __or__(self, other: Filter) -> Filter:
        if not isinstance(other, Filter):
            return NotImplemented
        return Or((self, other))

    def __invert__(self) -> Filter:
        return Not(self)

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "a filter has no truth value of its own: combine filters with &, | and ~ (not with and, or, not, nor by "
            "chained comparisons), and test for its presence with `is not None`"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Filter):
            return NotImplemented
        return self is other or (self._hash == other._hash and self._key == other._key)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"<Filter {self}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # Derived attributes are not stored: unpickling goes through the constructor and its checks.
        names: tuple[str, ...] = type(self).__match_args__  # type: ignore[attr-defined]
        return type(self), tuple(getattr(self, name) for name in names)


class Operator(Enum):
    """How ``Compare`` compares."""

    EQ = "="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class And(Filter):
    """True where every operand is true. An operand that is itself an ``And`` is replaced by its operands.

    Raises
    ------
    InvalidArgument
        Fewer than two operands, or a limit of the tree broken.
    """

    operands: tuple[Filter, ...]

    def __post_init__(self) -> None:
        operands = _flattened(And, self.operands)
        object.__setattr__(self, "operands", operands)
        self._seal(*operands, operands=operands)

    def __str__(self) -> str:
        return " AND ".join(f"({each})" if isinstance(each, Or) else str(each) for each in self.operands)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Or(Filter):
    """True where an operand is true. An operand that is itself an ``Or`` is replaced by its operands.

    Raises
    ------
    InvalidArgument
        Fewer than two operands, or a limit of the tree broken.
    """

    operands: tuple[Filter, ...]

    def __post_init__(self) -> None:
        operands = _flattened(Or, self.operands)
        object.__setattr__(self, "operands", operands)
        self._seal(*operands, operands=operands)

    def __str__(self) -> str:
        return " OR ".join(str(each) for each in self.operands)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Not(Filter):
    """True where the operand is false; unknown stays unknown."""

    operand: Filter

    def __post_init__(self) -> None:
        _check_node(self.operand)
        self._seal(self.operand, operands=(self.operand,))

    def __str__(self) -> str:
        match self.operand:
            case And() | Or():
                return f"NOT ({self.operand})"
            case IsNull(path):
                return f"{path_text(path)} IS NOT NULL"
            case In() | Prefix() | Contains():
                return self.operand._text("NOT ")  # noqa: SLF001 (nodes of one module)
            case _:
                return f"NOT {self.operand}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Compare(Filter):
    """The value at ``path`` stands in the relation ``op`` to ``value``."""

    path: Path
    op: Operator
    value: Scalar

    def __post_init__(self) -> None:
        path = checked_path(self.path)
        if not isinstance(self.op, Operator):
            raise InvalidArgument("a comparison needs an Operator", field="where", value=repr(self.op))
        value = scalar(self.value, path)
        object.__setattr__(self, "value", value)
        self._seal(path, self.op.value, type(value), value, path=path)

    def __str__(self) -> str:
        return f"{path_text(self.path)} {self.op.value} {literal_text(self.value)}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class In(Filter):
    """The value at ``path`` equals one of ``values``; repeated values are dropped.

    Raises
    ------
    InvalidArgument
        More than ``IN_VALUES_MAX`` values, or a value that cannot be compared with.
    """

    path: Path
    values: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        path = checked_path(self.path)
        if type(self.values) is not tuple:
            raise InvalidArgument(
                "the values of IN are a tuple", field=path_text(path), value=type(self.values).__name__
            )
        check_in_count(path, len(self.values))
        typed = dict.fromkeys((type(value), value) for value in (scalar(each, path) for each in self.values))
        values = tuple(value for _, value in typed)
        object.__setattr__(self, "values", values)
        self._seal(path, tuple(kind for kind, _ in typed), values, path=path)

    def _text(self, negation: str) -> str:
        return f"{path_text(self.path)} {negation}IN ({', '.join(map(literal_text, self.values))})"

    def __str__(self) -> str:
        return self._text("")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Prefix(Filter):
    """The string at ``path`` starts with ``prefix``."""

    path: Path
    prefix: str

    def __post_init__(self) -> None:
        path = checked_path(self.path)
        prefix = scalar(self.prefix, path)
        if not isinstance(prefix, str):
            raise InvalidArgument("a prefix is a string", field=path_text(path), value=type(prefix).__name__)
        object.__setattr__(self, "prefix", prefix)
        self._seal(path, prefix, path=path)

    def _text(self, negation: str) -> str:
        return f"{path_text(self.path)} {negation}LIKE {literal_text(prefix_pattern(self.prefix))}"

    def __str__(self) -> str:
        return self._text("")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Contains(Filter):
    """The list at ``path`` holds ``value``; null may be asked for."""

    path: Path
    value: Scalar | None

    def __post_init__(self) -> None:
        path = checked_path(self.path)
        value = None if self.value is None else scalar(self.value, path)
        object.__setattr__(self, "value", value)
        self._seal(path, type(value), value, path=path)

    def _text(self, negation: str) -> str:
        return f"{path_text(self.path)} {negation}CONTAINS {literal_text(self.value)}"

    def __str__(self) -> str:
        return self._text("")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class IsNull(Filter):
    """The payload has nothing at ``path``, or null."""

    path: Path

    def __post_init__(self) -> None:
        self._seal(checked_path(self.path), path=self.path)

    def __str__(self) -> str:
        return f"{path_text(self.path)} IS NULL"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Exists(Filter):
    """The payload has something at ``path``, even if it is null."""

    path: Path

    def __post_init__(self) -> None:
        self._seal(checked_path(self.path), path=self.path)

    def __str__(self) -> str:
        return f"EXISTS {path_text(self.path)}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Constant(Filter):
    """Every payload, or none."""

    value: bool

    def __post_init__(self) -> None:
        if type(self.value) is not bool:
            raise InvalidArgument("a constant is true or false", field="where", value=type(self.value).__name__)
        self._seal(self.value)

    def __str__(self) -> str:
        return "TRUE" if self.value else "FALSE"


def check_in_count(path: Path, count: int) -> None:
    """Refuse an IN list of more than ``IN_VALUES_MAX`` values."""
    if count > IN_VALUES_MAX:
        raise InvalidArgument(
            f"IN takes at most {IN_VALUES_MAX} values; {path_text(path)} was given {count}",
            field=path_text(path),
            limit=f"{IN_VALUES_MAX} values",
            value=count,
        )


def all_of(filters: Iterable[Filter]) -> Filter:
    """The conjunction of any number of filters: ``TRUE`` for none."""
    operands = tuple(filters)
    if len(operands) == 1:
        return _check_node(operands[0])
    return And(operands) if operands else Constant(True)


def any_of(filters: Iterable[Filter]) -> Filter:
    """The disjunction of any number of filters: ``FALSE`` for none."""
    operands = tuple(filters)
    if len(operands) == 1:
        return _check_node(operands[0])
    return Or(operands) if operands else Constant(False)


def _flattened(kind: type[And] | type[Or], operands: tuple[Filter, ...]) -> tuple[Filter, ...]:
    if type(operands) is not tuple or len(operands) < 2:
        raise InvalidArgument(
            f"{kind.__name__} joins a tuple of at least two filters (all_of and any_of take any number)",
            field="where",
            limit="at least 2 operands",
            value=len(operands) if type(operands) is tuple else type(operands).__name__,
        )
    flat: list[Filter] = []
    for operand in operands:
        if isinstance(operand, kind):
            flat.extend(operand.operands)
        else:
            flat.append(_check_node(operand))
    return tuple(flat)


def _check_node(operand: Filter) -> Filter:
    if not isinstance(operand, Filter):
        raise InvalidArgument("a filter is made of filters", field="where", value=type(operand).__name__)
    return operand
