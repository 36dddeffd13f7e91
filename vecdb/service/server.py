"""A server on the running event loop: one gRPC port with the service, health checking and reflection.

From ``start`` to ``stop`` it is healthy; stopping it first says so to whoever checks, then lets running requests end.
It opens and closes no database: whoever made it does.
"""

from __future__ import annotations

import asyncio
import logging

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from vecdb.api import Database
from vecdb.errors import FailedPrecondition, Unavailable
from vecdb.service.gate import Gate
from vecdb.service.measures import Measures
from vecdb.service.methods import SERVICE
from vecdb.service.options import (
    HANDSHAKE_TIMEOUT_MS,
    KEEPALIVE_TIME_MS,
    KEEPALIVE_TIMEOUT_MS,
    MESSAGE_BYTES_MAX,
    METADATA_BYTES_MAX,
    SESSIONS_A_CONNECTION,
    ServerOptions,
)

_log = logging.getLogger("vecdb.service")
_HEALTH_REQUESTS = 64
"""Requests beyond ``requests_max`` that reach the server, so that health checks do, and refusals say why."""


class Server:
    """A gRPC server for one database.

    Parameters
    ----------
    database
        Answers the requests; used from many threads, and from the event loop for short searches.
    options
        How to listen and what to allow.

    Attributes
    ----------
    address
        Where it listens; the port is the real one once it has started.
    """

    def __init__(self, database: Database, options: ServerOptions | None = None) -> None:
        self._options = options or ServerOptions()
        self._gate = Gate(database, self._options)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._server: grpc.aio.Server | None = None
        self.address = self._options.address

    @property
    def measures(self) -> Measures:
        """What was answered so far."""
        return self._gate.measures

    async def start(self) -> str:
        """Listen, and return the address.

        Raises
        ------
        FailedPrecondition
            It was started before, or a TLS file cannot be read.
        Unavailable
            The address cannot be listened on.
        """
        if self._server is not None:
            raise FailedPrecondition("the server was started before; make another", field="server")
        options = self._options
        server = grpc.aio.server(
            interceptors=options.interceptors,
            maximum_concurrent_rpcs=options.requests_max + options.sessions_max + _HEALTH_REQUESTS,
            options=(
                ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", METADATA_BYTES_MAX),
                ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
                ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
                ("grpc.max_concurrent_streams", options.streams_max + SESSIONS_A_CONNECTION),
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
                ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ),
        )
        server.add_generic_rpc_handlers((self._gate.handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((SERVICE.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        port = self._listen(server)
        if not self.address.startswith("unix:"):
            self.address = f"{self.address.rpartition(':')[0]}:{port}"
        self._server = server
        await server.start()
        for service in ("", SERVICE.full_name):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return self.address

    async def wait(self) -> None:
        """Return once the server has stopped."""
        if self._server is not None:
            await self._server.wait_for_termination()

    async def stop(self, grace_s: float | None = None) -> None:
        """Refuse new requests, let running ones finish for ``grace_s`` seconds (default: the option's), drop the rest.

        A thread that is still at work then is left to end by itself; ``join`` waits for it.
        """
        if self._server is None:
            return
        await self._health.enter_graceful_shutdown()
        self._gate.end_sessions()
        await self._server.stop(self._options.grace_s if grace_s is None else grace_s)
        self._gate.close()
        _log.info("stopped: %s", self.measures)

    async def join(self) -> None:
        """Wait for the threads of a stopped server; closing the database ends those that wait for it."""
        await asyncio.get_running_loop().run_in_executor(None, self._gate.join)

    def _listen(self, server: grpc.aio.Server) -> int:
        options = self._options
        try:
            if options.tls_certificate is None or options.tls_key is None:
                return server.add_insecure_port(self.address)
            pair = (options.tls_key.read_bytes(), options.tls_certificate.read_bytes())
        except RuntimeError as error:
            raise self._not_listening() from error
        except OSError as error:
            raise FailedPrecondition(
                f"{error.filename} cannot be read: {error.strerror}", field="tls_certificate", value=error.filename
            ) from None
        try:
            return server.add_secure_port(self.address, grpc.ssl_server_credentials([pair]))
        except RuntimeError as error:
            raise self._not_listening() from error

    def _not_listening(self) -> Unavailable:
        return Unavailable(
            f"cannot listen on {self.address}: it is in use, or not an address of this machine",
            field="address",
            value=self.address,
        )
