"""Grouped searches: those that wait together are searched together, each with the answer and the error of its own."""

import asyncio

import numpy as np
import pytest

from tests.service.scripted import ScriptedDatabase
from vecdb.errors import DeadlineExceeded, InvalidArgument, VecdbError
from vecdb.requests import SearchRequest
from vecdb.service.deadlines import Deadline
from vecdb.service.groups import GROUP_MAX, SearchGroups
from vecdb.v1.vecdb_pb2 import SearchReply
from vecdb.wire.replies import decode_hits
from vecdb.wire.requests import Target, encode_search

encode = SearchReply.SerializeToString
FAR = Deadline(30.0)


def message(query, k=3, **arguments):
    return encode_search(Target("docs"), SearchRequest(np.float32([query]), k, **arguments))


@pytest.fixture
def database(rng):
    database = ScriptedDatabase()
    database.collection("docs").upsert(range(50), rng.normal(size=(50, 2)))
    return database


@pytest.fixture
def searches(database):
    """Each search of the engine: how many queries it had."""
    seen = []
    docs = database.held["docs"]
    search = docs.run_search

    def noting(request):
        seen.append(request.queries.shape[0])
        return search(request)

    docs.run_search = noting
    return seen


def together(database, messages, cancelled=(), deadlines=None):
    """Replies and errors of searches that wait together; what was told of them."""
    told = []

    async def ask():
        groups = SearchGroups(database, lambda _request, seconds, queries: told.append(queries))

        async def answered(message, deadline):
            return await groups.answer(message, encode, deadline)

        tasks = [
            asyncio.create_task(answered(each, deadline))
            for each, deadline in zip(messages, deadlines or [FAR] * len(messages), strict=True)
        ]
        if cancelled:
            # One turn, in which all begin to wait.
            await asyncio.sleep(0)
        for at in cancelled:
            tasks[at].cancel()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)

    return asyncio.run(ask()), told


def ids_of(reply):
    return decode_hits(SearchReply.FromString(reply).rankings[0], with_payloads=True, with_vectors=False).ids


def test_searches_of_one_kind_go_together_and_get_their_own_answers(database, searches, rng):
    queries = rng.normal(size=(10, 2))
    alone = [database.collection("docs").search(query, k=3).ids for query in queries]
    searches.clear()
    replies, told = together(database, [message(query) for query in queries])
    assert searches == [10]
    assert told == [10]
    assert [ids_of(reply) for reply in replies] == alone


def test_a_group_has_a_limit(database, searches):
    together(database, [message([1, number]) for number in range(GROUP_MAX + 3)])
    assert searches == [GROUP_MAX, 3]


def test_searches_of_different_kinds_stay_apart(database, searches):
    kinds = [
        message([1, 2], **different)
        for different in (
            {}, {"k": 4}, {"ef": 9}, {"ef": 8}, {"recall": 0.5}, {"with_payloads": False}, {"field": ""},
        )
    ]  # fmt: skip
    replies, _ = together(database, [*kinds, *kinds])
    assert searches == [2] * len(kinds)
    assert [len(SearchReply.FromString(reply).rankings[0].ids.integers) for reply in replies] == [
        3,
        4,
        3,
        3,
        3,
        3,
        3,
    ] * 2


def test_one_that_fails_does_not_fail_the_others(database):
    bad = [message([1, np.nan]), message([1, 2, 3]), message([1, 2], k=0)]
    replies, told = together(database, [message([0, 1]), *bad, message([1, 0])])
    assert [ids_of(replies[at]) for at in (0, 4)] == [
        database.collection("docs").search(query, k=3).ids for query in ([0, 1], [1, 0])
    ]
    assert [type(each) for each in replies[1:4]] == [InvalidArgument] * 3
    assert [each.field for each in replies[1:4]] == ["query", "query", "k"]
    assert told == []


def test_a_failure_of_all_reaches_all(database, searches):
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


def test_whoever_gave_up_is_passed_over(database):
    replies, _ = together(database, [message([number, 1]) for number in range(3)], cancelled=[1])
    assert isinstance(replies[1], asyncio.CancelledError)
    assert len(ids_of(replies[0])) == len(ids_of(replies[2])) == 3


def test_a_search_whose_time_is_up_is_not_made(database, searches):
    deadlines = [Deadline(-1.0, "timeout_s", "its caller's timeout"), FAR]
    replies, _ = together(database, [message([number, 1]) for number in range(2)], deadlines=deadlines)
    assert isinstance(replies[0], DeadlineExceeded)
    assert replies[0].field == "timeout_s"
    assert "its caller's timeout" in str(replies[0])
    assert len(ids_of(replies[1])) == 3
    assert searches == [1]


def test_between_two_batches_the_loop_does_other_things(database, searches):
    turns = []

    async def ask():
        loop = asyncio.get_running_loop()
        groups = SearchGroups(database, lambda *_: turns.append("batch"))

        def turn():
            turns.append("turn")
            if turns.count("batch") < 3:
                loop.call_soon(turn)

        replies = [groups.answer(message([number, 1]), encode, FAR) for number in range(3 * GROUP_MAX)]
        loop.call_soon(turn)
        await asyncio.gather(*replies)

    asyncio.run(ask())
    assert searches == [GROUP_MAX] * 3
    assert turns[:5] == ["batch", "turn", "batch", "turn", "batch"]


def test_searches_one_after_the_other_are_each_answered(database, searches):
    async def ask():
        groups = SearchGroups(database, lambda *_: None)
        return [await groups.answer(message([number, 1]), encode, FAR) for number in range(5)]

    assert [len(ids_of(reply)) for reply in asyncio.run(ask())] == [3] * 5
    assert searches == [1] * 5
