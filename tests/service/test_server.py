"""The server's life: it listens where it may, says how it is, describes itself, and stops in order."""

import threading
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.service.calling import channel_to, stub_of
from tests.service.running import serving
from tests.service.scripted import ScriptedDatabase
from vecdb.errors import FailedPrecondition, InvalidArgument, Unavailable
from vecdb.service import Server, ServerOptions
from vecdb.service.methods import METHODS, SERVICE
from vecdb.v1 import vecdb_pb2
from vecdb.version import __version__

COUNT = vecdb_pb2.CountRequest(collection="docs")


def test_it_says_its_version_and_its_real_port(loop):
    with serving(loop, ScriptedDatabase()) as server, stub_of(server.address) as stub:
        assert not server.address.endswith(":0")
        assert stub.ServerInfo(vecdb_pb2.ServerInfoRequest()).version == __version__


def test_it_answers_health_checks_by_name(loop):
    with serving(loop, ScriptedDatabase()) as server, channel_to(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "vecdb.v1.Vecdb"):
            reply = stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="nope"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_it_describes_itself(loop):
    with serving(loop, ScriptedDatabase()) as server, channel_to(server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="vecdb.v1.Vecdb"),
        ]
        listed, described = stub.ServerReflectionInfo(iter(requests), timeout=10)
        names = {each.name for each in listed.list_services_response.service}
        assert {"vecdb.v1.Vecdb", "grpc.health.v1.Health"} <= names
        assert described.file_descriptor_response.file_descriptor_proto


def test_every_method_of_the_protocol_is_served_and_nothing_else():
    assert set(METHODS) == {method.name for method in SERVICE.methods}
    for method in SERVICE.methods:
        assert METHODS[method.name].request.DESCRIPTOR is method.input_type


@pytest.mark.parametrize("address", ["0.0.0.0:7700", "[::]:7700", "10.0.0.1:7700", "example.org:7700"])
def test_an_address_that_others_can_reach_needs_tls_or_a_word(address):
    with pytest.raises(FailedPrecondition) as caught:
        ServerOptions(address=address)
    assert (caught.value.field, caught.value.value) == ("address", address)
    assert ServerOptions(address=address, insecure=True).address == address


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.8.9.1:7700", "localhost:7700", "[::1]:7700", "unix:db.sock"])
def test_an_address_of_this_machine_needs_neither(address):
    assert ServerOptions(address=address).address == address


@pytest.mark.parametrize("address", ["", "localhost", "localhost:", ":7700", "localhost:x", "localhost:70000"])
def test_what_is_no_address(address):
    with pytest.raises(InvalidArgument) as caught:
        ServerOptions(address=address)
    assert caught.value.field == "address"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"deadline_s": 0.0}, "deadline_s"),
        ({"requests_max": 0}, "requests_max"),
        ({"grace_s": -1.0}, "grace_s"),
        ({"short_search_s": float("nan")}, "short_search_s"),
        ({"tls_certificate": "cert.pem"}, "tls_key"),
        ({"tls_key": "key.pem"}, "tls_certificate"),
    ],
)
def test_options_are_checked(options, field):
    with pytest.raises(InvalidArgument) as caught:
        ServerOptions(**options)
    assert caught.value.field == field


def test_a_second_server_on_the_same_address_is_refused(loop):
    with serving(loop, ScriptedDatabase()) as server:
        second = Server(ScriptedDatabase(), ServerOptions(address=server.address))
        with pytest.raises(Unavailable) as caught:
            loop.run(second.start())
        assert (caught.value.field, caught.value.value) == ("address", server.address)


def test_a_server_starts_once(loop):
    with serving(loop, ScriptedDatabase()) as server, pytest.raises(FailedPrecondition):
        loop.run(server.start())


def test_a_unix_socket_is_an_address(loop, tmp_path):
    path = f"unix:{tmp_path}/s"
    with serving(loop, ScriptedDatabase(), address=path) as server, stub_of(server.address) as stub:
        assert server.address == path
        assert stub.Count(COUNT).count == 0


def test_stopping_says_so_and_lets_running_requests_finish(loop):
    database, entered, release = ScriptedDatabase(), threading.Event(), threading.Event()

    def hold(_verb):
        entered.set()
        assert release.wait(30)

    database.before = hold
    with serving(loop, database, grace_s=20.0) as server, channel_to(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watched = stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=30)
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        with stub_of(server.address) as calls:
            running = calls.Count.future(COUNT)
            assert entered.wait(10)
            stopping = threading.Thread(target=lambda: loop.run(server.stop()))
            stopping.start()
            assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
            watched.cancel()
            time.sleep(0.2)
            assert stopping.is_alive()
            with stub_of(server.address) as late, pytest.raises(grpc.RpcError) as caught:
                late.Count(COUNT, timeout=5)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            release.set()
            assert running.result(timeout=10).count == 0
            stopping.join(10)
            assert not stopping.is_alive()


def test_the_grace_ends(loop):
    database, release = ScriptedDatabase(), threading.Event()
    database.before = lambda _verb: release.wait(30)
    with serving(loop, database) as server, stub_of(server.address) as stub:
        running = stub.Count.future(COUNT)
        while not database.threads:
            time.sleep(0.01)
        started = time.monotonic()
        loop.run(server.stop(grace_s=0.1))
        assert time.monotonic() - started < 10
        with pytest.raises(grpc.RpcError):
            running.result(timeout=10)
        release.set()


def test_it_counts_what_it_did(loop):
    with serving(loop, ScriptedDatabase()) as server, stub_of(server.address) as stub:
        stub.Count(COUNT)
        with pytest.raises(grpc.RpcError):
            stub.Count(vecdb_pb2.CountRequest(collection="nope"))
        counted = server.measures.methods["Count"]
        assert (counted.requests, dict(counted.errors)) == (2, {"NOT_FOUND": 1})
        assert 0 < counted.longest_s <= counted.total_s
        assert "Count 2 (1 failed" in str(server.measures)
        assert server.measures.running == 0
