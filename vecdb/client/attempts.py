"""The attempts of one call: when to try again, and what to raise when not.

A call is sent again only where the transport failed, so that no server is known to have answered; an error of the
engine is final. Every write carries a request id, so that sending it again applies it once.
"""

from __future__ import annotations

import random
import time
from typing import Any

import grpc

from vecdb.client.calls import Call
from vecdb.errors import DeadlineExceeded, ResourceExhausted, Unavailable, VecdbError
from vecdb.wire.errors import DETAILS_KEY, comes_from_vecdb, decode_error

ATTEMPTS_MAX = 3
_DELAY_S = 0.1
_DELAY_FACTOR = 4.0
# A server that stops cancels what reaches it too late; no caller can cancel a call of its own.
_OF_THE_TRANSPORT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class Attempts:
    """Attempts at ``call`` within its time.

    Parameters
    ----------
    call
        The call.
    timeout_s
        For all attempts together, where the call does not bring its own.
    address
        What errors call the server.
    """

    __slots__ = ("_address", "_call", "_deadline", "_failed", "_timeout_s")

    def __init__(self, call: Call[Any], timeout_s: float, address: str) -> None:
        self._call = call
        self._address = address
        self._timeout_s = timeout_s if call.timeout_s is None else call.timeout_s
        self._deadline = time.monotonic() + self._timeout_s
        self._failed = 0

    def remaining_s(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self._deadline - time.monotonic())

    def check_time(self) -> None:
        """Raise DeadlineExceeded where no time is left for another attempt."""
        if self.remaining_s() <= 0.0:
            raise self._error(grpc.StatusCode.DEADLINE_EXCEEDED, "", None)

    def delay_s(self, failure: grpc.RpcError) -> float:
        """Seconds to wait before the next attempt.

        Raises
        ------
        VecdbError
            The error of the failure, where no other attempt would help or there is no time for one.
        """
        self._failed += 1
        code = failure.code()
        details = _status_details(failure)
        if (
            code not in _OF_THE_TRANSPORT
            or comes_from_vecdb(details)
            or not self._call.repeatable
            or self._failed >= ATTEMPTS_MAX
        ):
            raise self._error(code, failure.details() or "", details) from None
        # Half of it by chance, so that the clients of a restarted server do not come back all at once.
        delay_s = _DELAY_S * _DELAY_FACTOR ** (self._failed - 1) * random.uniform(0.5, 1.0)  # noqa: S311
        if delay_s >= self.remaining_s():
            raise self._error(code, failure.details() or "", details) from None
        return delay_s

    def _error(self, code: grpc.StatusCode, message: str, details: bytes | None) -> VecdbError:
        if not comes_from_vecdb(details):
            if code in _OF_THE_TRANSPORT:
                return Unavailable(
                    f"no vecdb server answers at {self._address}: {message}", field="address", value=self._address
                )
            if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
                return ResourceExhausted(
                    f"{self._call.method} on {self._address} passed a limit of the connection: {message}",
                    field="message",
                    limit="bytes of one message",
                )
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                return DeadlineExceeded(
                    f"{self._call.method} on {self._address} took longer than {self._timeout_s:g} s",
                    field="timeout_s",
                    limit=f"{self._timeout_s:g} s",
                )
        return decode_error(code.value[0], message, details)


def _status_details(failure: grpc.RpcError) -> bytes | None:
    trailers: Any = failure.trailing_metadata()
    for key, value in trailers or ():
        if key == DETAILS_KEY:
            return value if isinstance(value, bytes) else str(value).encode()
    return None
