"""Point ids as columns: integers apart from strings, so that ``1`` and ``"1"`` stay two ids.

A column of one kind holds no ``kinds``; a mixed one tells by one byte an id where the next is found.
"""

from __future__ import annotations

from collections.abc import Sequence

from vecdb.arguments import as_ids
from vecdb.errors import InvalidArgument, Unimplemented
from vecdb.schema import NAME_BYTES_MAX
from vecdb.types import PointId
from vecdb.v1 import values_pb2

_INTEGER, _STRING = 0, 1
_UTF8_BYTES_MAX = 4


def encode_ids(ids: Sequence[PointId]) -> values_pb2.IdColumn:
    """The ids, each exactly an ``int`` of 64 bits without sign or a ``str``, as a column."""
    kinds = set(map(type, ids))
    if kinds == {int}:
        return values_pb2.IdColumn(integers=ids)  # type: ignore[arg-type]
    if kinds == {str}:
        return values_pb2.IdColumn(strings=ids)  # type: ignore[arg-type]
    return values_pb2.IdColumn(
        integers=[each for each in ids if type(each) is int],
        strings=[each for each in ids if type(each) is str],
        kinds=bytes([_INTEGER if type(each) is int else _STRING for each in ids]),
    )


def decode_ids(column: values_pb2.IdColumn, name: str = "ids") -> tuple[PointId, ...]:
    """The ids of a column, in order.

    Parameters
    ----------
    column
        The message.
    name
        What errors call it.

    Raises
    ------
    InvalidArgument
        ``kinds`` does not tell the place of every id, or a string is empty or longer than 512 bytes.
    Unimplemented
        An id of a kind unknown here.
    """
    integers, strings, kinds = column.integers, column.strings, column.kinds
    if strings:
        lengths = [*map(len, strings)]
        if min(lengths) == 0 or max(lengths) * _UTF8_BYTES_MAX > NAME_BYTES_MAX:
            as_ids(_merged(column, name) if kinds else strings)
    if not kinds and not (integers and strings):
        return tuple(strings) if strings else tuple(integers)
    return _merged(column, name)


def _merged(column: values_pb2.IdColumn, name: str) -> tuple[PointId, ...]:
    kinds = column.kinds
    if kinds.count(_INTEGER) + kinds.count(_STRING) != len(kinds):
        unknown = next(kind for kind in kinds if kind not in (_INTEGER, _STRING))
        raise Unimplemented(
            f"{name}.kinds names a kind of id unknown here: {unknown}",
            field=f"{name}.kinds",
            limit="0, 1",
            value=unknown,
        )
    if kinds.count(_INTEGER) != len(column.integers) or kinds.count(_STRING) != len(column.strings):
        raise InvalidArgument(
            f"{name}.kinds tells of {kinds.count(_INTEGER)} integers and {kinds.count(_STRING)} strings; there are "
            f"{len(column.integers)} and {len(column.strings)}",
            field=f"{name}.kinds",
            limit=f"{len(column.integers)} + {len(column.strings)}",
            value=f"{kinds.count(_INTEGER)} + {kinds.count(_STRING)}",
        )
    integers, strings = iter(column.integers), iter(column.strings)
    return tuple([next(integers) if kind == _INTEGER else next(strings) for kind in kinds])
