"""What live queries teach about the recall of walks, in numbers that a plan can use.

A segment is calibrated with rows of its own as queries; queries of another kind may miss more of what they should find,
or less. The ratio of the two is taken to be the same at every breadth, as it would be if the curve that is drawn of the
logarithm of what is missed were only moved up or down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

APPLIED_MAX = 64.0
"""A plan reckons with no more than this: walks as broad as that show what a graph can give."""


@dataclass(frozen=True, slots=True)
class Correction:
    """How much more live queries miss than the rows that a graph was calibrated with.

    Attributes
    ----------
    applied
        What a plan reckons with when it chooses the breadth for a wanted recall; above 0.
    measured
        What it reckons with when it says which recall is expected; at least 0.
    """

    applied: float = 1.0
    measured: float = 1.0


NO_CORRECTION = Correction()

CorrectionOf: TypeAlias = Callable[[float], Correction]
"""The correction for walks of which a share of the rows is allowed."""


def uncorrected(share: float) -> Correction:
    """None."""
    del share
    return NO_CORRECTION
