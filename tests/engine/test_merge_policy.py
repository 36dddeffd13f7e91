"""Which segments are merged: the policy is a function of sizes, and always comes to an end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vecdb.engine.merge_policy import GraphState, MergePolicy, SegmentSize

POLICY = MergePolicy(fanout=4, dead_share_max=0.2, tier_bytes_first=1_000, size_bytes_max=100_000)


def sized(*live_bytes: int) -> list[SegmentSize]:
    return [SegmentSize(number, each, each, each) for number, each in enumerate(live_bytes, 1)]


@st.composite
def segments(draw: st.DrawFn) -> list[SegmentSize]:
    each = st.tuples(st.integers(0, 9_000), st.floats(0, 1), st.sampled_from(GraphState))
    return [
        SegmentSize(number, count, int(count * share), 10 * count + 100, graph)
        for number, (count, share, graph) in enumerate(draw(st.lists(each, max_size=30)))
    ]


def merged(sizes: list[SegmentSize], group: tuple[int, ...]) -> list[SegmentSize]:
    chosen = [each for each in sizes if each.segment_id in group]
    live = sum(each.live_rows for each in chosen)
    number = max(each.segment_id for each in sizes) + 1
    left = [each for each in sizes if each.segment_id not in group]
    graph = GraphState.BUILT if any(each.graph is not GraphState.NONE for each in chosen) else GraphState.NONE
    return [*left, SegmentSize(number, live, live, 10 * live + 100, graph)] if live else left


def test_as_many_segments_of_a_tier_as_the_fanout_are_merged() -> None:
    assert POLICY.next_merge(sized(900, 10, 400)) == ()
    assert POLICY.next_merge(sized(900, 10, 400, 500)) == (2, 3, 4, 1)
    assert POLICY.next_merge(sized(900, 10, 3_000, 400, 500)) == (2, 4, 5, 1)
    assert POLICY.next_merge(sized(3_000, 2_000, 3_999, 1_001, 900)) == (4, 2, 1, 3)


def test_segments_that_are_too_large_together_stay() -> None:
    assert POLICY.next_merge(sized(60_000, 60_001, 60_002, 60_003)) == ()


def test_the_segment_with_most_dead_rows_is_rewritten() -> None:
    assert POLICY.next_merge([SegmentSize(1, 100, 81, 900), SegmentSize(2, 100, 85, 900)]) == ()
    assert POLICY.next_merge([SegmentSize(1, 100, 79, 900), SegmentSize(2, 100, 50, 900)]) == (2,)


def test_segments_without_a_live_row_go_first() -> None:
    assert POLICY.next_merge([*sized(1, 2, 3, 4), SegmentSize(9, 10, 0, 900)]) == (9,)


def with_graph(number: int, live_bytes: int, graph: GraphState) -> SegmentSize:
    return SegmentSize(number, live_bytes, live_bytes, live_bytes, graph)


def test_what_waits_for_a_graph_joins_the_smallest_one_in_proportion() -> None:
    built, waiting, none = GraphState.BUILT, GraphState.WAITING, GraphState.NONE
    assert POLICY.next_merge([with_graph(1, 800, built), with_graph(2, 200, waiting)]) == (1, 2)
    assert POLICY.next_merge([with_graph(1, 801, built), with_graph(2, 200, waiting)]) == ()
    assert POLICY.next_merge([with_graph(1, 199, built), with_graph(2, 800, waiting)]) == ()
    assert POLICY.next_merge([with_graph(1, 800, built), with_graph(2, 200, none)]) == ()
    assert POLICY.next_merge([with_graph(1, 800, built), with_graph(2, 200, built)]) == ()
    assert POLICY.next_merge([with_graph(1, 800, waiting), with_graph(2, 200, waiting)]) == ()
    two = [with_graph(1, 800, built), with_graph(2, 300, built)]
    assert POLICY.next_merge([*two, with_graph(3, 250, waiting)]) == (2, 3)
    # Together they are enough for it, or as many of them as are not too much.
    assert POLICY.next_merge([with_graph(1, 800, built), *(with_graph(n, 100, waiting) for n in (2, 3))]) == (1, 2, 3)
    assert POLICY.next_merge([with_graph(1, 100, built), *(with_graph(n, 300, waiting) for n in (2, 3))]) == (1, 2)
    # One that does not fit keeps no other away.
    misfit = with_graph(2, 90_000, waiting)
    assert POLICY.next_merge([with_graph(1, 100, built), misfit, with_graph(3, 90, waiting)]) == (1, 3)


def test_nothing_joins_what_would_become_too_large() -> None:
    assert POLICY.next_merge([with_graph(1, 60_000, GraphState.BUILT), with_graph(2, 40_001, GraphState.WAITING)]) == ()


@given(segments())
def test_merging_what_is_due_comes_to_an_end(sizes: list[SegmentSize]) -> None:
    steps = 0
    while group := POLICY.next_merge(sizes):
        assert len(set(group)) == len(group)
        sizes = merged(sizes, group)
        steps += 1
        assert steps < 100
    assert all(each.dead_share <= POLICY.dead_share_max for each in sizes)


@given(segments())
def test_a_full_merge_leaves_no_dead_row_and_few_segments(sizes: list[SegmentSize]) -> None:
    groups = POLICY.full_merge(sizes)
    assert len({number for group in groups for number in group}) == sum(map(len, groups))
    for group in groups:
        live_bytes = [each.live_bytes for each in sizes if each.segment_id in group]
        assert len(group) == 1 or sum(live_bytes) <= POLICY.size_bytes_max
        sizes = merged(sizes, group)
    assert all(each.live_rows == each.rows for each in sizes)
    halves = sorted(each.live_bytes for each in sizes)[:2]
    # The sizes are estimates: those of merged segments differ a little from the sum of their parts.
    assert len(halves) < 2 or sum(halves) > POLICY.size_bytes_max * 0.9 or not any(len(group) > 1 for group in groups)
