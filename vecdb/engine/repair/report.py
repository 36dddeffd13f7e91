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


class Findings:
    """What is found about one collection, in the order in which it is found.

    Attributes
    ----------
    collection
        Its name, as far as that is known yet.
    place
        Its directory, below the database's.
    """

    def __init__(self, collection: str, place: str) -> None:
        self.collection = collection
        self.place = place
        self.actions: list[Action] = []
        self.losses: list[Loss] = []

    def tell(self, file: str, reason: str, remedy: str) -> None:
        """What is done about a file; with no name, about the directory as a whole."""
        self.actions.append(Action(f"{self.place}/{file}" if file else self.place, reason, remedy))

    def lose(self, kind: str, message: str, count: int = 0, ids: tuple[PointId, ...] = ()) -> None:
        """What cannot be brought back; parameters as the attributes of ``Loss``."""
        self.losses.append(Loss(self.collection, kind, message, count, ids))

    def lose_points(self, kind: str, of: str, ids: tuple[PointId, ...], unreadable: int) -> None:
        """Points that cannot be brought back: those of these ids, and some whose ids cannot be read."""
        count = len(ids) + unreadable
        unnamed = f"; the ids of {unreadable} of them cannot be read" if unreadable else ""
        self.lose(kind, f"{count} points of {of}{unnamed}", count, ids)


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
