"""Remembered filters: the same bitmap again, bounded in bytes over all parts, the least recently used go first."""

import json

import pytest

from vecdb.filter import Field
from vecdb.query import matching
from vecdb.query.matching import ENTRY_BYTES, Matchers

ROWS = 640
ONE = ROWS // 8 + ENTRY_BYTES


class Part:
    """Something that a weak reference can be made to."""


@pytest.fixture
def evaluated(monkeypatch):
    """The filters that were evaluated."""
    seen = []
    evaluate = matching.PartMatcher.evaluate

    def noting(self, where, rows):
        seen.append(where)
        return evaluate(self, where, rows)

    monkeypatch.setattr(matching.PartMatcher, "evaluate", noting)
    return seen


PAYLOADS = [json.dumps({"n": n}).encode() for n in range(ROWS)]


def test_a_filter_is_evaluated_once_for_each_part(evaluated):
    matchers, parts = Matchers(), [Part(), Part()]
    for _ in range(3):
        for part in parts:
            assert matchers.matching(part, PAYLOADS, Field("n") < 5, ROWS).rows().tolist() == [0, 1, 2, 3, 4]
    assert len(evaluated) == 2
    assert matchers.size_bytes == 2 * ONE
    # A memtable grows: more rows are another question.
    assert matchers.matching(parts[0], PAYLOADS, Field("n") < 5, 3).rows().tolist() == [0, 1, 2]
    assert len(evaluated) == 3


def test_the_least_recently_used_of_all_parts_go_first(evaluated):
    matchers, one, other = Matchers(3 * ONE), Part(), Part()
    ask = lambda part, n: matchers.matching(part, PAYLOADS, Field("n") < n, ROWS)  # noqa: E731
    ask(one, 1), ask(other, 2), ask(one, 3), ask(one, 1)
    ask(other, 4)
    assert matchers.size_bytes == 3 * ONE
    evaluated.clear()
    ask(one, 1), ask(one, 3), ask(other, 4)
    assert evaluated == []
    ask(other, 2)
    assert len(evaluated) == 1


def test_what_was_remembered_goes_with_its_part():
    matchers, part = Matchers(), Part()
    matchers.matching(part, PAYLOADS, Field("n") < 1, ROWS)
    del part
    assert matchers.size_bytes == 0


def test_one_bitmap_larger_than_all_room_is_given_but_not_kept(evaluated):
    matchers, part = Matchers(ONE - 1), Part()
    for _ in range(2):
        assert matchers.matching(part, PAYLOADS, Field("n") < 2, ROWS).count() == 2
    assert len(evaluated) == 2
    assert matchers.size_bytes == 0
