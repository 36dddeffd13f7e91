"""What a repair will do and what is lost, as values: for a person, for a machine, and for the quarantine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vecdb.types import PointId


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that is done.

    Attributes
    ----------
    file
        The file or directory it is about, below the database's directory.
    reason
        What is wrong with it.
    remedy
        What is done.
    """

    file: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that cannot be brought back.

    Attributes
    ----------
    collection
        Name of the collection.
    kind
        ``points``, ``writes``, ``deletes``, ``requests``, ``snapshot``, ``collection`` or ``identity``.
    message
        What is lost, in words.
    count
        How many points, writes or deletes, where that is known.
    ids
        The points lost, as far as their ids can be read; for a snapshot those lost from it.
    """

    collection: str
    kind: str
    message: str
    count: int = 0
    ids: tuple[PointId, ...] = ()


@dataclass(frozen=True, slots=True)
class RepairReport:
    """The plan of a repair.

    Attributes
    ----------
    quarantine
        Where damaged files go, below the database's directory; empty where there is nothing to do.
    """

    actions: tuple[Action, ...]
    losses: tuple[Loss, ...]
    quarantine: str = ""

    @property
    def needed(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.actions)

    def as_object(self) -> dict[str, Any]:
        """As JSON."""
        return {"needed": self.needed, **asdict(self)}
