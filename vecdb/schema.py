"""The shape of a collection: its vector fields, how each is compared and how each is indexed.

Values here are validated once, when they are made, and never change afterwards; every layer below the caller may rely
on them without checking again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from vecdb.errors import InvalidArgument
from vecdb.types import DEFAULT_VECTOR, Metric

DIM_MAX = 65_536
NAME_BYTES_MAX = 512
VECTOR_FIELDS_MAX = 64
M_MIN, M_MAX = 2, 128
EF_CONSTRUCTION_MAX = 4_096


class IndexKind(Enum):
    """Which structure answers approximate searches of a vector field."""

    AUTO = "auto"
    FLAT = "flat"
    HNSW = "hnsw"


def check_name(name: object, what: str) -> str:
    """The name itself, if it may name a collection or a field.

    Parameters
    ----------
    name
        The caller's value.
    what
        What it names, for the error (``"collection"``).

    Raises
    ------
    InvalidArgument
        Unless it is a string of 1 to 512 UTF-8 bytes without surrogates or control characters.
    """
    if not isinstance(name, str):
        raise InvalidArgument(f"{what} must be a string, got {type(name).__name__}", field=what, value=name)
    size_bytes = utf8_size_bytes(name, what)
    if not 1 <= size_bytes <= NAME_BYTES_MAX:
        raise InvalidArgument(
            f"{what} must be 1 to {NAME_BYTES_MAX} bytes of UTF-8, got {size_bytes}",
            field=what,
            limit=f"1..{NAME_BYTES_MAX} bytes",
            value=name,
        )
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in name):
        raise InvalidArgument(f"{what} must not hold control characters", field=what, value=repr(name))
    return name


def utf8_size_bytes(text: str, what: str) -> int:
    """Length of ``text`` in UTF-8; raises InvalidArgument naming ``what`` where it holds a lone surrogate."""
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            f"{what} holds a lone surrogate at character {error.start}, which UTF-8 cannot carry",
            field=what,
            value=repr(text),
        ) from None


def _check_range(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidArgument(f"{name} must be an integer, got {type(value).__name__}", field=name, value=value)
    if not low <= value <= high:
        raise InvalidArgument(
            f"{name} must be {low} to {high}, got {value}", field=name, limit=f"{low}..{high}", value=value
        )


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """How a vector field is indexed.

    Attributes
    ----------
    kind
        ``AUTO`` lets the engine choose; ``FLAT`` is always exact; ``HNSW`` is a navigable graph.
    m
        M of HNSW: links of a node in the upper layers; the bottom layer has twice as many. 2 to 128.
    ef_construction
        Size of the candidate list while the graph is built. ``m`` to 4,096.
    seed
        Seed of the layer drawn for each row; the graph is a function of data, parameters and seed.
    """

    kind: IndexKind = IndexKind.AUTO
    m: int = 16
    ef_construction: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        _check_range("m", self.m, M_MIN, M_MAX)
        _check_range("ef_construction", self.ef_construction, self.m, EF_CONSTRUCTION_MAX)
        _check_range("seed", self.seed, 0, 2**63 - 1)

    @classmethod
    def parse(cls, value: IndexSpec | IndexKind | str) -> IndexSpec:
        """The spec that ``value`` stands for: a spec, a kind, or the name of a kind."""
        if isinstance(value, IndexSpec):
            return value
        try:
            return cls(kind=IndexKind(value))
        except ValueError:
            known = " | ".join(kind.value for kind in IndexKind)
            raise InvalidArgument(
                f"index must be {known}, got {value!r}", field="index", limit=known, value=value
            ) from None


@dataclass(frozen=True, slots=True)
class VectorField:
    """A named dense vector of every point (a point may lack it).

    Attributes
    ----------
    dim
        Number of dimensions, 1 to 65,536.
    metric
        How vectors are compared.
    index
        How approximate searches are answered.
    name
        ``""`` for the only field of a collection made without naming one.
    """

    dim: int
    metric: Metric = Metric.COSINE
    index: IndexSpec = field(default_factory=IndexSpec)
    name: str = DEFAULT_VECTOR

    def __post_init__(self) -> None:
        _check_range("dim", self.dim, 1, DIM_MAX)
        if self.name != DEFAULT_VECTOR:
            check_name(self.name, "vector field name")
        object.__setattr__(self, "metric", parse_metric(self.metric))
        object.__setattr__(self, "index", IndexSpec.parse(self.index))


def parse_metric(value: Metric | str) -> Metric:
    """The metric that ``value`` names."""
    try:
        return Metric(value)
    except ValueError:
        known = " | ".join(metric.value for metric in Metric)
        raise InvalidArgument(
            f"metric must be {known}, got {value!r}", field="metric", limit=known, value=value
        ) from None


@dataclass(frozen=True, slots=True)
class CollectionSchema:
    """The vector fields of a collection, 1 to 64, of distinct names."""

    vectors: tuple[VectorField, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "vectors", tuple(self.vectors))
        count = len(self.vectors)
        if not 1 <= count <= VECTOR_FIELDS_MAX:
            raise InvalidArgument(
                f"a collection has 1 to {VECTOR_FIELDS_MAX} vector fields, got {count}",
                field="vectors",
                limit=f"1..{VECTOR_FIELDS_MAX}",
                value=count,
            )
        names = [each.name for each in self.vectors]
        for name in names:
            if names.count(name) > 1:
                raise InvalidArgument(f"vector field {name!r} is declared twice", field="vectors", value=name)

    @classmethod
    def single(
        cls, dim: int, metric: Metric | str = Metric.COSINE, index: IndexSpec | str = "auto"
    ) -> CollectionSchema:
        """A schema of one unnamed vector field."""
        return cls((VectorField(dim=dim, metric=parse_metric(metric), index=IndexSpec.parse(index)),))

    def vector(self, name: str | None) -> VectorField:
        """The vector field called ``name``; ``None`` means the only one.

        Raises
        ------
        InvalidArgument
            Where there is no such field, or ``None`` is ambiguous.
        """
        if name is None and len(self.vectors) == 1:
            return self.vectors[0]
        known = ", ".join(repr(each.name) for each in self.vectors)
        if name is None:
            raise InvalidArgument(
                f"the collection has {len(self.vectors)} vector fields; name one of {known}", field="field", limit=known
            )
        for each in self.vectors:
            if each.name == name:
                return each
        raise InvalidArgument(f"no vector field {name!r}; there are {known}", field="field", limit=known, value=name)
