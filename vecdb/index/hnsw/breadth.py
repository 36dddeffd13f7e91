"""How broad a beam a wanted recall takes, before an index has been calibrated on its own data.

The figures are fitted to a hard set (100,000 sentence embeddings of 384 dimensions, local intrinsic dimension 23), so
that easier sets reach more than is asked.
"""

from __future__ import annotations

EF_MIN = 16
EF_MAX = 100_000

_BASE = 38
_STEPS = ((0.80, 0.4), (0.90, 0.6), (0.95, 1.1), (0.98, 2.2), (0.99, 3.5), (0.995, 6.0), (1.0, 20.0))
"""(recall@k, ef as a multiple of ``k + _BASE``), rising."""


def ef_for_recall(k: int, recall: float, selectivity: float = 1.0) -> int:
    """Width of the beam that gives ``recall`` at ``k`` when a share ``selectivity`` of the rows is allowed.

    Parameters
    ----------
    k
        Results wanted, at least 1.
    recall
        Mean recall@k wanted, above 0 and up to 1; 1 means as near to exact as a graph gets.
    selectivity
        Share of the rows that are allowed, above 0 and up to 1.

    Returns
    -------
    ef, from ``max(k, EF_MIN)`` to ``EF_MAX``.
    """
    factor = _STEPS[-1][1]
    before = (0.0, _STEPS[0][1])
    for at, multiple in _STEPS:
        if recall <= at:
            share = (recall - before[0]) / (at - before[0])
            factor = before[1] + share * (multiple - before[1])
            break
        before = (at, multiple)
    ef = int(factor * (k + _BASE) / max(selectivity, 1e-6)) + 1
    return min(max(ef, k, EF_MIN), EF_MAX)
