"""Connections: who cannot be reached is named, calls end in time, and a closed or inherited connection says so."""

import asyncio
import socket
import threading
import time

import pytest

from tests.service.running import serving
from tests.service.scripted import ScriptedDatabase
from vecdb.client import connect, connect_async
from vecdb.client import connection as connection_module
from vecdb.errors import Cancelled, DeadlineExceeded, FailedPrecondition, InvalidArgument, Unavailable, VecdbError
from vecdb.version import __version__


@pytest.fixture
def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return f"127.0.0.1:{port}"


def test_nobody_there(free_address):
    started = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        connect(free_address)
    assert time.monotonic() - started < 10
    assert (caught.value.field, caught.value.value) == ("address", free_address)
    assert free_address in caught.value.message


def test_nobody_there_for_asyncio(free_address, loop):
    async def enter():
        async with connect_async(free_address):
            raise AssertionError("nobody is there")

    with pytest.raises(Unavailable) as caught:
        loop.run(enter())
    assert (caught.value.field, caught.value.value) == ("address", free_address)


def test_somebody_else_there():
    """A server that accepts and never speaks."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(VecdbError) as caught:
            connect(address, timeout_s=1.0)
    assert isinstance(caught.value, DeadlineExceeded | Unavailable)
    assert address in caught.value.message


@pytest.mark.parametrize(
    "address", ["", "localhost", "localhost:", ":1", "localhost:x", "http://h:1", "h:70000", 5, None]
)
def test_what_is_no_address(address):
    for make in (connect, connect_async):
        with pytest.raises(InvalidArgument) as caught:
            make(address)
        assert caught.value.field == "address"


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf"), "5", True, None])
def test_what_is_no_timeout(timeout_s):
    for make in (connect, connect_async):
        with pytest.raises(InvalidArgument) as caught:
            make("localhost:1", timeout_s=timeout_s)
        assert caught.value.field == "timeout_s"


def test_it_knows_the_servers_version(loop):
    with serving(loop, ScriptedDatabase()) as server:
        with connect(server.address) as database:
            assert database.server_version == __version__

        async def ask():
            async with connect_async(server.address) as database:
                return await database.server_version()

        assert loop.run(ask()) == __version__


@pytest.mark.parametrize("verb", ["count", "search", "scroll_page"])
def test_calls_end_in_time(loop, verb):
    database, release = ScriptedDatabase(), threading.Event()
    arguments = {"count": (), "search": ([1, 2], 1_000), "scroll_page": ()}[verb]
    with serving(loop, database) as server, connect(server.address, timeout_s=0.5) as remote:
        docs = remote.collection("docs")
        database.before = lambda _verb: release.wait(30)
        if verb == "scroll_page":
            database.held["docs"].run_scroll = lambda _request: release.wait(30)
        with pytest.raises(DeadlineExceeded) as caught:
            getattr(docs, verb)(*arguments)
        assert (caught.value.field, caught.value.limit) == ("timeout_s", "0.5 s")
        release.set()


def test_wait_indexed_brings_its_own_time(loop):
    database = ScriptedDatabase()
    with serving(loop, database) as server, connect(server.address, timeout_s=0.3) as remote:
        docs = remote.collection("docs")
        database.before = lambda _verb: time.sleep(0.6)
        docs.wait_indexed(timeout_s=10)


def test_a_call_under_way_ends_when_the_connection_closes(loop):
    database, release = ScriptedDatabase(), threading.Event()
    failures = []
    with serving(loop, database) as server:
        remote = connect(server.address)
        docs = remote.collection("docs")
        database.before = lambda _verb: release.wait(30)

        def count():
            try:
                docs.count()
            except VecdbError as error:
                failures.append(error)

        thread = threading.Thread(target=count)
        thread.start()
        while not database.threads:
            time.sleep(0.01)
        remote.close()
        thread.join(10)
        release.set()
    assert isinstance(failures[0], Cancelled | FailedPrecondition)


def test_a_forked_child_must_connect_again(loop, monkeypatch):
    with serving(loop, ScriptedDatabase()) as server, connect(server.address) as remote:
        with monkeypatch.context() as patch:
            patch.setattr(connection_module.os, "getpid", lambda: -1)
            with pytest.raises(FailedPrecondition, match="fork"):
                remote.collections()
        assert list(remote.collections()) == ["docs"]


def test_many_threads_share_a_connection(loop):
    with serving(loop, ScriptedDatabase()) as server, connect(server.address) as remote:
        docs = remote.collection("docs")
        failures = []

        def work(number):
            try:
                for at in range(20):
                    docs.upsert([number * 100 + at], [[number, at]])
                    assert docs.search([number, at], k=1).ids == [number * 100 + at]
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert failures == []
        assert docs.count() == 160


def test_many_tasks_share_a_connection(loop):
    async def work(address):
        async with connect_async(address) as remote:
            docs = await remote.collection("docs")
            await asyncio.gather(*(docs.upsert([number], [[number, 1]]) for number in range(50)))
            found = await asyncio.gather(*(docs.search([number, 1], k=1) for number in range(50)))
            assert [hits.ids for hits in found] == [[number] for number in range(50)]
            return await docs.count()

    with serving(loop, ScriptedDatabase()) as server:
        assert loop.run(work(server.address)) == 50


def test_representations(loop):
    with serving(loop, ScriptedDatabase()) as server:
        with connect(server.address) as remote:
            assert repr(remote.collection("docs")) == "<RemoteCollection 'docs' (vector: 2-d l2)>"

        async def show():
            async with connect_async(server.address) as remote:
                return repr(remote), repr(await remote.collection("docs"))

        database, collection = loop.run(show())
        assert database == f"<AsyncRemoteDatabase {server.address}>"
        assert collection == "<AsyncCollection 'docs' (vector: 2-d l2)>"
