"""Remembered filters: the same bitmap again, bounded in bytes for each part, the least recently used go first."""

import json

import pytest

from vecdb.filter import Field
from vecdb.query import matching
from vecdb.query.matching import ENTRY_BYTES, Matchers

ROWS = 640
ONE = ROWS // 8 + ENTRY_BYTES
PAYLOADS = [json.dumps({"n": n}).encode() for n in range(ROWS)]


class Part:
    """Something that a weak reference can be made to."""


@pytest.fixture
def evaluated(monkeypatch):
    """The filters that were evaluated."""
    seen = []
    evaluate = matching.matches

    def noting(where, columns, rows):
        seen.append(where)
        return evaluate(where, columns, rows)

    monkeypatch.setattr(matching, "matches", noting)
    return seen


def test_a_filter_is_evaluated_once_for_each_part(evaluated):
    matchers, parts = Matchers(), [Part(), Part()]
    for _ in range(3):
        for part in parts:
            assert matchers.matching(part, PAYLOADS, Field("n") < 5, ROWS).rows().tolist() == [0, 1, 2, 3, 4]
    assert len(evaluated) == 2
    # A memtable grows: more rows are another question.
    assert matchers.matching(parts[0], PAYLOADS, Field("n") < 5, 3).rows().tolist() == [0, 1, 2]
    assert len(evaluated) == 3


def test_the_least_recently_used_go_first(evaluated, monkeypatch):
    monkeypatch.setattr(matching, "BITMAPS_BYTES_MAX", 3 * ONE)
    matchers, part = Matchers(), Part()
    for n in (1, 2, 3, 1, 4):
        matchers.matching(part, PAYLOADS, Field("n") < n, ROWS)
    evaluated.clear()
    for n in (1, 3, 4):
        assert matchers.matching(part, PAYLOADS, Field("n") < n, ROWS).count() == n
    assert evaluated == []
    matchers.matching(part, PAYLOADS, Field("n") < 2, ROWS)
    assert len(evaluated) == 1


def test_one_bitmap_larger_than_all_room_is_given_but_not_kept(evaluated, monkeypatch):
    monkeypatch.setattr(matching, "BITMAPS_BYTES_MAX", ONE - 1)
    matchers, part = Matchers(), Part()
    for _ in range(2):
        assert matchers.matching(part, PAYLOADS, Field("n") < 2, ROWS).count() == 2
    assert len(evaluated) == 2


def test_no_more_filters_are_kept_than_the_limit_and_what_is_forgotten_makes_room(evaluated, monkeypatch):
    monkeypatch.setattr(matching, "FILTERS_MAX", 3)
    matchers, part = Matchers(), Part()
    for n in range(10):
        matchers.matching(part, PAYLOADS, Field("n") == n, ROWS)
    kept = [each for each in matchers.remembered() if each.size_bytes == ONE]
    assert len(kept) == 3
    kept[0].drop()
    kept[0].drop()
    monkeypatch.setattr(matching, "BITMAPS_BYTES_MAX", 3 * ONE)
    matchers.matching(part, PAYLOADS, Field("n") == 20, ROWS)
    assert sum(each.size_bytes == ONE for each in matchers.remembered()) == 3
