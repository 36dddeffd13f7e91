"""Messages as a database stores them: whatever a reader does not know in one is refused, never dropped in silence.

protobuf keeps fields that it does not know and says nothing. In a stored message such a field was written by a later
vecdb and may mean anything, a file to be read or rows to be hidden; who ignores it gives wrong answers. The policy is
in ``docs/formats/versions.md``.
"""

from __future__ import annotations

import functools

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from vecdb.errors import FailedPrecondition


def refuse_unknown_fields(message: Message, where: str) -> None:
    """See to it that every field of a stored message, and of all messages in it, is known here.

    Parameters
    ----------
    where
        What an error calls the place of the message.

    Raises
    ------
    FailedPrecondition
        A later version of vecdb wrote it.
    """
    waiting = [message]
    while waiting:
        each = waiting.pop()
        unknown = UnknownFieldSet(each)
        if len(unknown):
            number = unknown[0].field_number
            kind = each.DESCRIPTOR.name
            raise FailedPrecondition(
                f"{where}: field {number} of {kind} is unknown here: a later version of vecdb wrote it",
                field=where,
                value=f"field {number} of {kind}",
            )
        for name, many in _fields_of_messages(each.DESCRIPTOR):
            if many:
                waiting.extend(getattr(each, name))
            elif each.HasField(name):
                waiting.append(getattr(each, name))


@functools.cache
def _fields_of_messages(kind: Descriptor) -> tuple[tuple[str, bool], ...]:
    """The fields of a kind of message that hold messages, and whether they hold many. No other field is looked at."""
    return tuple((each.name, not each.has_presence) for each in kind.fields if each.message_type is not None)
