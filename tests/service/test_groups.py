"""Grouped searches: those that wait together are searched together, each with the answer and the error of its own."""

import asyncio
import time

import numpy as np
import pytest

from tests.service.scripted import ScriptedCollection, ScriptedDatabase
from vecdb.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted, VecdbError
from vecdb.requests import SearchRequest
from vecdb.schema import CollectionSchema
from vecdb.service.costs import GROUP_MAX, SearchCosts
from vecdb.service.deadlines import Deadline
from vecdb.service.groups import SearchGroups
from vecdb.v1.vecdb_pb2 import SearchReply
from vecdb.wire.replies import decode_hits
from vecdb.wire.requests import Target, encode_search

encode = SearchReply.SerializeToString
FAR = Deadline(float("inf"), 30.0)
SHORT_S = 0.0002
"""So short that as many go together as ever."""


def message(query, k=3, *, collection="docs", collection_id="", **arguments):
    return encode_search(Target(collection, collection_id), SearchRequest(np.float32([query]), k, **arguments))


class Costs(SearchCosts):
    """Remembers what it is told, and goes on as if nothing were known."""

    def __init__(self):
        super().__init__(SHORT_S)
        self.told = []

    def record(self, request, seconds, queries):
        self.told.append(queries)

    def forget(self, request):
        self.told.append("forget")


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


def together(database, messages, *, cancelled=(), deadlines=None, encoders=None, costs=None):
    """Replies and errors of searches that wait together; what was told of them."""
    costs = costs or Costs()

    async def ask():
        groups = SearchGroups(database, costs)

        async def answered(number):
            deadline = deadlines[number] if deadlines else FAR
            return await groups.answer(messages[number], encoders[number] if encoders else encode, deadline)

        tasks = [asyncio.create_task(answered(number)) for number in range(len(messages))]
        if cancelled:
            # One turn, in which all begin to wait.
            await asyncio.sleep(0)
        for at in cancelled:
            tasks[at].cancel()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)

    return asyncio.run(ask()), costs.told if isinstance(costs, Costs) else None


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


def test_a_group_of_dearer_searches_is_smaller(database, searches):
    costs = SearchCosts(1.0)
    for _ in range(100):
        costs.record(message([1, 1]), 0.00124, 1)
    together(database, [message([1, number]) for number in range(6)], costs=costs)
    assert searches[0] == 4
    assert sum(searches) == 6


def test_searches_of_different_kinds_stay_apart(database, searches):
    kinds = [
        message([1, 2], **different)
        for different in (
            {}, {"k": 4}, {"ef": 9}, {"ef": 8}, {"recall": 0.5}, {"with_payloads": False}, {"with_vectors": True},
            {"field": ""},
        )
    ]  # fmt: skip
    replies, _ = together(database, [*kinds, *kinds])
    assert searches == [2] * len(kinds)
    rankings = [SearchReply.FromString(reply).rankings[0] for reply in replies]
    assert [len(each.ids.integers) for each in rankings] == [3, 4, 3, 3, 3, 3, 3, 3] * 2
    assert [len(each.payloads) for each in rankings] == [3, 4, 3, 3, 3, 0, 3, 3] * 2
    assert [len(each.vectors) for each in rankings] == [0, 0, 0, 0, 0, 0, 1, 0] * 2


def test_collections_stay_apart(database):
    other = ScriptedCollection(database, "other", CollectionSchema.single(2, "l2"))
    database.held["other"] = other
    other.upsert(range(100, 105), np.eye(2, dtype=np.float32)[[0, 1, 0, 1, 0]])
    docs = database.held["docs"]
    replies, _ = together(
        database,
        [
            message([1, 2]),
            message([1, 2], collection="other"),
            message([1, 2], collection_id=docs.collection_id),
            message([1, 2], collection_id="of a collection that is gone"),
        ],
    )
    alone = docs.search([1, 2], k=3).ids
    assert ids_of(replies[0]) == ids_of(replies[2]) == alone
    assert min(ids_of(replies[1])) >= 100
    assert replies[3] is None


def test_what_the_engine_cannot_answer_at_once_is_handed_back(database, searches):
    database.run_search_at_once = lambda *_: None
    replies, told = together(database, [message([number, 1]) for number in range(3)])
    assert replies == [None] * 3
    assert told == []


def test_one_that_fails_does_not_fail_the_others(database):
    bad = [message([1, np.nan]), message([1, 2, 3]), message([1, 2], k=0)]
    replies, told = together(database, [message([0, 1]), *bad, message([1, 0])])
    assert [ids_of(replies[at]) for at in (0, 4)] == [
        database.collection("docs").search(query, k=3).ids for query in ([0, 1], [1, 0])
    ]
    # A thread tells what is wrong with them; what was asked wrongly says nothing about what a search costs.
    assert replies[1:3] == [None] * 2
    assert isinstance(replies[3], InvalidArgument)
    assert told == [2]


@pytest.mark.parametrize("odd", [[np.nan, 1], [np.inf, 1], [0, 0], [1e-25, 0], [1e25, 0]])
def test_a_query_that_needs_care_goes_alone(database, searches, odd):
    together(database, [message(query) for query in ([1, 0], odd, [0, 1], odd)])
    assert searches[:2] == [2, 1]
    assert set(searches[1:]) == {1}


def test_what_fails_is_left_to_a_thread(database):
    def fail(_request):
        raise VecdbError("broken")

    database.held["docs"].run_search = fail
    replies, told = together(database, [message([1, 2]), message([2, 1])])
    assert replies == [None, None]
    assert told == ["forget"]


def test_a_batch_that_held_the_loop_for_long_is_no_longer_known_to_be_short(database, monkeypatch):
    monkeypatch.setattr("vecdb.service.groups.HELD_S_OUTRAGEOUS", 0.02)
    database.before = lambda _verb: time.sleep(0.03)
    replies, told = together(database, [message([1, 2]), message([2, 1])])
    assert [type(each) for each in replies] == [bytes, bytes]
    assert told == ["forget"]


def test_a_reply_that_cannot_be_sent_is_not_searched_again(database, searches):
    def refuse(_reply):
        raise ResourceExhausted("too large")

    replies, told = together(database, [message([1, 2]), message([2, 1])], encoders=[refuse, encode])
    assert isinstance(replies[0], ResourceExhausted)
    assert len(ids_of(replies[1])) == 3
    assert searches == [2]
    assert told == ["forget"]


def test_what_no_future_takes_reaches_its_caller(database):
    def stop(_reply):
        raise StopIteration

    replies, _ = together(
        database, [message([1, 2]), message([2, 1]), message([1, 1], k=4)], encoders=[stop, encode, encode]
    )
    assert isinstance(replies[0], RuntimeError)
    assert len(ids_of(replies[1])) == 3
    assert len(ids_of(replies[2])) == 4


def test_whoever_gave_up_is_passed_over(database, searches):
    replies, _ = together(database, [message([number, 1]) for number in range(3)], cancelled=[1])
    assert isinstance(replies[1], asyncio.CancelledError)
    assert len(ids_of(replies[0])) == len(ids_of(replies[2])) == 3
    assert searches == [2]


def test_a_search_whose_time_is_up_is_not_made(database, searches):
    deadlines = [Deadline(0.0, 0.1, "timeout_s", "its caller's timeout"), FAR]
    replies, _ = together(database, [message([number, 1]) for number in range(2)], deadlines=deadlines)
    assert isinstance(replies[0], DeadlineExceeded)
    assert replies[0].field == "timeout_s"
    assert "its caller's timeout" in str(replies[0])
    assert len(ids_of(replies[1])) == 3
    assert searches == [1]


def test_a_result_that_comes_too_late_is_none(database, searches):
    # The loop's clock decides; a search that takes this long was expected to be short.
    database.before = lambda _verb: time.sleep(0.05)
    soon = Deadline(time.monotonic() + 0.04, 0.04)
    deadlines = [soon, FAR, soon]
    messages = [message([1, 1]), message([2, 1]), message([1, 1], k=4)]
    replies, _ = together(database, messages, deadlines=deadlines)
    assert [type(each) for each in replies] == [DeadlineExceeded, bytes, DeadlineExceeded]
    assert searches == [2], "the last was late before its turn came"


def test_between_two_batches_the_loop_does_other_things(database, searches):
    turns = []

    class Noting(Costs):
        def record(self, request, seconds, queries):
            turns.append(request.k)

    async def ask():
        loop = asyncio.get_running_loop()
        groups = SearchGroups(database, Noting())

        def turn():
            turns.append("turn")
            if len(turns) < 5:
                loop.call_soon(turn)

        # A full batch of one kind, then another kind: what is left of the first goes behind it.
        many = [groups.answer(message([number, 1]), encode, FAR) for number in range(GROUP_MAX + 1)]
        other = groups.answer(message([1, 1], k=4), encode, FAR)
        loop.call_soon(turn)
        await asyncio.gather(*many, other)

    asyncio.run(ask())
    assert searches == [GROUP_MAX, 1, 1]
    assert turns[:5] == [3, "turn", 4, "turn", 3]


def test_searches_one_after_the_other_are_each_answered(database, searches):
    async def ask():
        groups = SearchGroups(database, Costs())
        return [await groups.answer(message([number, 1]), encode, FAR) for number in range(5)]

    assert [len(ids_of(reply)) for reply in asyncio.run(ask())] == [3] * 5
    assert searches == [1] * 5
