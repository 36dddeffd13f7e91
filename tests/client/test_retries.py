"""Retries: only where no server is known to have answered, at most three, and a write is applied once all the same."""

import inspect

import grpc
import pytest

from tests.service.running import serving
from tests.service.scripted import ScriptedDatabase
from vecdb.api import Collection, Database
from vecdb.client import attempts, connect, connect_async
from vecdb.client.aio import AsyncCollection, AsyncRemoteDatabase
from vecdb.errors import AlreadyExists, ResourceExhausted, Unavailable
from vecdb.v1 import vecdb_pb2


class LosingReplies(grpc.aio.ServerInterceptor):
    """Answers, and then loses the reply: what a caller sees when a connection breaks at the worst moment."""

    def __init__(self) -> None:
        self.losses = 0
        self.status = grpc.StatusCode.UNAVAILABLE
        self.requests: list[tuple[str, bytes]] = []

    async def intercept_service(self, continuation, details):
        handler = await continuation(details)
        method = details.method.rpartition("/")[2]

        async def answer(data, context):
            self.requests.append((method, data))
            reply = await handler.unary_unary(data, context)
            if self.losses:
                self.losses -= 1
                await context.abort(self.status, "lost")
            return reply

        return grpc.unary_unary_rpc_method_handler(answer) if handler.unary_unary else handler


@pytest.fixture
def losing():
    return LosingReplies()


@pytest.fixture
def database():
    return ScriptedDatabase()


@pytest.fixture
def server(loop, database, losing):
    with serving(loop, database, interceptors=(losing,)) as found:
        yield found


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(attempts, "_DELAY_S", 0.001)


@pytest.mark.parametrize("status", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
def test_a_write_whose_reply_is_lost_is_sent_again_and_applied_once(server, losing, database, status):
    losing.status = status
    with connect(server.address) as remote:
        docs = remote.collection("docs")
        losing.losses = 2
        written = docs.upsert([1], [[1, 2]])
        docs.upsert([2], [[1, 2]])
    assert (written.seq, written.upserted) == (1, 1)
    assert database.held["docs"].seq == 2
    sent = [vecdb_pb2.WriteRequest.FromString(data) for method, data in losing.requests if method == "Write"]
    identities = [each.request_id for each in sent]
    assert len(identities) == 4
    assert identities[0] == identities[1] == identities[2] != identities[3]
    assert all(len(each) == 32 for each in identities)


def test_for_asyncio_too(server, losing, database, loop):
    async def write():
        async with connect_async(server.address) as remote:
            docs = await remote.collection("docs")
            losing.losses = 2
            return await docs.upsert([1], [[1, 2]], request_id="mine")

    assert loop.run(write()).seq == 1
    assert database.held["docs"].seq == 1
    sent = [vecdb_pb2.WriteRequest.FromString(data) for method, data in losing.requests if method == "Write"]
    assert [each.request_id for each in sent] == ["mine"] * 3


def test_three_attempts_and_no_more(server, losing):
    with connect(server.address) as remote:
        docs = remote.collection("docs")
        losing.losses = 3
        losing.requests.clear()
        with pytest.raises(Unavailable) as caught:
            docs.count()
        assert (caught.value.field, caught.value.value) == ("address", server.address)
        assert len(losing.requests) == 3


def test_other_failures_of_the_transport_are_final(server, losing):
    losing.status = grpc.StatusCode.RESOURCE_EXHAUSTED
    with connect(server.address) as remote:
        docs = remote.collection("docs")
        losing.losses = 1
        losing.requests.clear()
        with pytest.raises(ResourceExhausted, match="lost"):
            docs.count()
        assert len(losing.requests) == 1


def test_an_error_of_the_engine_is_final(server, losing, database):
    def stopped(_verb):
        raise Unavailable("the writer of this collection stopped", field="collection")

    database.before = stopped
    with connect(server.address) as remote:
        docs = remote.collection("docs")
        losing.requests.clear()
        with pytest.raises(Unavailable) as caught:
            docs.upsert([1], [[1, 2]])
    assert (caught.value.message, caught.value.field) == ("the writer of this collection stopped", "collection")
    assert len(losing.requests) == 1


def test_making_and_dropping_a_collection_is_not_repeated(server, losing):
    """A repetition would find the work of the first attempt and report an error that is none."""
    with connect(server.address) as remote:
        for call in (lambda: remote.create_collection("new", dim=1), lambda: remote.drop_collection("new")):
            losing.requests.clear()
            losing.losses = 1
            with pytest.raises(Unavailable):
                call()
            assert len(losing.requests) == 1
        losing.losses = 1
        assert remote.create_collection("other", dim=1, exist_ok=True).name == "other"
        with pytest.raises(AlreadyExists):
            remote.create_collection("other", dim=1)


def test_no_attempt_is_begun_that_could_not_end_in_time(server, losing, monkeypatch):
    monkeypatch.setattr(attempts, "_DELAY_S", 60.0)
    with connect(server.address, timeout_s=5.0) as remote:
        docs = remote.collection("docs")
        losing.losses = 1
        losing.requests.clear()
        with pytest.raises(Unavailable):
            docs.count()
        assert len(losing.requests) == 1


def test_a_server_that_restarts_is_found_again(loop, monkeypatch):
    monkeypatch.setattr(attempts, "_DELAY_S", 0.2)
    with serving(loop, ScriptedDatabase()) as first:
        remote = connect(first.address)
    try:
        with serving(loop, ScriptedDatabase(), address=first.address):
            assert list(remote.collections()) == ["docs"]
    finally:
        remote.close()


@pytest.mark.parametrize(
    ("one", "other"), [(Collection, AsyncCollection), (Database, AsyncRemoteDatabase)], ids=["collection", "database"]
)
def test_the_verbs_for_asyncio_take_the_same_arguments(one, other):
    public = {
        name: method
        for name, method in vars(one).items()
        if inspect.isfunction(method) and not name.startswith(("_", "run_"))
    }
    assert public
    for name, method in public.items():
        mine = inspect.signature(getattr(other, name)).parameters
        theirs = inspect.signature(method).parameters
        assert {key: (each.kind, each.default, each.annotation) for key, each in mine.items()} == {
            key: (each.kind, each.default, each.annotation) for key, each in theirs.items()
        }, name
