"""Errors as gRPC statuses, by the one table that says which error travels as which status code.

The code is a number of the gRPC specification. Beside it travels a ``google.rpc.Status`` with one ``ErrorInfo``: its
reason is ``VecdbError.code``, its domain ``vecdb``, its metadata the attributes that are set. Whoever reads it gets the
same class with the same message, field, limit, value and position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from vecdb.errors import (
    AlreadyExists,
    Cancelled,
    Conflict,
    Corruption,
    DeadlineExceeded,
    DeviceError,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    VecdbError,
)

DOMAIN = "vecdb"
DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata that holds the ``google.rpc.Status``."""

STATUS_CODES: Mapping[type[VecdbError], int] = {
    Cancelled: 1,
    InvalidArgument: 3,
    DeadlineExceeded: 4,
    NotFound: 5,
    AlreadyExists: 6,
    PermissionDenied: 7,
    ResourceExhausted: 8,
    FailedPrecondition: 9,
    Conflict: 10,
    Unimplemented: 12,
    Internal: 13,
    DeviceError: 13,
    Unavailable: 14,
    Corruption: 15,
    Unauthenticated: 16,
}
"""The status code of each error. ``DeviceError`` has none of its own; its reason tells it from ``Internal``."""

_BY_CODE = {code: kind for kind, code in STATUS_CODES.items() if kind is not DeviceError}
_BY_CODE |= {11: InvalidArgument}
_BY_REASON = {kind.code: kind for kind in STATUS_CODES}

# Trailers as a whole must stay below the 16 KB of metadata that either side accepts; base64 makes 4 bytes of 3, and the
# plain status message up to 3 of 1.
_MESSAGE_BYTES_MAX = 6_000
_ATTRIBUTE_BYTES_MAX = 1_000
_PLAIN_BYTES_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Status:
    """What ends a call that failed.

    Attributes
    ----------
    code
        Number of the gRPC status.
    message
        For a person.
    details
        An encoded ``google.rpc.Status``, the value of ``DETAILS_KEY``.
    """

    code: int
    message: str
    details: bytes


def encode_error(error: VecdbError) -> Status:
    """The status of an error."""
    code = next((STATUS_CODES[kind] for kind in type(error).__mro__ if kind in STATUS_CODES), STATUS_CODES[Internal])
    position = None if error.position is None else str(error.position)
    attributes = {"field": error.field, "limit": error.limit, "value": error.value, "position": position}
    info = error_details_pb2.ErrorInfo(
        reason=error.code,
        domain=DOMAIN,
        metadata={name: _cut(text, _ATTRIBUTE_BYTES_MAX) for name, text in attributes.items() if text is not None},
    )
    status = status_pb2.Status(code=code, message=_cut(error.message, _MESSAGE_BYTES_MAX))
    status.details.add().Pack(info)
    return Status(code, _cut(error.message, _PLAIN_BYTES_MAX), status.SerializeToString())


def decode_error(code: int, message: str, details: bytes | None) -> VecdbError:
    """The error of a status.

    Parameters
    ----------
    code
        Number of the gRPC status.
    message
        Its plain message.
    details
        The value of ``DETAILS_KEY``, where there is one. Without, or of another domain, the code decides the class.
    """
    status, info = _error_info(details)
    if status is None or info is None:
        return _BY_CODE.get(code, Internal)(message)
    kind = _BY_REASON.get(info.reason) or _BY_CODE.get(code, Internal)
    found = info.metadata
    position = found.get("position", "")
    return kind(
        status.message,
        field=found.get("field"),
        limit=found.get("limit"),
        value=found.get("value"),
        position=int(position) if position.isdecimal() else None,
    )


def comes_from_vecdb(details: bytes | None) -> bool:
    """Whether a status was made by a vecdb server, and not by the transport on the way."""
    return _error_info(details)[1] is not None


def _error_info(details: bytes | None) -> tuple[status_pb2.Status | None, error_details_pb2.ErrorInfo | None]:
    if details is None:
        return None, None
    try:
        status = status_pb2.Status.FromString(details)
        for packed in status.details:
            info = error_details_pb2.ErrorInfo()
            if packed.Unpack(info) and info.domain == DOMAIN:
                return status, info
    except DecodeError:
        # Somebody else's trailer under the same name: the code alone must do.
        return None, None
    return status, None


def _cut(text: str, bytes_max: int) -> str:
    """The text as UTF-8 can carry it, shortened to ``bytes_max`` bytes."""
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= bytes_max:
        return encoded.decode()
    return encoded[: bytes_max - 3].decode("utf-8", "ignore") + "..."
