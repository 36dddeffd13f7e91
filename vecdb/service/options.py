"""The options of a server, with units in their names, validated once."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vecdb.errors import FailedPrecondition, InvalidArgument
from vecdb.requests import BATCH_BYTES_MAX

if TYPE_CHECKING:
    import grpc.aio

DEFAULT_ADDRESS = "127.0.0.1:7700"
MESSAGE_BYTES_MAX = BATCH_BYTES_MAX + 16 * 2**20
"""Largest request. A batch of 64 MB is larger on the wire by lengths and tags; with this much room, a batch that is a
little too large reaches the check that names the limit."""
METADATA_BYTES_MAX = 16 * 1024
HANDSHAKE_TIMEOUT_MS = 5_000
REFRESH_INTERVAL_S_MIN = 0.001
REFRESH_INTERVAL_S_MAX = 86_400.0
SESSIONS_A_CONNECTION = 16
"""Sessions that one connection may hold beside its requests; vecdb's clients hold no more."""
KEEPALIVE_TIME_MS = 60_000
KEEPALIVE_TIMEOUT_MS = 20_000
"""A connection that is silent for the first is asked whether anybody is there, and dropped after the second: sessions
of machines that vanished must not stay open."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How a server listens and what it allows.

    Attributes
    ----------
    address
        ``host:port``, ``[ipv6]:port`` or ``unix:path``; port 0 picks a free one.
    insecure
        Listen without TLS on an address that other machines can reach. Said aloud, because everybody there can then
        read and change everything.
    tls_certificate, tls_key
        PEM files, both or none.
    deadline_s
        A request is answered within this time or with DeadlineExceeded, whatever time its caller allows. Not for
        ``wait_indexed``, which brings its own, nor for ``flush``.
    grace_s
        Time that running requests have to finish when the server stops.
    requests_max
        Requests answered at a time; the next is refused with ResourceExhausted.
    streams_max
        Requests under way on one connection, and searches in one session; the next waits at the client.
    sessions_max
        Sessions open at a time, from all callers together; a client that is refused one searches by single calls.
    read_threads, write_threads, wait_threads
        Threads for reads, for writes (which wait for the disk, together), and for ``wait_indexed``.
    short_search_s
        Searches expected to take less than this run in the event loop, in batches of what has arrived; longer ones each
        in a thread. 0: all are long.
    interceptors
        Run before this server's own gate, which sees a request before it is parsed.
    """

    address: str = DEFAULT_ADDRESS
    insecure: bool = False
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    deadline_s: float = 30.0
    grace_s: float = 10.0
    requests_max: int = 256
    streams_max: int = 256
    sessions_max: int = 1024
    read_threads: int = 8
    write_threads: int = 64
    wait_threads: int = 16
    short_search_s: float = 0.002
    interceptors: tuple[grpc.aio.ServerInterceptor[Any, Any], ...] = ()

    def __post_init__(self) -> None:
        for name, low, high in (
            ("deadline_s", 0.001, 86_400.0),
            ("grace_s", 0.0, 3_600.0),
            ("requests_max", 1, 100_000),
            ("streams_max", 1, 100_000),
            ("sessions_max", 0, 100_000),
            ("read_threads", 1, 1_024),
            ("write_threads", 1, 1_024),
            ("wait_threads", 1, 1_024),
            ("short_search_s", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidArgument(
                    f"{name} must be {low} to {high}, got {value}", field=name, limit=f"{low}..{high}", value=value
                )
        if (self.tls_certificate is None) != (self.tls_key is None):
            missing = "tls_key" if self.tls_key is None else "tls_certificate"
            raise InvalidArgument("TLS needs a certificate and its key", field=missing, limit="both or none")
        if not (self.insecure or self.tls_certificate is not None or is_private(self.address)):
            raise FailedPrecondition(
                f"{self.address} can be reached from other machines: give a TLS certificate and key, or say insecure",
                field="address",
                limit="a loopback address without TLS",
                value=self.address,
            )


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What to serve, and how.

    Attributes
    ----------
    path
        Directory of the database, created if missing and not served for reading only.
    server
        How to listen.
    warm_up
        Compile the kernels before saying that the server is ready; otherwise the first searches wait for it.
    read_only
        Serve only reads, of a directory that another process may write to.
    refresh_interval_s
        How often it then looks for what was written.
    log_archive, memory_budget_bytes, build_threads
        As of ``EngineOptions``; ``None`` for its defaults.
    """

    path: Path
    server: ServerOptions = field(default_factory=ServerOptions)
    warm_up: bool = True
    read_only: bool = False
    refresh_interval_s: float = 1.0
    log_archive: Path | None = None
    memory_budget_bytes: int | None = None
    build_threads: int | None = None

    def __post_init__(self) -> None:
        if not REFRESH_INTERVAL_S_MIN <= self.refresh_interval_s <= REFRESH_INTERVAL_S_MAX:
            limit = f"{REFRESH_INTERVAL_S_MIN}..{REFRESH_INTERVAL_S_MAX}"
            raise InvalidArgument(
                f"refresh_interval_s must be {limit}, got {self.refresh_interval_s}",
                field="refresh_interval_s",
                limit=limit,
                value=self.refresh_interval_s,
            )


def is_private(address: str) -> bool:
    """Whether only this machine can reach ``address``: a loopback address or a Unix socket.

    Raises
    ------
    InvalidArgument
        It is not ``host:port``, ``[ipv6]:port`` or ``unix:path``.
    """
    if address.startswith("unix:"):
        return True
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 2**16):
        raise InvalidArgument(
            f"an address is host:port, [ipv6]:port or unix:path, got {address!r}",
            field="address",
            limit="host:port",
            value=address,
        )
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        # A name: what it resolves to is not ours to vouch for.
        return False
