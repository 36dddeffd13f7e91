"""The gate: limits before parsing, errors that say what is wrong and no more, and work where it holds nobody up."""

import logging
import socket
import threading
import time

import grpc
import numpy as np
import pytest

from tests.service.calling import channel_to, failure_of, search_message, stub_of, write_message
from tests.service.running import serving
from tests.service.scripted import ScriptedDatabase
from vecdb.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unimplemented,
)
from vecdb.requests import GetRequest
from vecdb.service import server as server_module
from vecdb.service.options import MESSAGE_BYTES_MAX
from vecdb.v1 import vecdb_pb2
from vecdb.wire.requests import Target, encode_get

COUNT = vecdb_pb2.CountRequest(collection="docs")


@pytest.fixture
def database():
    return ScriptedDatabase()


@pytest.fixture
def server(loop, database):
    with serving(loop, database, deadline_s=20.0) as found:
        yield found


@pytest.fixture
def stub(server):
    with stub_of(server.address) as found:
        yield found


def raw(server, method, data, streaming=False, session=False):
    """Call with bytes that are whatever they are."""
    with channel_to(server.address) as channel:
        path = f"/vecdb.v1.Vecdb/{method}"
        if session:
            return list(channel.stream_stream(path)(iter([data]), timeout=10))
        make = channel.unary_stream if streaming else channel.unary_unary
        result = make(path)(data, timeout=10)
        return list(result) if streaming else result


@pytest.mark.parametrize("method", [each.name for each in vecdb_pb2.DESCRIPTOR.services_by_name["Vecdb"].methods])
def test_bytes_that_are_no_message_are_an_invalid_argument(server, method):
    descriptor = vecdb_pb2.DESCRIPTOR.services_by_name["Vecdb"].methods_by_name[method]
    kind = (descriptor.server_streaming, descriptor.client_streaming)
    code, error = failure_of(lambda: raw(server, method, b"\xff\xff\xff", *kind))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert (type(error), error.field, error.limit) == (InvalidArgument, "request", descriptor.input_type.name)


def test_messages_nested_beyond_reason_are_refused(server):
    data = b""
    for _ in range(5_000):
        data = b"\x1a" + varint(len(data)) + data
    filter_bytes = b"\x1a" + varint(len(data)) + data
    code, _ = failure_of(lambda: raw(server, "Count", b"\x0a\x04docs\x12" + varint(len(filter_bytes)) + filter_bytes))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def test_an_unknown_method_is_unimplemented(server):
    code, error = failure_of(lambda: raw(server, "Frobnicate", b""))
    assert (code, type(error)) == (grpc.StatusCode.UNIMPLEMENTED, Unimplemented)


def test_errors_carry_their_attributes(stub):
    code, error = failure_of(lambda: stub.Count(vecdb_pb2.CountRequest(collection="无")))
    assert code is grpc.StatusCode.NOT_FOUND
    assert (type(error), error.message, error.field, error.value) == (
        NotFound,
        "no collection '无'",
        "collection",
        "无",
    )
    code, error = failure_of(lambda: list(stub.Scroll(vecdb_pb2.ScrollRequest(collection="docs"))))
    assert (code, error.field, error.limit) == (grpc.StatusCode.INVALID_ARGUMENT, "limit", "1..10000")
    bad = vecdb_pb2.CountRequest(collection="docs", where={"text": "a = = 1"})
    code, error = failure_of(lambda: stub.Count(bad))
    assert (code, error.field, error.position) == (grpc.StatusCode.INVALID_ARGUMENT, "where", 4)


def test_an_unknown_choice_is_unimplemented(stub):
    for call in (
        lambda: stub.Write(vecdb_pb2.WriteRequest(collection="docs")),
        lambda: stub.Count(vecdb_pb2.CountRequest(collection="docs", where={})),
        lambda: stub.Search(vecdb_pb2.SearchRequest(collection="docs", k=1)),
    ):
        assert failure_of(call)[0] is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("verb", ["count", "search"])
def test_an_unexpected_exception_is_told_to_the_log_and_not_to_the_caller(stub, database, caplog, verb):
    def fail(_verb):
        raise RuntimeError("secret of the engine")

    database.before = fail
    with caplog.at_level(logging.ERROR, "vecdb.service"):
        call = (lambda: stub.Count(COUNT)) if verb == "count" else (lambda: stub.Search(search_message()))
        code, error = failure_of(call)
    assert (code, type(error)) == (grpc.StatusCode.INTERNAL, Internal)
    assert "secret" not in error.message
    assert error.value in error.message
    (record,) = caplog.records
    assert error.value in record.getMessage()
    assert "secret of the engine" in str(record.exc_info[1])


def test_no_memory_is_resource_exhausted(stub, database):
    def fail(_verb):
        raise MemoryError

    database.before = fail
    code, error = failure_of(lambda: stub.Count(COUNT))
    assert (code, type(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhausted)


def test_the_servers_deadline_holds_whatever_the_caller_allows(loop, database):
    release = threading.Event()
    database.before = lambda _verb: release.wait(30)
    with serving(loop, database, deadline_s=0.2) as server, stub_of(server.address) as stub:
        for call in (
            lambda: stub.Count(COUNT, timeout=60),
            lambda: stub.Search(search_message(), timeout=60),
            lambda: list(stub.SearchStream(search_message(), timeout=60)),
        ):
            code, error = failure_of(call)
            assert code is grpc.StatusCode.DEADLINE_EXCEEDED
            assert (type(error), error.field, error.limit) == (DeadlineExceeded, "deadline_s", "0.2 s")
        waiting = stub.WaitIndexed.future(vecdb_pb2.WaitIndexedRequest(collection="docs", timeout_s=60))
        time.sleep(0.5)
        assert not waiting.done()
        release.set()
        waiting.result(timeout=10)


def test_requests_beyond_the_limit_are_refused_and_health_checks_are_not(loop, database):
    release = threading.Event()
    database.before = lambda _verb: release.wait(30)
    with serving(loop, database, requests_max=3) as server, stub_of(server.address) as stub:
        running = [stub.Count.future(COUNT) for _ in range(3)]
        while len(database.threads) < 3:
            time.sleep(0.01)
        code, error = failure_of(lambda: stub.Count(COUNT))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (type(error), error.field, error.limit) == (ResourceExhausted, "requests", "3")
        with channel_to(server.address) as channel:
            assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10) == b"\x08\x01"
        release.set()
        assert [each.result(timeout=10).count for each in running] == [0, 0, 0]
        assert stub.Count(COUNT).count == 0


def test_a_refused_request_is_not_parsed(loop, database):
    release = threading.Event()
    database.before = lambda _verb: release.wait(30)
    with serving(loop, database, requests_max=1) as server, stub_of(server.address) as stub:
        running = stub.Count.future(COUNT)
        while not database.threads:
            time.sleep(0.01)
        code, _ = failure_of(lambda: raw(server, "Count", b"\xff\xff"))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        release.set()
        running.result(timeout=10)


def test_a_message_beyond_the_limit_is_refused(server):
    code, error = failure_of(lambda: raw(server, "Write", bytes(MESSAGE_BYTES_MAX + 1)))
    assert (code, type(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhausted)


def test_metadata_beyond_the_limit_is_refused(stub):
    code, _ = failure_of(lambda: stub.Count(COUNT, metadata=(("x-large", "x" * 17_000),)))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    for _ in range(10):
        assert stub.Count(COUNT, metadata=(("x-fair", "x" * 15_000),)).count == 0


@pytest.mark.parametrize("start", [b"", b"PRI * HTTP/2.0"])
def test_a_connection_that_does_not_begin_is_closed(loop, database, monkeypatch, start):
    monkeypatch.setattr(server_module, "HANDSHAKE_TIMEOUT_MS", 300)
    with serving(loop, database) as server:
        host, _, port = server.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(start)
            while connection.recv(4_096):
                pass


def test_a_cancelled_request_is_counted_and_frees_its_place(stub, server, database):
    release = threading.Event()
    database.before = lambda _verb: release.wait(30)
    running = stub.Count.future(COUNT)
    while not database.threads:
        time.sleep(0.01)
    running.cancel()
    for _ in range(500):
        if server.measures.methods["Count"].errors["CANCELLED"]:
            break
        time.sleep(0.01)
    assert server.measures.methods["Count"].errors == {"CANCELLED": 1}
    assert server.measures.running == 0
    release.set()


def test_only_searches_that_proved_short_run_in_the_event_loop(loop, database):
    with serving(loop, database, short_search_s=0.5) as server, stub_of(server.address) as stub:
        stub.Write(write_message([1, 2, 3]))
        for _ in range(4):
            stub.Search(search_message())
        assert server.measures.methods["Search"].short == 3
        names = [name for verb, name in database.threads if verb == "search"]
        assert names[0].startswith("vecdb-read")
        assert names[1:] == ["tests-loop"] * 3
        for other in (
            search_message(field="", recall=0.5),
            search_message(read_after_seq=1),
            search_message(where=None, ef=10),
        ):
            stub.Search(other)
        assert server.measures.methods["Search"].short == 3


def test_a_search_that_is_handed_back_runs_in_a_thread_within_the_same_time(loop, database):
    with serving(loop, database, short_search_s=0.5, deadline_s=0.4) as server, stub_of(server.address) as stub:
        stub.Write(write_message([1, 2, 3]))
        stub.Search(search_message())
        asked = []

        def hand_back(*_arguments):
            asked.append(threading.current_thread().name)
            time.sleep(pause_s)

        database.run_search_at_once = hand_back
        pause_s = 0.0
        stub.Search(search_message())
        assert asked == ["tests-loop"]
        assert [name for verb, name in database.threads if verb == "search"][-1].startswith("vecdb-read")
        assert server.measures.methods["Search"].short == 0
        # Neither part alone takes as long as is allowed.
        pause_s = 0.3
        database.before = lambda _verb: time.sleep(0.3)
        code, error = failure_of(lambda: stub.Search(search_message()))
        assert (code, error.field) == (grpc.StatusCode.DEADLINE_EXCEEDED, "deadline_s")
        assert asked == ["tests-loop"] * 2


def test_filtered_searches_and_everything_else_run_in_threads(stub, database):
    stub.Write(write_message([1], {"a": 1}))
    filtered = search_message()
    filtered.where.text = "a = 1"
    for _ in range(3):
        stub.Search(filtered)
        stub.Count(COUNT)
    assert {name.split("_")[0] for verb, name in database.threads if verb != "write"} == {"vecdb-read"}
    assert {name.split("_")[0] for verb, name in database.threads if verb == "write"} == {"vecdb-write"}


def test_searches_that_wait_for_a_write_leave_the_threads_of_the_others_alone(loop, database):
    release = threading.Event()
    with serving(loop, database, read_threads=1, wait_threads=2) as server, stub_of(server.address) as stub:
        stub.Write(write_message([1]))
        database.before = lambda verb: release.wait(30) if verb == "search" else None
        waiting = [stub.Search.future(search_message(read_after_seq=1)) for _ in range(2)]
        assert stub.Count(COUNT, timeout=10).count == 1
        release.set()
        assert all(len(each.result(timeout=10).rankings) == 1 for each in waiting)
        names = {name.split("_")[0] for verb, name in database.threads if verb == "search"}
        assert names == {"vecdb-wait"}


def test_a_caller_that_does_not_read_its_stream_holds_a_place_until_the_deadline(loop, database):
    # Not by the server, whose deadline a busy machine would not keep for as much.
    database.collection("docs").upsert(range(40), np.ones((40, 2)), [{"text": "x" * 10**6}] * 40)
    with serving(loop, database, deadline_s=1.0) as server, stub_of(server.address) as stub:
        request = encode_get(Target("docs"), GetRequest(tuple(range(40)), with_payloads=True))
        replies = stub.Get(request, timeout=60)
        deadline = time.monotonic() + 20
        while not server.measures.methods["Get"].requests and time.monotonic() < deadline:
            time.sleep(0.05)
        assert server.measures.methods["Get"].errors == {"DEADLINE_EXCEEDED": 1}
        assert server.measures.running == 0
        replies.cancel()


def test_streamed_replies_come_in_messages_below_4_mb(stub):
    for start in range(0, 30, 10):
        stub.Write(write_message(list(range(start, start + 10)), {"text": "x" * 900_000}))
    scroll = vecdb_pb2.ScrollRequest(collection="docs", limit=100, with_payloads=True)
    pieces = list(stub.Scroll(scroll))
    assert len(pieces) == 10
    assert max(piece.ByteSize() for piece in pieces) < 4 * 2**20
    assert sum(len(piece.ids.integers) for piece in pieces) == 30
    get = vecdb_pb2.GetRequest(collection="docs", ids={"integers": range(30)}, with_payloads=True)
    assert max(piece.ByteSize() for piece in stub.Get(get)) < 4 * 2**20


def test_a_reply_too_large_for_one_message_names_the_method_that_streams(loop, database):
    with (
        serving(loop, database) as server,
        stub_of(server.address, ("grpc.max_receive_message_length", -1)) as stub,
    ):
        for start in range(0, 80, 40):
            stub.Write(write_message(list(range(start, start + 40)), {"text": "x" * 1_000_000}))
        code, error = failure_of(lambda: stub.Search(search_message(k=80), timeout=30))
        assert (code, error.field) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "k")
        assert "SearchStream" in error.message
        (reply,) = stub.SearchStream(search_message(k=80), timeout=30)
        assert len(reply.rankings[0].ids.integers) == 80


def test_interceptors_run_before_the_gate(loop, database):
    class Refusing(grpc.aio.ServerInterceptor):
        async def intercept_service(self, continuation, details):
            async def refuse(_data, context):
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no key")

            if dict(details.invocation_metadata).get("key") == "right":
                return await continuation(details)
            return grpc.unary_unary_rpc_method_handler(refuse)

    with serving(loop, database, interceptors=(Refusing(),)) as server, stub_of(server.address) as stub:
        assert failure_of(lambda: stub.Count(COUNT))[0] is grpc.StatusCode.UNAUTHENTICATED
        assert stub.Count(COUNT, metadata=(("key", "right"),)).count == 0
        assert server.measures.methods["Count"].requests == 1
