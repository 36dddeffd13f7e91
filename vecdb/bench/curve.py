"""Recall/QPS curves: which points of a sweep count, and what a curve says at a given recall.

A figure is interpolated only between two measured points of one engine; nothing is read beyond the ends of a curve.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One measured point: mean recall, and queries a second."""

    recall: float
    qps: float


@dataclass(frozen=True, slots=True)
class QpsAtRecall:
    """What a curve says at a recall.

    Attributes
    ----------
    qps
        Queries a second.
    lower_bound
        The recall lies below the whole curve: ``qps`` is that of the fastest point, which has a higher recall. An
        effort that gives exactly this recall might be faster, but was not measured.
    """

    qps: float
    lower_bound: bool = False


def pareto(points: Iterable[CurvePoint]) -> list[CurvePoint]:
    """The points that no other point beats in both recall and QPS, by ascending recall (so by descending QPS)."""
    kept: list[CurvePoint] = []
    for point in sorted(points, key=lambda each: (-each.recall, -each.qps)):
        if not kept or point.qps > kept[-1].qps:
            kept.append(point)
    return kept[::-1]


def qps_at_recall(points: Iterable[CurvePoint], recall: float) -> QpsAtRecall | None:
    """QPS at ``recall``: the logarithm of QPS, linear in recall, between the two neighbouring Pareto points.

    Returns
    -------
    QpsAtRecall or None
        ``None`` where no point reaches ``recall``. Where every point has more, the fastest one, as a lower bound.
    """
    curve = pareto(points)
    if not curve or curve[-1].recall < recall:
        return None
    if recall <= curve[0].recall:
        return QpsAtRecall(curve[0].qps, lower_bound=recall < curve[0].recall)
    above = next(at for at, point in enumerate(curve) if point.recall >= recall)
    left, right = curve[above - 1], curve[above]
    share = (recall - left.recall) / (right.recall - left.recall)
    return QpsAtRecall(math.exp(math.log(left.qps) * (1 - share) + math.log(right.qps) * share))


def median(values: Sequence[float]) -> float:
    """The middle value; of an even number of values, the mean of the two in the middle."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
