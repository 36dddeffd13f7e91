"""Explains a search: runs it by the functions that every search goes through, with a clock at each step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter

from vecdb.bitmap import Bitmap
from vecdb.engine.matching import allowed_rows
from vecdb.engine.search import opened_field, plan_search, read_hits
from vecdb.engine.state import CollectionState
from vecdb.engine.view import PartView, SegmentView, View
from vecdb.explanation import Explanation, PartExplanation, share
from vecdb.filter import Filter
from vecdb.index.protocol import IndexAnswer
from vecdb.query.advice import advice_on
from vecdb.query.execute import PlannedPart, SearchablePart, merge_answers, search_part
from vecdb.query.plan import Strategy
from vecdb.requests import SearchRequest


def explain_search(state: CollectionState, view: View, request: SearchRequest, unindexed_rows: int) -> Explanation:
    """Run a search of one query and tell what it did; raises what the search raises."""
    clock = _Clock()
    matching_rows = 0

    def timed_rows(state: CollectionState, part: PartView, where: Filter | None) -> Bitmap:
        nonlocal matching_rows
        if where is None:
            return allowed_rows(state, part, where)
        with clock.running("filter", part):
            allowed = allowed_rows(state, part, where)
        matching_rows += allowed.count()
        return allowed

    def timed_field(segment: SegmentView, name: str) -> SearchablePart:
        with clock.running("open", segment):
            return opened_field(segment, name)

    with clock.running("plan"):
        search = plan_search(state, view, request, timed_rows, timed_field, may_open=False)
    within_s = sum(clock.seconds("filter", part) + clock.seconds("open", part) for part in view.parts)
    unopened = [each for each in search.planned if _lacks_graph(each)]
    if unopened:
        for each in unopened:
            with clock.running("open", search.parts[each.number]):
                _open_index(each)
        with clock.running("plan"):
            search = plan_search(state, view, request)
    plan_s = clock.seconds("plan") - within_s
    answers: list[tuple[IndexAnswer, int]] = []
    for each in search.planned:
        part = search.parts[each.number]
        with clock.running("open", part):
            _open_index(each)
        with clock.running("search", part):
            answers.append(search_part(each, search.queries, request.k))
    with clock.running("merge"):
        ranked = merge_answers(search.planned, answers, search.queries.shape[0], request.k, state.kernels)
    with clock.running("fetch"):
        [hits] = read_hits(state, search, ranked, request, unindexed_rows)
        for position in range(len(hits)):
            hits.payload_bytes(position)
    found = {
        id(search.parts[each.number]): (each, answer) for each, answer in zip(search.planned, answers, strict=True)
    }
    told = Explanation(
        k=request.k,
        recall=request.recall if request.ef is None else None,
        ef=request.ef,
        parts=tuple(_part(part, found.get(id(part)), clock) for part in view.parts if part.rows),
        strategy=hits.strategy,
        recall_estimate=hits.recall_estimate,
        hits_found=len(hits),
        complete=hits.complete,
        unindexed_rows=hits.unindexed_rows,
        plan_s=plan_s,
        merge_s=clock.seconds("merge"),
        fetch_s=clock.seconds("fetch"),
    )

    def replan(recall: float, ef: int | None) -> Sequence[PlannedPart]:
        return plan_search(state, view, replace(request, recall=recall, ef=ef)).planned

    return replace(
        told,
        advice=tuple(
            advice_on(
                told,
                filter_share=None if request.where is None else share(matching_rows, view.live_rows),
                is_current=not request.at,
                replan=replan,
            )
        ),
    )


def _part(part: PartView, found: tuple[PlannedPart, tuple[IndexAnswer, int]] | None, clock: _Clock) -> PartExplanation:
    """What became of one part; ``found`` is ``None`` for one in which there was nothing to find."""
    told = PartExplanation(
        segment_id=part.reader.segment_id if isinstance(part, SegmentView) else None,
        rows=part.rows,
        allowed_rows=0,
        selectivity_estimate=0.0,
        selectivity=0.0,
        strategy=Strategy.NOTHING.value,
        filter_s=clock.seconds("filter", part),
        open_s=clock.seconds("open", part),
        search_s=clock.seconds("search", part),
    )
    if found is None:
        return told
    planned, (answer, fallbacks) = found
    slots = planned.part.slots
    return replace(
        told,
        rows=slots,
        allowed_rows=planned.count,
        # The plan was made for the number of allowed rows, which the filter had given before.
        selectivity_estimate=planned.count / slots,
        selectivity=(slots if planned.allowed is None else planned.allowed.count()) / slots,
        strategy=planned.plan.strategy.value,
        ef=0 if planned.plan.beam is None else planned.plan.beam.ef,
        recall_estimate=planned.plan.recall_estimate,
        distance_computations=answer.distance_computations,
        hops=answer.hops,
        reranked=answer.reranked,
        fell_back=fallbacks > 0,
    )


def _lacks_graph(planned: PlannedPart) -> bool:
    """Whether a part is to be walked, and the plan was made without what its graph knows of recall."""
    return planned.plan.strategy is Strategy.GRAPH and not planned.part.has_open_graph


def _open_index(planned: PlannedPart) -> None:
    """Open and verify what the part is searched on, which is then at hand."""
    match planned.plan.strategy:
        case Strategy.EXACT:
            planned.part.exact  # noqa: B018 - opening is all that is wanted
        case Strategy.SCAN:
            planned.part.scan  # noqa: B018
        case _:
            planned.part.graph  # noqa: B018


class _Clock:
    """Seconds of the stages of one search, and of those of its parts."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, int], float] = {}

    @contextmanager
    def running(self, stage: str, part: PartView | None = None) -> Iterator[None]:
        """Add the time of the block to a stage, of a part or of the search."""
        begun = perf_counter()
        yield
        self._seconds[stage, id(part)] = self.seconds(stage, part) + perf_counter() - begun

    def seconds(self, stage: str, part: PartView | None = None) -> float:
        """Seconds of a stage until now."""
        return self._seconds.get((stage, id(part)), 0.0)
