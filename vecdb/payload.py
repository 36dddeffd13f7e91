"""Payloads as bytes: JSON objects in compact UTF-8, and nothing that JSON would change.

What ``encode_payload`` accepts comes back from ``decode_payload`` equal to what went in; everything else is refused by
an error that names the place. Exact JSON types (dict with string keys, list, str, int, float, bool, None) come back as
the same types. NumPy's strings, booleans, integers and floats of at most 64 bits, and subclasses of the JSON types, are
stored as the plain value that they equal. A tuple is refused: it would come back as a list, which it does not equal.
"""

from __future__ import annotations

import json
import json.encoder
import math
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from vecdb.errors import Corruption, InvalidArgument
from vecdb.types import Payload

PAYLOAD_BYTES_MAX = 1 << 20
"""Size of one payload as JSON."""

PAYLOAD_DEPTH_MAX = 64
"""Levels of objects and lists; a payload of scalars has one."""

INTEGER_DIGITS_MAX = 4_300
"""Digits of an integer: CPython reads and writes no longer ones unless told to."""

_INTEGER_BEYOND = 10**INTEGER_DIGITS_MAX
_SCALAR_TYPES = frozenset((str, int, float, bool, type(None)))
_JSON_TYPES = _SCALAR_TYPES | {dict, list}
_STRING_ONLY = frozenset((str,))
_PLAIN_KEY = re.compile(r"[^\W\d]\w*")
_WHITESPACE = " \t\n\r"

_decode = json.JSONDecoder().raw_decode


def _encoder() -> Callable[[object], str]:
    """The standard library's encoder; its C core is kept, where there is one, and not made again for every payload."""
    slow = json.JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"))
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return slow.encode
    fast = make(None, slow.default, json.encoder.encode_basestring, None, ":", ",", False, False, False)

    def encode(payload: object) -> str:
        return "".join(fast(payload, 0))

    return encode


_encode = _encoder()


def encode_payload(payload: Payload, position_in_batch: int = 0) -> bytes:
    """Write a payload as compact UTF-8 JSON.

    Parameters
    ----------
    payload
        The object to store.
    position_in_batch
        Which payload of the call this is, for the error.

    Raises
    ------
    InvalidArgument
        Not a dict; a key that is no string; a value of another type than JSON has; NaN or infinity; half of a surrogate
        pair; an integer of more than ``INTEGER_DIGITS_MAX`` digits; deeper than ``PAYLOAD_DEPTH_MAX``; larger than
        ``PAYLOAD_BYTES_MAX``. ``field`` names the place: ``payloads[3].meta.year``.
    """
    if type(payload) is not dict or not _is_json(payload, 1):
        payload = _Place(position_in_batch).plain_object(payload)
    try:
        data = _encode(payload).encode()
    except ValueError as error:
        # NaN, infinity, a surrogate or an endless integer: the walk finds where.
        place = _Place(position_in_batch)
        place.plain_object(payload)
        raise InvalidArgument(f"{place} holds what this Python cannot write as JSON", field=str(place)) from error
    if len(data) > PAYLOAD_BYTES_MAX:
        _refuse_size(len(data), position_in_batch)
    if len(data) > INTEGER_DIGITS_MAX and sys.get_int_max_str_digits() != INTEGER_DIGITS_MAX:
        # A Python told to write longer integers would store what another cannot read.
        _Place(position_in_batch).plain_object(payload)
    return data


def decode_payload(data: bytes) -> Payload:
    """Read a payload that ``encode_payload`` wrote or ``check_payload`` accepted.

    Raises
    ------
    Corruption
        The bytes are not one JSON object.
    """
    try:
        text = data.decode().strip(_WHITESPACE)
        payload, end = _decode(text)
        complete = end == len(text)
    except (ValueError, RecursionError):
        complete = False
    if not complete:
        raise Corruption("stored payload bytes are not JSON", field="payload", value=f"{len(data)} bytes")
    if type(payload) is not dict:
        raise Corruption("stored payload bytes are not a JSON object", field="payload", value=type(payload).__name__)
    return payload


def check_payload(data: bytes, position_in_batch: int = 0) -> None:
    """Refuse JSON bytes from outside that a later ``decode_payload`` would not give back in full.

    Raises
    ------
    InvalidArgument
        As ``encode_payload``, and: the bytes are not UTF-8 or not JSON, NaN or Infinity spelled out, a number too large
        for a 64-bit float, or a key twice in one object.
    """
    if len(data) > PAYLOAD_BYTES_MAX:
        _refuse_size(len(data), position_in_batch)
    place = _Place(position_in_batch)
    try:
        text = data.decode().rstrip(_WHITESPACE)
        payload, end = _decode_strictly(text, len(text) - len(text.lstrip(_WHITESPACE)))
    except RecursionError:
        place.refuse_depth()
    except _RepeatedKey as error:
        raise InvalidArgument(
            f"{place} has a key twice in one object",
            field=str(place),
            limit="each key once",
            value=_key_text(str(error)),
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        # Only the place: the decoder's own message may quote the payload.
        at = error.pos if isinstance(error, json.JSONDecodeError) else error.start
        raise InvalidArgument(f"{place} is not JSON in UTF-8 at offset {at}", field=str(place), position=at) from None
    except ValueError:
        raise InvalidArgument(
            f"{place} holds NaN, Infinity or an integer of more than {INTEGER_DIGITS_MAX} digits",
            field=str(place),
            limit=f"finite numbers, integers of at most {INTEGER_DIGITS_MAX} digits",
        ) from None
    if end != len(text):
        raise InvalidArgument(f"{place} goes on after its JSON object, at offset {end}", field=str(place), position=end)
    # Only what JSON text can still hold is looked for: too many levels, a number beyond a float, half of a surrogate.
    encode_payload(payload, position_in_batch)


class _RepeatedKey(ValueError):
    """Carries the key."""


def _unique(pairs: list[tuple[str, Any]]) -> Payload:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        seen: set[str] = set()
        raise _RepeatedKey(next(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]
    return unique


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


_decode_strictly = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant).raw_decode


def _is_json(container: Any, depth: int) -> bool:
    """Whether every key is exactly a str, every value exactly of a JSON type, and the depth allowed."""
    if type(container) is dict:
        if container and not _STRING_ONLY.issuperset(map(type, container)):
            return False
        container = container.values()
    if _SCALAR_TYPES.issuperset(map(type, container)):
        return True
    if depth == PAYLOAD_DEPTH_MAX or not _JSON_TYPES.issuperset(map(type, container)):
        return False
    for each in container:
        kind = type(each)
        # A flat list, such as tags, is worth the look before the call.
        if kind is list and _SCALAR_TYPES.issuperset(map(type, each)):
            continue
        if (kind is list or kind is dict) and not _is_json(each, depth + 1):
            return False
    return True


class _Place:
    """A walk over a payload that knows where it stands, to copy it into plain types or to say what is wrong."""

    __slots__ = ("_keys",)

    def __init__(self, position_in_batch: int) -> None:
        self._keys: list[str] = [f"payloads[{position_in_batch}]"]

    def __str__(self) -> str:
        return "".join(self._keys)

    def plain_object(self, payload: Any) -> Payload:
        """An equal payload of plain types; raises InvalidArgument where there is none."""
        if not isinstance(payload, dict):
            self.refuse(payload, "a payload is a JSON object", "dict")
        copy: Payload = self._plain(payload)
        return copy

    def _plain(self, value: Any) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._plain_string(value)
        if isinstance(value, int):
            if not -_INTEGER_BEYOND < value < _INTEGER_BEYOND:
                self.refuse(
                    value, f"an integer has at most {INTEGER_DIGITS_MAX} digits", f"{INTEGER_DIGITS_MAX} digits"
                )
            return int(value)
        if isinstance(value, float):
            if not math.isfinite(value):
                self.refuse(value, "JSON has no NaN and no infinity", "finite numbers", str(float(value)))
            return float(value)
        if isinstance(value, dict | list):
            return self._plain_container(value)
        if isinstance(value, np.generic) and value.dtype.kind in "biuf" and value.itemsize <= 8:
            return self._plain(value.item())
        return self.refuse(value, "a payload holds what JSON has", "dict, list, str, int, float, bool, None")

    def _plain_container(self, value: dict[Any, Any] | list[Any]) -> Any:
        if len(self._keys) > PAYLOAD_DEPTH_MAX:
            self.refuse_depth()
        if isinstance(value, list):
            items: list[Any] = []
            for index, each in enumerate(value):
                self._keys.append(f"[{index}]")
                items.append(self._plain(each))
                self._keys.pop()
            return items
        members: Payload = {}
        for key, each in value.items():
            if not isinstance(key, str):
                self.refuse(key, "JSON keys are strings, and a key is not changed into one", "str keys")
            self._keys.append(f".{_key_text(key)}")
            members[self._plain_string(key)] = self._plain(each)
            self._keys.pop()
        return members

    def _plain_string(self, value: str) -> str:
        try:
            value.encode()
        except UnicodeEncodeError:
            self.refuse(value, "text holds half of a surrogate pair, which UTF-8 cannot express", "UTF-8")
        return str.__str__(value)

    def refuse_depth(self) -> NoReturn:
        """Raise for a level too many."""
        place = "".join(self._keys[:4]) + ("..." if len(self._keys) > 4 else "")
        raise InvalidArgument(
            f"{self._keys[0]} is nested deeper than {PAYLOAD_DEPTH_MAX} levels",
            field=place,
            limit=f"{PAYLOAD_DEPTH_MAX} levels",
            value=f"more than {PAYLOAD_DEPTH_MAX} levels",
        )

    def refuse(self, value: object, rule: str, limit: str, found: str | None = None) -> NoReturn:
        """Raise for ``value``, naming its type only: errors are logged, payloads must not be."""
        found = found or type(value).__name__
        raise InvalidArgument(f"{self}: {rule}; found {found}", field=str(self), limit=limit, value=found)


def _key_text(key: str) -> str:
    """A key as part of a place, quoted unless plain, without what a log could not write."""
    if _PLAIN_KEY.fullmatch(key):
        return key
    return json.dumps(key if len(key) <= 80 else key[:77] + "...", ensure_ascii=not key.isprintable())


def _refuse_size(size_bytes: int, position_in_batch: int) -> NoReturn:
    raise InvalidArgument(
        f"payloads[{position_in_batch}] has {size_bytes} bytes as JSON; at most {PAYLOAD_BYTES_MAX} are allowed",
        field=f"payloads[{position_in_batch}]",
        limit=f"{PAYLOAD_BYTES_MAX} bytes",
        value=f"{size_bytes} bytes",
    )
