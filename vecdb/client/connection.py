"""Where a server is and how its connection is set up, the same for both clients."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import grpc

from vecdb.errors import FailedPrecondition, InvalidArgument

Tls: TypeAlias = "bool | str | Path"
"""``False``: none. ``True``: certificates are checked against those this machine trusts; a path: against a PEM file."""

TIMEOUT_S = 30.0
METADATA_BYTES_MAX = 16 * 1024

CHANNEL_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_receive_message_length", 128 * 2**20),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", METADATA_BYTES_MAX),
    ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
    # Otherwise all channels of a process to one address share one connection, and its limits.
    ("grpc.use_local_subchannel_pool", 1),
    # A server that restarts is found again within a call's attempts.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Otherwise a thread is started for every reply that streams.
    ("SingleThreadedUnaryStream", 1),
)


def checked_address(address: str) -> str:
    """The address itself, if it is one.

    Raises
    ------
    InvalidArgument
        It is not ``host:port``, ``[ipv6]:port`` or ``unix:path``.
    """
    if isinstance(address, str):
        host, colon, port = address.rpartition(":")
        if address.startswith("unix:") and len(address) > len("unix:"):
            return address
        if colon and host and "/" not in host and port.isascii() and port.isdigit() and int(port) < 2**16:
            return address
    raise InvalidArgument(
        f"an address is host:port, [ipv6]:port or unix:path, got {address!r}",
        field="address",
        limit="host:port",
        value=address,
    )


def checked_timeout_s(timeout_s: float) -> float:
    """The timeout itself, if it is a positive number; raises InvalidArgument."""
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0.0 < timeout_s <= 86_400.0:
        raise InvalidArgument(
            f"timeout_s must be above 0 and at most 86400, got {timeout_s!r}",
            field="timeout_s",
            limit="(0, 86400]",
            value=timeout_s,
        )
    return float(timeout_s)


def credentials(tls: Tls) -> grpc.ChannelCredentials | None:
    """The credentials of a channel; ``None`` without TLS.

    Raises
    ------
    FailedPrecondition
        The file cannot be read.
    """
    if tls is False:
        return None
    if tls is True:
        return grpc.ssl_channel_credentials()
    try:
        return grpc.ssl_channel_credentials(Path(tls).read_bytes())
    except OSError as error:
        raise FailedPrecondition(f"{tls} cannot be read: {error.strerror}", field="tls", value=tls) from None


class Handle:
    """Whether a connection may be used: it is open, and this is the process that opened it."""

    __slots__ = ("_pid", "closed")

    def __init__(self) -> None:
        self.closed = False
        self._pid = os.getpid()

    def check(self) -> None:
        """Raise FailedPrecondition unless it may be used."""
        if self.closed:
            raise FailedPrecondition("the database is closed", field="database")
        if os.getpid() != self._pid:
            raise FailedPrecondition(
                "the connection was opened by another process; connect again after a fork", field="database"
            )
