"""One thing that a check finds wrong, and the notes that it takes while it goes on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from vecdb.engine.graph_digest import GraphDigest
from vecdb.errors import FailedPrecondition, VecdbError

Progress: TypeAlias = Callable[[str], None]

_OFFSET = re.compile(r"\bat (?:or after )?(?:offset|byte) (\d+)")


class Kind(Enum):
    """What sort of thing is wrong."""

    DAMAGED = "damaged"
    """A file is not what was written."""

    MISSING = "missing"
    """A file that something names is not there."""

    STRAY = "stray"
    """Nothing names a file or directory."""

    INCONSISTENT = "inconsistent"
    """Files are whole, but do not fit each other."""

    UNREADABLE = "unreadable"
    """It is of a format that this version does not read, or may not be read."""

    UNFINISHED = "unfinished"
    """A repair was interrupted."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes
    ----------
    file
        The file, or what else it is about.
    message
        What is wrong, with the offset where one is known.
    offset
        In bytes; ``None`` where it is not known.
    """

    file: str
    message: str
    kind: Kind
    offset: int | None = None

    @classmethod
    def of(cls, error: VecdbError, name: str) -> Problem:
        """The problem that an error met while reading ``name`` tells of."""
        if isinstance(error, FailedPrecondition):
            kind = Kind.UNREADABLE
        elif " is missing" in error.message or " does not exist" in error.message:
            kind = Kind.MISSING
        else:
            kind = Kind.DAMAGED
        found = _OFFSET.search(error.message)
        return cls(error.field or name, error.message, kind, None if found is None else int(found[1]))

    def as_object(self) -> dict[str, object]:
        """As JSON."""
        return {"file": self.file, "kind": self.kind.value, "offset": self.offset, "message": self.message}


class Notes:
    """What a check found so far.

    Attributes
    ----------
    files
        Files looked at.
    points
        Live points in segments.
    graphs
        What was found to be whole.
    """

    def __init__(self, progress: Progress) -> None:
        self.problems: list[Problem] = []
        self.files = 0
        self.points = 0
        self.graphs: list[GraphDigest] = []
        self._progress = progress

    @contextmanager
    def reading(self, name: str, files: int = 0) -> Iterator[None]:
        """Note what goes wrong inside and go on."""
        self._progress(name)
        self.files += files
        try:
            yield
        except VecdbError as error:
            self.problems.append(Problem.of(error, name))

    def wrong(self, name: str, message: str, kind: Kind = Kind.INCONSISTENT) -> None:
        """Note something that no error tells of."""
        self.problems.append(Problem(name, message, kind))
