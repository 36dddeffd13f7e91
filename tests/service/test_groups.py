"""Grouped searches: alone in the event loop, together in a thread; each with the answer and the error of its own."""

import asyncio
import threading

import numpy as np
import pytest

from tests.service.scripted import ScriptedDatabase
from vecdb.errors import InvalidArgument, VecdbError
from vecdb.requests import SearchRequest
from vecdb.service import groups as groups_module
from vecdb.service.groups import GROUP_MAX, SearchGroups
from vecdb.v1.vecdb_pb2 import SearchReply
from vecdb.wire.replies import decode_hits
from vecdb.wire.requests import Target, encode_search

encode = SearchReply.SerializeToString


def message(query, k=3, **arguments):
    return encode_search(Target("docs"), SearchRequest(np.float32([query]), k, **arguments))


@pytest.fixture
def database(rng):
    database = ScriptedDatabase()
    database.collection("docs").upsert(range(50), rng.normal(size=(50, 2)))
    return database


@pytest.fixture
def searches(database):
    """Each search of the engine: how many queries it had, and in which thread it ran."""
    seen = []
    docs = database.held["docs"]
    search = docs.run_search

    def noting(request):
        seen.append((request.queries.shape[0], threading.current_thread().name))
        return search(request)

    docs.run_search = noting
    return seen


@pytest.fixture
def threaded(monkeypatch):
    """Every search goes to the thread."""
    monkeypatch.setattr(groups_module, "MEMORY", 1)


async def answered(groups, search):
    return await groups.answer(search, encode)


def together(database, messages, cancelled=()):
    """Replies and errors of searches that all wait while the thread is busy with another one; what was told of them."""
    told = []

    async def ask():
        groups = SearchGroups(database, lambda _request, seconds, queries: told.append(queries))
        held, release = threading.Event(), threading.Event()

        def hold(_verb):
            held.set()
            assert release.wait(30)

        database.before = hold
        first = groups.answer(message([5, 5], k=1), encode)
        while not held.is_set():
            await asyncio.sleep(0.001)
        database.before = lambda _verb: None
        tasks = [asyncio.create_task(answered(groups, each)) for each in messages]
        await asyncio.sleep(0)
        for at in cancelled:
            tasks[at].cancel()
        release.set()
        await first
        replies = await asyncio.gather(*tasks, return_exceptions=True)
        groups.close()
        groups.join()
        return replies

    return asyncio.run(ask()), told[1:]


def ids_of(reply):
    return decode_hits(SearchReply.FromString(reply).rankings[0], with_payloads=True, with_vectors=False).ids


def test_searches_of_one_kind_go_together_and_get_their_own_answers(database, searches, threaded, rng):
    queries = rng.normal(size=(10, 2))
    alone = [database.collection("docs").search(query, k=3).ids for query in queries]
    searches.clear()
    replies, told = together(database, [message(query) for query in queries])
    assert [count for count, _ in searches] == [1, 10]
    assert told == [10]
    assert [ids_of(reply) for reply in replies] == alone


def test_a_group_has_a_limit(database, searches, threaded):
    together(database, [message([1, number]) for number in range(GROUP_MAX + 3)])
    assert [count for count, _ in searches] == [1, GROUP_MAX, 3]


def test_searches_of_different_kinds_stay_apart(database, searches, threaded):
    kinds = [
        message([1, 2], **different)
        for different in (
            {}, {"k": 4}, {"ef": 9}, {"ef": 8}, {"recall": 0.5}, {"with_payloads": False}, {"field": ""},
        )
    ]  # fmt: skip
    replies, _ = together(database, [*kinds, *kinds])
    assert [count for count, _ in searches] == [1] + [2] * len(kinds)
    assert [len(SearchReply.FromString(reply).rankings[0].ids.integers) for reply in replies] == [
        3,
        4,
        3,
        3,
        3,
        3,
        3,
    ] * 2


def test_one_that_fails_does_not_fail_the_others(database, threaded):
    bad = [message([1, np.nan]), message([1, 2, 3]), message([1, 2], k=0)]
    replies, told = together(database, [message([0, 1]), *bad, message([1, 0])])
    assert [ids_of(replies[at]) for at in (0, 4)] == [
        database.collection("docs").search(query, k=3).ids for query in ([0, 1], [1, 0])
    ]
    assert [type(each) for each in replies[1:4]] == [InvalidArgument] * 3
    assert [each.field for each in replies[1:4]] == ["query", "query", "k"]
    assert told == []


def test_a_failure_of_all_reaches_all(database, searches, threaded):
    docs = database.held["docs"]
    search = docs.run_search

    def fail(request):
        if request.k == 3:
            raise VecdbError("broken")
        return search(request)

    docs.run_search = fail
    replies, told = together(database, [message([1, 2]), message([2, 1])])
    assert [str(each) for each in replies] == ["broken", "broken"]
    assert told == []


def test_whoever_gave_up_is_passed_over(database, threaded):
    replies, _ = together(database, [message([number, 1]) for number in range(3)], cancelled=[1])
    assert isinstance(replies[1], asyncio.CancelledError)
    assert len(ids_of(replies[0])) == len(ids_of(replies[2])) == 3


def test_searches_that_never_meet_stay_in_the_event_loop(database, searches, monkeypatch):
    monkeypatch.setattr(groups_module, "MEMORY", 5)

    async def ask():
        groups = SearchGroups(database, lambda *_: None)
        for number in range(20):
            await groups.answer(message([number, 1]), encode)
        groups.close()
        groups.join()

    asyncio.run(ask())
    here = threading.current_thread().name
    assert [name == here for _, name in searches] == [True, True, True, True, False] * 4


def test_searches_that_met_go_to_the_thread_until_they_meet_no_more(database, searches, monkeypatch):
    monkeypatch.setattr(groups_module, "MEMORY", 3)

    async def ask():
        groups = SearchGroups(database, lambda *_: None)
        await asyncio.gather(*(groups.answer(message([number, 1]), encode) for number in range(6)))
        met = len(searches)
        for number in range(6):
            await groups.answer(message([number, 1]), encode)
        groups.close()
        groups.join()
        return met

    met = asyncio.run(ask())
    here = threading.current_thread().name
    assert [name == here for _, name in searches[:2]] == [True, True]
    assert here not in {name for _, name in searches[2 : met + 3]}
    assert [name == here for _, name in searches[met + 3 :]] == [True, True, False]


def test_closing_a_group_that_never_searched(database):
    groups = SearchGroups(database, lambda *_: None)
    groups.close()
    groups.join()
