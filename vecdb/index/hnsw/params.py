"""How an HNSW graph is built: validated once, immutable, the same for every segment of a field."""

from __future__ import annotations

from dataclasses import dataclass

from vecdb.errors import InvalidArgument
from vecdb.schema import EF_CONSTRUCTION_MAX, M_MAX, M_MIN

SEED_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class HnswParams:
    """Parameters of an HNSW graph.

    Attributes
    ----------
    m
        Links per node on the upper layers; the bottom layer keeps ``2 * m``. The literature's M. From 2 to 128.
    ef_construction
        Width of the beam that looks for a new node's neighbours; from 1 to 4,096, at least ``m`` to be useful.
    seed
        Chooses, with the row number, the layers a row is on and the order of insertion; from 0 to 2**63 - 1.

    Raises
    ------
    InvalidArgument
        A value is not an integer in its range.
    """

    m: int = 16
    ef_construction: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        _check("m", self.m, M_MIN, M_MAX)
        _check("ef_construction", self.ef_construction, 1, EF_CONSTRUCTION_MAX)
        _check("seed", self.seed, 0, SEED_MAX)


def _check(field: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidArgument(
            f"{field} must be an integer from {least:,} to {most:,}", field=field, limit=f"{least}..{most}", value=value
        )
