"""What live queries missed, and what that teaches: the recall of searches that were run again exactly.

Samples are kept apart by vector field, by the recall that was asked for and by the share of the rows that was allowed.
Of each kind the ratio of what was missed to what the calibration expects is estimated, newer samples counting more;
once the newest contradict the others, those are forgotten. It is in memory only: whoever opens the collection learns
anew.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from vecdb.query.correction import APPLIED_MAX, NO_CORRECTION, Correction, CorrectionOf, uncorrected
from vecdb.results.stats import LiveRecall
from vecdb.types import AnyArray

RECALLS = (0.9, 0.95, 0.99)
_RECALL_BOUNDS = (0.925, 0.97)
SHARES = (1.0, 0.5, 0.2, 0.05)
_SHARE_BOUNDS = (0.8, 0.3, 0.1)
"""Kinds are named by the values above, and begin and end at these."""

_SAMPLES_KEPT = 512
_SAMPLES_MIN = 8
"""Fewer teach nothing."""
_RENEWED_EVERY = 4
"""Samples from one correction to the next."""
_PRIOR = 4
"""Samples as expected that every kind begins with, so that a few odd ones move little."""
_HALF_LIFE_MIN = 40
_NEWEST = 16
_CONTRADICTION = 3.5
"""Standard errors by which the newest samples differ from those before when something changed."""
_MEASURED_MIN = 0.01
_APPLIED_MIN = 0.5
_STEPS = 16
"""Corrections are rounded to so many a doubling: plans are remembered by them."""
_Z95 = 1.96

EAGER_FIRST = 128
_EAGER_MORE = 24
_EAGER_MOST = 128
_SURPRISE = 0.15


class Kind(NamedTuple):
    """Searches that are told apart; ``recall`` is 0 where an ef was given in its place."""

    field: str
    recall: float
    share: float


@lru_cache(maxsize=1024)
def kind_of(field_name: str, recall: float, ef: int | None, share: float) -> Kind:
    """The kind of a search of which a share of the rows is allowed."""
    asked = 0.0 if ef is not None else RECALLS[sum(recall > bound for bound in _RECALL_BOUNDS)]
    return Kind(field_name, asked, SHARES[sum(share < bound for bound in _SHARE_BOUNDS)])


@dataclass(slots=True)
class _Account:
    """The samples of one kind.

    Attributes
    ----------
    samples
        What was missed, and what was expected to be, of each, the oldest first.
    seen
        Samples since it began, or since something changed.
    eager
        Samples still to be taken at short intervals.
    """

    samples: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_SAMPLES_KEPT))
    seen: int = 0
    total: int = 0
    eager: int = EAGER_FIRST
    correction: Correction = NO_CORRECTION


class RecallLedger:
    """The samples of one collection. Safe to share between threads.

    Parameters
    ----------
    corrects
        Whether plans follow what was learnt, not only what they are expected to give.
    """

    def __init__(self, *, corrects: bool) -> None:
        self._corrects = corrects
        self._accounts: dict[Kind, _Account] = {}
        self._lock = threading.Lock()
        self.version = 0
        """Another number when a correction is another."""

    def correction_of(self, field_name: str, recall: float, ef: int | None) -> CorrectionOf:
        """What is known of such searches of a field."""
        accounts = self._accounts
        if not accounts:
            return uncorrected

        def correction(share: float) -> Correction:
            account = accounts.get(kind_of(field_name, recall, ef, share))
            return NO_CORRECTION if account is None else account.correction

        return correction

    def is_eager(self, kind: Kind) -> bool:
        """Whether more has to be known of a kind soon."""
        account = self._accounts.get(kind)
        return account is None or account.eager > 0

    def record(self, kind: Kind, missed: float, expected: float) -> None:
        """Take in one sample.

        Parameters
        ----------
        missed
            Share of the right hits that a search did not find.
        expected
            The share that the calibration expects searches of this breadth to miss.
        """
        with self._lock:
            account = self._accounts.get(kind)
            if account is None:
                # Replaced, so that whoever looks one up needs no lock.
                account = _Account()
                self._accounts = {**self._accounts, kind: account}
            account.samples.append((missed, max(expected, 1e-4)))
            account.seen += 1
            account.total += 1
            account.eager = max(0, account.eager - 1)
            if abs(missed - account.correction.measured * expected) > _SURPRISE:
                account.eager = min(account.eager + _EAGER_MORE, _EAGER_MOST)
            _forget_contradicted(account)
            if account.seen >= _SAMPLES_MIN and account.seen % _RENEWED_EVERY == 0:
                ratio, error = _ratio(account)
                applied = ratio if ratio > 1.0 else min(1.0, ratio + error)
                applied = min(max(applied, _APPLIED_MIN), APPLIED_MAX) if self._corrects else 1.0
                account.correction = Correction(_rounded(applied, math.ceil), _rounded(ratio, round))
                self.version += 1

    def live(self) -> Sequence[LiveRecall]:
        """What is known of each kind, by field, recall and share."""
        with self._lock:
            return tuple(_told(kind, account) for kind, account in sorted(self._accounts.items()))


def _weighted(account: _Account) -> tuple[AnyArray, AnyArray]:
    """The samples, (n, 2), and their weights, (n,)."""
    samples = np.array(account.samples)
    half_life = max(_HALF_LIFE_MIN, account.seen / 3)
    return samples, 0.5 ** (np.arange(samples.shape[0])[::-1] / half_life)


def _ratio(account: _Account) -> tuple[float, float]:
    """How many times as much is missed as expected, and the standard error of that."""
    samples, weights = _weighted(account)
    total = float(weights.sum())
    mean = float(weights @ samples[:, 1]) / total
    ratio = (float(weights @ samples[:, 0]) + _PRIOR * mean) / ((total + _PRIOR) * mean)
    spread = samples[:, 0] - ratio * samples[:, 1]
    error = math.sqrt(float((weights**2) @ spread**2)) / total
    return ratio, max(error, mean / (total + _PRIOR)) / mean


def _forget_contradicted(account: _Account) -> None:
    """Keep only the newest samples where the others say something else."""
    if len(account.samples) < 2 * _NEWEST:
        return
    samples = np.array(account.samples)
    older, newest = samples[:-_NEWEST], samples[-_NEWEST:]
    ratio = float(older[:, 0].sum() / older[:, 1].sum())
    spread = older[:, 0] - ratio * older[:, 1]
    difference = float((newest[:, 0] - ratio * newest[:, 1]).mean())
    error = max(float(spread.std()), 0.05) * math.sqrt(1 / _NEWEST + 1 / older.shape[0])
    if abs(difference) > _CONTRADICTION * error:
        account.samples = deque(list(account.samples)[-_NEWEST:], maxlen=_SAMPLES_KEPT)
        account.seen = _NEWEST
        account.eager = _EAGER_MOST


def _rounded(ratio: float, whole: Callable[[float], int]) -> float:
    return float(2.0 ** (whole(_STEPS * math.log2(max(ratio, _MEASURED_MIN))) / _STEPS))


def _told(kind: Kind, account: _Account) -> LiveRecall:
    samples, _ = _weighted(account)
    ratio, error = _ratio(account)
    now = float(samples[-_NEWEST:, 1].mean())
    low, middle, high = (min(max(1.0 - now * (ratio + side * _Z95 * error), 0.0), 1.0) for side in (1, 0, -1))
    return LiveRecall(kind.field, kind.recall, kind.share, middle, low, high, account.total, account.correction.applied)
