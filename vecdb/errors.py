"""The errors vecdb raises, told apart by what the caller can do about them.

::

    VecdbError
     +-- InvalidArgument      change the request: it can never succeed as it is
     +-- NotFound             the collection, field or database does not exist
     +-- AlreadyExists        pick another name, or use what is there
     +-- FailedPrecondition   change the state of the database first (locked, closed, wrong version)
     +-- Conflict             read again and retry: a condition of the write did not hold
     +-- ResourceExhausted    free disk or memory, or send less; then the same request can succeed
     +-- Unavailable          retry later, or reopen: the writer or the server stopped
     +-- Unauthenticated      send a valid key
     +-- PermissionDenied     ask for the right
     +-- Corruption           stored bytes are not what was written: run ``vecdb check``
     +-- DeviceError          the accelerator failed or is out of memory
     +-- DeadlineExceeded     allow more time, or ask for less
     +-- Cancelled            the caller, or a closing database, stopped it
     +-- Unimplemented        this server or build does not know the request
     +-- Internal             a bug in vecdb: please report it

Every error carries the ``field`` it is about, the ``limit`` that was broken and the ``value`` found, as text, so that
the embedded and the served engine report the same thing; any of them may be ``None`` where there is nothing to say.
"""

from __future__ import annotations

from typing import ClassVar

VALUE_CHARACTERS_MAX = 200
"""A value quoted in an error is cut to this many characters: errors are logged, payloads must not be."""


class VecdbError(Exception):
    """Base of every error raised on purpose by vecdb.

    Parameters
    ----------
    message
        One sentence for a person, complete without the other attributes.
    field
        Name of the argument, option or file that the error is about.
    limit
        What was allowed, in words or as a number with its unit.
    value
        What was found; cut to ``VALUE_CHARACTERS_MAX`` characters.
    position
        For text that is parsed (filters): 0-based character offset of the first wrong character.
    """

    code: ClassVar[str] = "INTERNAL"
    """Stable name of the kind of error; the same word as the gRPC status that carries it where one exists."""

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        limit: object = None,
        value: object = None,
        position: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.limit = None if limit is None else str(limit)
        self.value = None if value is None else _shortened(str(value))
        self.position = position


def _shortened(text: str) -> str:
    if len(text) <= VALUE_CHARACTERS_MAX:
        return text
    return text[: VALUE_CHARACTERS_MAX - 3] + "..."


class InvalidArgument(VecdbError):
    """The request can never succeed as it is."""

    code = "INVALID_ARGUMENT"


class NotFound(VecdbError):
    """The named collection, field or database does not exist."""

    code = "NOT_FOUND"


class AlreadyExists(VecdbError):
    """The name is taken."""

    code = "ALREADY_EXISTS"


class FailedPrecondition(VecdbError):
    """The database is in a state that does not allow the request: locked, closed, of another version."""

    code = "FAILED_PRECONDITION"


class Conflict(VecdbError):
    """A condition of the write did not hold; read again and retry."""

    code = "CONFLICT"


class ResourceExhausted(VecdbError):
    """Out of disk, memory or quota; nothing was written."""

    code = "RESOURCE_EXHAUSTED"


class Unavailable(VecdbError):
    """The writer or the server stopped; retry later or reopen."""

    code = "UNAVAILABLE"


class Unauthenticated(VecdbError):
    """No valid key came with the request."""

    code = "UNAUTHENTICATED"


class PermissionDenied(VecdbError):
    """The key does not give the right that the request needs."""

    code = "PERMISSION_DENIED"


class Corruption(VecdbError):
    """Stored bytes are not what was written. ``field`` names the file; the message names the offset."""

    code = "CORRUPTION"


class DeviceError(VecdbError):
    """The accelerator failed or is out of memory."""

    code = "DEVICE_ERROR"


class DeadlineExceeded(VecdbError):
    """The time allowed for the request ran out."""

    code = "DEADLINE_EXCEEDED"


class Cancelled(VecdbError):
    """The caller, or a closing database, stopped the request."""

    code = "CANCELLED"


class Unimplemented(VecdbError):
    """This server or build does not know the request."""

    code = "UNIMPLEMENTED"


class Internal(VecdbError):
    """A bug in vecdb."""

    code = "INTERNAL"
