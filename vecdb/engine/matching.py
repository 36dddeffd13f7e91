"""Which rows of each part of a view a request may see: live, and matching its filter."""

from __future__ import annotations

from vecdb.bitmap import Bitmap
from vecdb.engine.state import CollectionState
from vecdb.engine.view import PartView, SegmentView, View
from vecdb.filter import Filter, parse_filter
from vecdb.requests import FilterText, Where
from vecdb.types import PointId


def bind(where: Where) -> Filter | None:
    """The filter with its text parsed and its parameters bound.

    Raises
    ------
    InvalidArgument
        With the position of the first wrong character, or the name of the wrong parameter.
    """
    if isinstance(where, FilterText):
        return parse_filter(where.text, where.parameters)
    return where


def allowed_rows(state: CollectionState, part: PartView, where: Filter | None) -> Bitmap:
    """The rows of a part that are live and match."""
    live = part.live.bitmap()
    if where is None or live.count() == 0:
        return live
    if isinstance(part, SegmentView):
        matching = state.matchers.matching(part.reader, part.reader.payloads, where, part.rows)
    else:
        matching = state.matchers.matching(part.memtable, part.memtable.payloads, where, part.rows)
    # The columns of one part may take as much memory as all of them together are allowed.
    state.resources.budget.note_built()
    state.resources.budget.settle()
    return matching if live.count() == part.rows else live & matching


def count_matching(state: CollectionState, view: View, where: Filter | None) -> int:
    """How many points of a view match."""
    return sum(allowed_rows(state, part, where).count() for part in view.parts)


def matching_ids(state: CollectionState, where: Filter) -> list[PointId]:
    """The ids of all points that match, as of now."""
    return [part.id_at(row) for part in state.view.parts for row in allowed_rows(state, part, where).rows().tolist()]
