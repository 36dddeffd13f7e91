"""Sessions of the clients: the same answers with fewer calls, and a call of its own wherever there is no session."""

import asyncio
import gc
import threading
import time

import grpc
import numpy as np
import pytest

from tests.service.running import serving
from tests.service.scripted import ScriptedDatabase
from vecdb.client import attempts, connect, connect_async, sessions
from vecdb.client.sessions import SESSIONS_MAX
from vecdb.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, Unavailable

POINTS = 60


class Unknown(grpc.aio.ServerInterceptor):
    """A server, or a proxy before it, that knows of no sessions."""

    def __init__(self) -> None:
        self.tries = 0

    async def intercept_service(self, continuation, details):
        if details.method.endswith("/SearchSession"):
            self.tries += 1
            return None
        return await continuation(details)


class Swallowing(grpc.aio.ServerInterceptor):
    """Something on the way that accepts sessions and passes nothing on: the first ``swallowed`` of them."""

    def __init__(self, swallowed: int) -> None:
        self.swallowed = swallowed
        self.tries = 0

    async def intercept_service(self, continuation, details):
        handler = await continuation(details)
        if not details.method.endswith("/SearchSession"):
            return handler
        self.tries += 1
        if self.tries > self.swallowed:
            return handler

        async def silent(_requests, _context):
            await asyncio.sleep(60)

        return grpc.stream_stream_rpc_method_handler(silent)


@pytest.fixture
def database(rng):
    database = ScriptedDatabase()
    database.collection("docs").upsert(range(POINTS), rng.normal(size=(POINTS, 2)))
    # It outlives its servers.
    database.close = lambda: None
    return database


@pytest.fixture
def server(loop, database):
    with serving(loop, database) as found:
        yield found


def counted(server):
    """Searches that the server answered."""
    return server.measures.methods["Search"].requests


def wait_counted(server, searches):
    """Until the server has counted so many: it answers first, and counts then."""
    deadline = time.monotonic() + 10
    while counted(server) < searches and time.monotonic() < deadline:
        time.sleep(0.01)


def test_searches_one_after_the_other_share_a_session(server, database, rng):
    docs = database.collection("docs")
    with connect(server.address) as remote:
        there = remote.collection("docs")
        for query in rng.normal(size=(30, 2)):
            assert there.search(query, k=5).ids == docs.search(query, k=5).ids
        assert len(remote._sessions._idle) == 1
    wait_counted(server, 30)
    assert counted(server) == 30


def test_threads_have_a_session_each_and_their_own_answers(server, database, rng):
    docs = database.collection("docs")
    queries = rng.normal(size=(8, 25, 2))
    with connect(server.address) as remote:
        there = remote.collection("docs")
        found = [[] for _ in queries]

        def ask(number):
            found[number] = [there.search(query, k=4).ids for query in queries[number]]

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(queries))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 1 <= len(remote._sessions._idle) <= min(len(queries), SESSIONS_MAX)
    assert found == [[docs.search(query, k=4).ids for query in some] for some in queries]


def test_an_error_is_that_of_the_engine_and_the_session_goes_on(server):
    with connect(server.address) as remote:
        there = remote.collection("docs")
        there.search([1, 2])
        with pytest.raises(InvalidArgument) as caught:
            there.search([1, 2, 3])
        assert (caught.value.field, caught.value.limit) == ("query", "dim = 2")
        there.search([1, 2])
        assert len(remote._sessions._idle) == 1


def test_a_large_search_goes_by_a_call_of_its_own(server):
    with connect(server.address) as remote:
        there = remote.collection("docs")
        there.search_batch(np.ones((500, 2)), k=10)
        there.search([1, 2], with_vectors=True)
        assert remote._sessions._idle == []


def test_a_server_without_sessions_is_asked_by_calls(loop, database, monkeypatch):
    unknown = Unknown()
    with serving(loop, database, interceptors=(unknown,)) as server:
        with connect(server.address) as remote:
            there = remote.collection("docs")
            for _ in range(5):
                assert len(there.search([1, 2], k=3)) == 3
            assert unknown.tries == 1
            monkeypatch.setattr(remote._sessions, "_refused_until", 0.0)
            assert len(there.search([1, 2], k=3)) == 3
            assert unknown.tries == 2

        async def ask():
            async with connect_async(server.address) as remote:
                there = await remote.collection("docs")
                for _ in range(5):
                    assert len(await there.search([1, 2], k=3)) == 3

        loop.run(ask())
        assert unknown.tries == 3


def test_a_session_that_is_swallowed_on_the_way_costs_one_search(loop, database, monkeypatch):
    monkeypatch.setattr(sessions, "_TICK_S", 0.02)
    swallowing = Swallowing(1)
    with serving(loop, database, interceptors=(swallowing,)) as server:
        with connect(server.address, timeout_s=1.0) as remote:
            there = remote.collection("docs")
            with pytest.raises(DeadlineExceeded):
                there.search([1, 2])
            for _ in range(3):
                assert len(there.search([1, 2], k=3)) == 3
            assert swallowing.tries == 1
        swallowing.tries = 0

        async def ask():
            async with connect_async(server.address, timeout_s=1.0) as remote:
                there = await remote.collection("docs")
                with pytest.raises(DeadlineExceeded):
                    await there.search([1, 2])
                for _ in range(3):
                    assert len(await there.search([1, 2], k=3)) == 3
                assert swallowing.tries == 1
                monkeypatch.setattr(remote._session, "_refused_until", 0.0)
                assert len(await there.search([1, 2], k=3)) == 3
                assert swallowing.tries == 2

        loop.run(ask())


def test_a_session_that_falls_silent_is_given_up(loop, database):
    """Not the whole connection is gone, and the session had answered before."""
    silent = threading.Event()

    async def ask(server):
        async with connect_async(server.address, timeout_s=0.5) as remote:
            there = await remote.collection("docs")
            await there.search([1, 2])
            stream = remote._session._stream
            deliver = remote._session.deliver
            remote._session.deliver = lambda _reply: silent.set()
            with pytest.raises(DeadlineExceeded):
                await there.search([1, 2])
            assert silent.is_set()
            assert remote._session._stream is not stream
            remote._session.deliver = deliver
            assert len(await there.search([1, 2], k=3)) == 3

    with serving(loop, database) as server:
        loop.run(ask(server))


def test_idle_sessions_take_no_place_from_other_calls(loop, database):
    with serving(loop, database, streams_max=1) as server, connect(server.address, timeout_s=5.0) as remote:
        there = remote.collection("docs")
        start = threading.Barrier(6)

        def ask():
            start.wait()
            for _ in range(20):
                there.search([1, 2])

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert there.count() == POINTS


def test_a_thread_that_cannot_start_costs_no_search(server, monkeypatch):
    with connect(server.address) as remote:
        there = remote.collection("docs")

        start = threading.Thread.start

        def refuse(self):
            # The server is in this process too; its threads are no business of the client's.
            if self.name.startswith("vecdb-sessions"):
                refused.append(self.name)
                raise RuntimeError("can't start new thread")
            start(self)

        refused = []
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            assert len(there.search([1, 2], k=3)) == 3
        assert len(refused) == 1
        assert len(there.search([1, 2], k=3)) == 3


def test_connections_that_nobody_closed_leave_nothing_behind(server, loop):
    def search():
        connect(server.address).collection("docs").search([1, 2])

    async def search_async():
        remote = connect_async(server.address)
        await (await remote.collection("docs")).search([1, 2])

    async def tasks():
        gc.collect()
        await asyncio.sleep(0.05)
        return [each for each in asyncio.all_tasks() if "_read" in repr(each) and "aio_session" in repr(each)]

    search()
    loop.run(search_async())
    ended = lambda: server.measures.methods["SearchSession"].requests  # noqa: E731
    for _ in range(5):
        search()
        loop.run(search_async())
    deadline = time.monotonic() + 10
    while (ended() < 12 or loop.run(tasks())) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.02)
    assert ended() == 12
    assert loop.run(tasks()) == []
    deadline = time.monotonic() + 10
    while any("vecdb-sessions" in each.name for each in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [each.name for each in threading.enumerate() if "vecdb-sessions" in each.name]


def test_a_server_with_no_session_left_is_asked_by_calls(loop, database):
    with serving(loop, database, sessions_max=1) as server, connect(server.address) as first:
        first.collection("docs").search([1, 2])
        with connect(server.address) as second:
            for _ in range(3):
                assert len(second.collection("docs").search([1, 2], k=3)) == 3
            assert second._sessions._idle == []


def test_a_server_that_came_back_is_found_again(loop, database, rng):
    """The idle sessions are those of a server that is gone."""
    with serving(loop, database) as server:
        address = server.address
        remote = connect(address)
        there = remote.collection("docs")
        before = there.search([1, 2], k=3).ids
    with pytest.raises(Unavailable):
        there.search([1, 2])
    with serving(loop, database, address=address):
        assert there.search([1, 2], k=3).ids == before
        assert there.search([1, 2], k=3).ids == before
        assert len(remote._sessions._idle) == 1
        remote.close()


def test_a_server_that_came_back_is_found_again_from_asyncio(loop, database):
    remote = None

    async def ask(address):
        nonlocal remote
        if remote is None:
            remote = connect_async(address)
        there = await remote.collection("docs")
        return [hits.ids for hits in await asyncio.gather(*(there.search([1, 2], k=3) for _ in range(20)))]

    with serving(loop, database) as server:
        address = server.address
        before = loop.run(ask(address))
    with pytest.raises(Unavailable):
        loop.run(ask(address))
    with serving(loop, database, address=address):
        assert loop.run(ask(address)) == before
        assert loop.run(ask(address)) == before
        loop.run(remote.close())


def test_a_server_that_stops_meanwhile_fails_no_search(loop, database, monkeypatch):
    """What it had read it answers; the rest is sent again, to whoever serves there then."""
    monkeypatch.setattr(attempts, "_DELAY_S", 1.0)
    first = serving(loop, database)
    server = first.__enter__()
    address = server.address
    failures, done = [], threading.Event()

    def ask():
        with connect(address) as remote:
            there = remote.collection("docs")
            while not done.is_set():
                try:
                    assert len(there.search([1, 2], k=3)) == 3
                except Unavailable as error:
                    failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    loop.run(server.stop())
    with serving(loop, database, address=address) as again:
        wait_counted(again, 50)
        done.set()
        for thread in threads:
            thread.join()
        assert counted(again) >= 50
    loop.run(server.join())
    assert failures == []


@pytest.mark.parametrize("timeout_s", [0.3, 2.0])
def test_a_server_that_says_nothing_is_waited_for_as_long_as_said(loop, database, timeout_s):
    release = threading.Event()
    database.before = lambda _verb: release.wait(30)
    with serving(loop, database) as server:
        with connect(server.address, timeout_s=timeout_s) as remote:
            there = remote.collection("docs")
            start = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                there.search([1, 2])
            assert timeout_s <= time.monotonic() - start < timeout_s + 5

        async def ask():
            async with connect_async(server.address, timeout_s=timeout_s) as remote:
                there = await remote.collection("docs")
                with pytest.raises(DeadlineExceeded):
                    await there.search([1, 2])

        loop.run(ask())
        release.set()


def test_a_server_that_is_gone_without_a_word_does_not_hold_a_thread(loop, database, monkeypatch):
    """The server never gets to its own deadline: the client ends the session."""
    monkeypatch.setattr(sessions, "_TICK_S", 0.02)
    frozen = threading.Event()
    with serving(loop, database) as server, connect(server.address, timeout_s=1.0) as remote:
        there = remote.collection("docs")
        there.search([1, 2])
        loop.loop.call_soon_threadsafe(frozen.wait, 30)
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            there.search([1, 2])
        took_s = time.monotonic() - start
        frozen.set()
        assert 0.9 < took_s < 10
        assert len(there.search([1, 2], k=3)) == 3


def test_all_searches_of_an_event_loop_share_one_session(server, database, loop, rng):
    docs = database.collection("docs")
    queries = rng.normal(size=(300, 2))

    async def ask():
        async with connect_async(server.address) as remote:
            there = await remote.collection("docs")
            return [hits.ids for hits in await asyncio.gather(*(there.search(query, k=4) for query in queries))]

    found = loop.run(ask())
    assert found == [docs.search(query, k=4).ids for query in queries]
    deadline = time.monotonic() + 10
    while not server.measures.methods["SearchSession"].requests and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.measures.methods["SearchSession"].requests == 1


def test_one_that_is_cancelled_leaves_the_others_their_answers(server, database, loop, rng):
    docs = database.collection("docs")
    queries = rng.normal(size=(60, 2))

    async def ask():
        async with connect_async(server.address) as remote:
            there = await remote.collection("docs")
            tasks = [asyncio.create_task(there.search(query, k=4)) for query in queries]
            await asyncio.sleep(0)
            for task in tasks[::3]:
                task.cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

    found = loop.run(ask())
    for number, (query, hits) in enumerate(zip(queries, found, strict=True)):
        if number % 3 == 0:
            assert isinstance(hits, asyncio.CancelledError)
        else:
            assert hits.ids == docs.search(query, k=4).ids


def test_a_closed_connection_refuses(server, loop):
    remote = connect(server.address)
    there = remote.collection("docs")
    there.search([1, 2])
    remote.close()
    with pytest.raises(FailedPrecondition):
        there.search([1, 2])

    async def ask():
        remote = connect_async(server.address)
        there = await remote.collection("docs")
        await there.search([1, 2])
        waiting = asyncio.create_task(there.search([1, 2]))
        await asyncio.sleep(0)
        await remote.close()
        with pytest.raises((FailedPrecondition, Unavailable)):
            await waiting
        with pytest.raises(FailedPrecondition):
            await there.search([1, 2])

    loop.run(ask())
