"""What the demo tells while it runs, and to whom: the words are the demo's, the look is the screen's."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Answer:
    """One hit as it is shown.

    Attributes
    ----------
    score
        Larger is nearer.
    title
        What was found.
    text
        A sentence or two of it.
    """

    score: float
    title: str
    text: str


class Bar(Protocol):
    """The progress of something that is under way."""

    def advance(self, count: int) -> None:
        """``count`` more units are done."""

    def note(self, text: str) -> None:
        """What is being done now."""


class Screen(Protocol):
    """Where a person reads along."""

    def heading(self, text: str) -> None:
        """The next part begins."""

    def say(self, text: str) -> None:
        """A paragraph, wrapped to the width."""

    def facts(self, facts: Iterable[tuple[str, str]]) -> None:
        """Names and what they are, in two columns."""

    def answers(self, question: str, answers: Iterable[Answer], note: str = "") -> None:
        """A question, what else was asked for, and what was found."""

    def commands(self, lines: Iterable[str]) -> None:
        """Lines to type, never wrapped."""

    def bar(self, label: str, total: int | None, unit: str) -> AbstractContextManager[Bar]:
        """A bar of ``total`` units (``None``: nobody knows; no unit: nothing is counted), gone when the block ends."""
