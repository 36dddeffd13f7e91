"""Costs of searches: what proved short is short until it stays long, and what was never seen is not."""

import pytest

from tests.service.calling import search_message
from vecdb.service.costs import SearchCosts

MS = 0.001


@pytest.fixture
def costs():
    return SearchCosts(2 * MS)


def filtered():
    message = search_message()
    message.where.text = "a = 1"
    return message


def test_a_kind_never_seen_is_not_short(costs):
    assert not costs.is_short(search_message())
    costs.record(search_message(), 1 * MS, 1)
    assert costs.is_short(search_message())
    for other in (search_message(ef=99), search_message(recall=0.5), search_message(k=50)):
        assert not costs.is_short(other)


def test_what_waits_for_a_write_or_filters_or_is_long_never_is(costs):
    for message in (search_message(read_after_seq=3), filtered(), search_message(k=101)):
        for _ in range(10):
            costs.record(message, 0.1 * MS, 1)
        assert not costs.is_short(message)


def test_the_cost_is_that_of_one_query(costs):
    costs.record(search_message(), 16 * MS, 16)
    assert costs.is_short(search_message())
    costs.record(search_message(), 0.0, 0)
    assert costs.is_short(search_message())


def test_one_interruption_is_forgiven_and_staying_long_is_not(costs):
    for _ in range(10):
        costs.record(search_message(), 1 * MS, 1)
    costs.record(search_message(), 500 * MS, 1)
    assert costs.is_short(search_message())
    for _ in range(10):
        costs.record(search_message(), 500 * MS, 1)
    assert not costs.is_short(search_message())
    for _ in range(60):
        costs.record(search_message(), 1 * MS, 1)
    assert costs.is_short(search_message())


def test_kinds_are_forgotten_rather_than_kept_without_end(costs, monkeypatch):
    monkeypatch.setattr("vecdb.service.costs.KINDS_MAX", 10)
    for ef in range(1, 100):
        costs.record(search_message(ef=ef), 1 * MS, 1)
        assert costs.is_short(search_message(ef=ef))
    assert sum(costs.is_short(search_message(ef=ef)) for ef in range(1, 100)) <= 10
