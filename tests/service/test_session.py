"""Sessions: many searches over one call, each with the answer that a call of its own would get."""

import queue
import threading
import time

import grpc
import numpy as np
import pytest

from tests.service.calling import failure_of, search_message, stub_of
from tests.service.running import serving
from tests.service.scripted import ScriptedDatabase
from vecdb.errors import DeadlineExceeded, InvalidArgument, NotFound, ResourceExhausted
from vecdb.requests import SearchRequest
from vecdb.v1 import vecdb_pb2
from vecdb.wire.errors import decode_error
from vecdb.wire.requests import Target, encode_search

POINTS = 40


@pytest.fixture
def database(rng):
    database = ScriptedDatabase()
    database.collection("docs").upsert(range(POINTS), rng.normal(size=(POINTS, 2)))
    return database


@pytest.fixture
def server(loop, database):
    with serving(loop, database) as found:
        yield found


@pytest.fixture
def stub(server):
    with stub_of(server.address) as found:
        yield found


def asked(*searches, first=1, timeout_s=0.0):
    """Searches as one message, numbered from ``first``."""
    return vecdb_pb2.SearchSessionRequest(
        searches=[
            vecdb_pb2.SessionSearch(number=number, search=search, timeout_s=timeout_s)
            for number, search in enumerate(searches, first)
        ]
    )


def answers_of(replies):
    """The answers in a stream of replies by number; no number comes twice."""
    answers = [answer for reply in replies for answer in reply.answers]
    found = {answer.number: answer for answer in answers}
    assert len(found) == len(answers)
    return found


def error_of(answer):
    assert answer.WhichOneof("outcome") == "error"
    return decode_error(answer.error.code, answer.error.message, answer.error.details)


def random_searches(rng, count):
    return [
        encode_search(Target("docs"), SearchRequest(np.float32(rng.normal(size=(1, 2))), int(rng.integers(1, 9))))
        for _ in range(count)
    ]


@pytest.mark.parametrize("size", [1, 7, 200])
def test_every_search_gets_the_answer_it_would_get_alone(stub, rng, size):
    searches = random_searches(rng, 200)
    messages = [asked(*searches[at : at + size], first=at) for at in range(0, len(searches), size)]
    answers = answers_of(stub.SearchSession(iter(messages), timeout=60))
    assert sorted(answers) == list(range(200))
    for number, search in enumerate(searches):
        assert answers[number].reply == stub.Search(search)


def test_one_that_fails_is_answered_with_its_error_and_the_session_goes_on(stub):
    bad = [search_message(dim=3), search_message(k=0), vecdb_pb2.SearchRequest(), search_message()]
    bad[3].collection = "none"
    messages = [asked(search_message(), *bad), asked(search_message(), first=9)]
    answers = answers_of(stub.SearchSession(iter(messages), timeout=60))
    assert sorted(answers) == [1, 2, 3, 4, 5, 9]
    assert answers[1].reply == answers[9].reply == stub.Search(search_message())
    for number, search in enumerate(bad, 2):
        code, error = failure_of(lambda search=search: stub.Search(search))
        found = error_of(answers[number])
        assert answers[number].error.code == code.value[0]
        assert (type(found), str(found)) == (type(error), str(error))
    assert isinstance(error_of(answers[2]), InvalidArgument)
    assert isinstance(error_of(answers[5]), NotFound)


def test_an_answer_does_not_wait_for_one_that_takes_long(stub, database):
    release = threading.Event()
    held = threading.Event()

    def hold(_verb):
        if not held.is_set():
            held.set()
            release.wait(30)

    database.before = hold
    requests = queue.SimpleQueue()
    replies = stub.SearchSession(iter(requests.get, None), timeout=60)
    requests.put(asked(search_message(), first=1))
    assert held.wait(10)
    requests.put(asked(search_message(), first=2))
    assert [answer.number for answer in next(replies).answers] == [2]
    release.set()
    assert [answer.number for answer in next(replies).answers] == [1]
    requests.put(None)
    assert list(replies) == []


def test_the_time_that_a_search_allows_is_kept(stub, database):
    release = threading.Event()
    database.before = lambda _verb: release.wait(30)
    start = time.monotonic()
    answers = answers_of(stub.SearchSession(iter([asked(search_message(), timeout_s=0.2)]), timeout=60))
    took_s = time.monotonic() - start
    release.set()
    error = error_of(answers[1])
    assert (type(error), error.field) == (DeadlineExceeded, "timeout_s")
    assert 0.2 <= took_s < 20


def test_the_servers_own_deadline_is_kept_too(loop, database):
    release = threading.Event()
    database.before = lambda _verb: release.wait(30)
    with serving(loop, database, deadline_s=0.2) as server, stub_of(server.address) as stub:
        for timeout_s in (0.0, 25.0):
            answers = answers_of(stub.SearchSession(iter([asked(search_message(), timeout_s=timeout_s)]), timeout=60))
            assert error_of(answers[1]).field == "deadline_s"
        release.set()


def test_searches_of_sessions_count_as_requests(loop, database):
    release = threading.Event()
    database.before = lambda _verb: release.wait(30)
    with serving(loop, database, requests_max=4) as server, stub_of(server.address) as stub:
        requests = queue.SimpleQueue()
        replies = stub.SearchSession(iter(requests.get, None), timeout=60)
        # A session alone takes at most half of the places.
        requests.put(asked(*[search_message() for _ in range(5)]))
        waiting = [stub.Search.future(search_message(), timeout=60) for _ in range(2)]
        deadline = time.monotonic() + 10
        while server.measures.running < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.measures.running == 4
        code, error = failure_of(lambda: stub.Search(search_message()))
        assert (code, type(error), error.field) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhausted, "requests",
        )  # fmt: skip
        other = answers_of(stub.SearchSession(iter([asked(search_message())]), timeout=60))
        assert (type(error_of(other[1])), error_of(other[1]).field) == (ResourceExhausted, "requests")
        release.set()
        requests.put(None)
        assert sorted(answers_of(replies)) == [1, 2, 3, 4, 5]
        assert all(each.result(timeout=10) for each in waiting)
        measures = server.measures.methods
        assert (measures["Search"].requests, measures["Search"].errors["RESOURCE_EXHAUSTED"]) == (9, 2)


def test_a_caller_that_does_not_read_its_answers_loses_its_session(loop, database):
    database.collection("docs").upsert(range(POINTS), np.ones((POINTS, 2)), [{"text": "x" * 500_000}] * POINTS)
    with serving(loop, database, deadline_s=0.5, requests_max=8) as server, stub_of(server.address) as stub:
        requests = queue.SimpleQueue()
        replies = stub.SearchSession(iter(requests.get, None), timeout=60)
        requests.put(asked(*[search_message(k=20) for _ in range(40)]))
        deadline = time.monotonic() + 20
        while not server.measures.methods["SearchSession"].requests and time.monotonic() < deadline:
            time.sleep(0.02)
            # What nobody reads counts as under way: 4 of the 8 at a time.
            assert server.measures.running <= 4
        assert server.measures.methods["SearchSession"].errors == {"CANCELLED": 1}
        assert server.measures.running == 0
        replies.cancel()
        requests.put(None)


@pytest.mark.parametrize(
    ("message", "field"),
    [(asked(*[search_message()] * 1_025), "searches"), (asked(search_message(dim=600_000)), "request")],
)
def test_a_message_that_is_too_large_ends_the_session(stub, message, field):
    code, error = failure_of(lambda: list(stub.SearchSession(iter([message]), timeout=60)))
    assert (code.name, error.field) in {("INVALID_ARGUMENT", "searches"), ("RESOURCE_EXHAUSTED", "request")}
    assert error.field == field


def test_sessions_take_no_place_from_the_requests_of_their_connection(loop, database):
    with serving(loop, database, streams_max=1) as server, stub_of(server.address) as stub:
        requests = queue.SimpleQueue()
        sessions = [stub.SearchSession(iter(requests.get, None), timeout=60) for _ in range(3)]
        assert len(stub.Search(search_message(), timeout=10).rankings) == 1
        for each in sessions:
            each.cancel()
            requests.put(None)


def test_a_session_is_not_read_from_while_enough_of_its_searches_wait(loop, database):
    release = threading.Event()
    running = []

    def hold(_verb):
        running.append(1)
        release.wait(30)

    database.before = hold
    with serving(loop, database, streams_max=4, read_threads=16) as server, stub_of(server.address) as stub:
        requests = queue.SimpleQueue()
        replies = stub.SearchSession(iter(requests.get, None), timeout=60)
        requests.put(asked(*[search_message() for _ in range(12)]))
        deadline = time.monotonic() + 10
        while len(running) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert len(running) == 4
        release.set()
        requests.put(None)
        assert len(answers_of(replies)) == 12


def test_there_are_so_many_sessions_and_no_more(loop, database):
    with serving(loop, database, sessions_max=1) as server, stub_of(server.address) as stub:
        requests = queue.SimpleQueue()
        replies = stub.SearchSession(iter(requests.get, None), timeout=60)
        requests.put(asked(search_message()))
        next(replies)
        code, error = failure_of(lambda: next(stub.SearchSession(iter([asked(search_message())]), timeout=60)))
        assert (code, type(error), error.field) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhausted, "sessions",
        )  # fmt: skip
        requests.put(None)
        assert list(replies) == []
        assert answers_of(stub.SearchSession(iter([asked(search_message())]), timeout=60)).keys() == {1}


def test_a_server_that_stops_ends_idle_sessions_at_once_and_answers_what_it_read(loop, database):
    release = threading.Event()
    held = threading.Event()

    def hold(_verb):
        held.set()
        release.wait(30)

    with serving(loop, database, grace_s=20.0) as server, stub_of(server.address) as stub:
        idle = queue.SimpleQueue()
        idle_replies = stub.SearchSession(iter(idle.get, None), timeout=60)
        idle.put(asked(search_message()))
        next(idle_replies)
        database.before = hold
        busy = queue.SimpleQueue()
        busy_replies = stub.SearchSession(iter(busy.get, None), timeout=60)
        busy.put(asked(search_message(k=6)))
        assert held.wait(10)
        threading.Timer(0.3, release.set).start()
        start = time.monotonic()
        loop.run(server.stop())
        took_s = time.monotonic() - start
        assert list(idle_replies) == []
        assert answers_of(busy_replies).keys() == {1}
        assert 0.2 < took_s < 10
        idle.put(None)
        busy.put(None)


def test_callers_that_go_away_leave_no_session_behind(loop, database):
    with serving(loop, database, sessions_max=3) as server:
        for _ in range(8):
            with stub_of(server.address) as stub:
                requests = queue.SimpleQueue()
                replies = stub.SearchSession(iter(requests.get, None), timeout=60)
                requests.put(asked(search_message()))
                next(replies)
                replies.cancel()
                requests.put(None)
            deadline = time.monotonic() + 10
            while server.measures.methods["SearchSession"].requests < _ + 1 and time.monotonic() < deadline:
                time.sleep(0.01)
        assert server.measures.running == 0
