"""Advice: sentences that say what would make a search better or cheaper, computed from what one search did.

What another request would do is not known here: it is asked from the planner, through ``replan``, so that whatever
estimates recall and chooses strategies for a search does so for the advice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from vecdb.explanation import Explanation, percent
from vecdb.query.execute import PlannedPart, recall_expected
from vecdb.query.plan import Strategy
from vecdb.requests import EF_MAX

Replan: TypeAlias = Callable[[float, int | None], Sequence[PlannedPart]]
"""How the parts would be searched for another recall, or with another ef in its place."""

RECALL_HIGH = 0.99
RECALL_GAIN_MIN = 0.005
"""A larger ef that gains less is not worth a sentence."""
EF_GROWTH = 1.5
SEGMENTS_MANY = 8


def advice_on(told: Explanation, *, filter_share: float | None, is_current: bool, replan: Replan) -> Iterator[str]:
    """What may be said of a search.

    Parameters
    ----------
    told
        All else about it.
    filter_share
        Share of the live rows that match its filter; ``None`` where it has none.
    is_current
        Whether it searched what the collection holds now, not a snapshot.
    """
    searched = [part for part in told.parts if part.strategy != Strategy.NOTHING.value]
    if filter_share is not None and filter_share < 1.0:
        yield f"the filter allows {percent(filter_share)} of the rows: {_done(told.strategy)}"
    walked = [part for part in searched if part.strategy == Strategy.GRAPH.value]
    if walked:
        yield from _on_ef(told, max(part.ef for part in walked), replan)
    elif any(each.plan.strategy is Strategy.GRAPH for each in replan(RECALL_HIGH, None)):
        yield f"recall={RECALL_HIGH} walks the graph instead of comparing all rows"
    for part in searched:
        if part.fell_back:
            yield f"the graph of {part.name} found too few of the allowed rows, so their codes were scanned too"
    if is_current and told.unindexed_rows:
        some = "1 row is" if told.unindexed_rows == 1 else f"{told.unindexed_rows:,} rows are"
        yield f"{some} not indexed yet: wait_indexed()"
    segments = sum(part.segment_id is not None for part in searched)
    if segments >= SEGMENTS_MANY:
        yield f"{segments} segments were searched one by one: compact() makes fewer of them"
    if told.open_s > told.total_s / 2:
        spent = percent(told.open_s / told.total_s)
        yield f"{spent} of the time went into opening files, which the next search finds open"


def _done(strategy: str) -> str:
    """What was done with the rows that the filter left."""
    return {
        Strategy.NOTHING.value: "nothing to search",
        Strategy.EXACT.value: "all of them compared exactly",
        Strategy.SCAN.value: "all of them scanned by code, the nearest compared exactly",
    }.get(strategy, f"searched by {strategy}")


def _on_ef(told: Explanation, ef: int, replan: Replan) -> Iterator[str]:
    """What a larger ef would gain, or a smaller one save; nothing where a walk ends before its ef is used up."""
    beams = [each.plan.beam for each in replan(told.recall or RECALL_HIGH, told.ef)]
    if any(beam is not None and beam.slack for beam in beams):
        return
    larger = min(EF_MAX, round(ef * EF_GROWTH))
    gained = recall_expected(replan(RECALL_HIGH, larger))
    if gained - told.recall_estimate >= RECALL_GAIN_MIN:
        yield f"ef {ef:,} -> {larger:,} gives a recall of about {gained:.3g}"
    elif told.ef is not None and told.recall_estimate > RECALL_HIGH:
        enough = smaller = ef
        while smaller > told.k and recall_expected(replan(RECALL_HIGH, smaller)) >= RECALL_HIGH:
            enough, smaller = smaller, round(smaller / EF_GROWTH)
        if enough < ef:
            yield f"ef {ef:,} -> {enough:,} still gives a recall of about {RECALL_HIGH}"
