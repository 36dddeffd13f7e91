"""Vectors as bytes: row-major little-endian float32, read as a view of the message's own buffer.

A length that does not fit the dimensions and the count is refused before any number is looked at. Whether numbers are
finite and of the collection's dimension is for the engine, which checks every caller alike.
"""

from __future__ import annotations

import numpy as np

from vecdb.errors import InvalidArgument, Unimplemented
from vecdb.requests import VectorColumn
from vecdb.schema import DIM_MAX
from vecdb.types import F32Array, U32Array
from vecdb.v1 import values_pb2

_F32 = np.dtype("<f4")
_U32 = np.dtype("<u4")


def encode_column(field: str, column: VectorColumn) -> values_pb2.VectorColumn:
    """Vectors of one field of a batch as a message."""
    return values_pb2.VectorColumn(
        field=field,
        dim=column.values.shape[1],
        dtype=values_pb2.DTYPE_FLOAT32,
        data=column.values.astype(_F32, copy=False).tobytes(),
        rows=None if column.rows is None else column.rows.astype(_U32, copy=False).tobytes(),
    )


def decode_column(message: values_pb2.VectorColumn, count: int, name: str = "vectors") -> VectorColumn:
    """The vectors of a message for a batch of ``count`` points.

    Parameters
    ----------
    message
        The message; the arrays are read-only views of its bytes.
    count
        Points of the batch.
    name
        What errors call it.

    Raises
    ------
    InvalidArgument
        A length that does not fit, too many dimensions, or rows that do not ascend below ``count``.
    Unimplemented
        Numbers of a type unknown here.
    """
    rows: U32Array | None = None
    if message.HasField("rows"):
        rows = _decode_rows(message.rows, count, f"{name}.rows")
        count = rows.shape[0]
    return VectorColumn(decode_matrix(message, count, name), rows)


def decode_matrix(message: values_pb2.VectorColumn, count: int, name: str) -> F32Array:
    """The ``count`` vectors of a message as a read-only (count, dim) view; raises as ``decode_column``."""
    if message.dtype != values_pb2.DTYPE_FLOAT32:
        _refuse_dtype(message.dtype, f"{name}.dtype")
    dim = message.dim
    if dim > DIM_MAX:
        raise InvalidArgument(
            f"{name}.dim must be at most {DIM_MAX}, got {dim}", field=f"{name}.dim", limit=DIM_MAX, value=dim
        )
    data = message.data
    expected_bytes = count * dim * _F32.itemsize
    if len(data) != expected_bytes:
        raise InvalidArgument(
            f"{name}.data must have {expected_bytes} bytes ({count} vectors of {dim} float32), got {len(data)}",
            field=f"{name}.data",
            limit=f"{expected_bytes} bytes",
            value=len(data),
        )
    return np.frombuffer(data, _F32).reshape(count, dim)


def decode_floats(data: bytes) -> F32Array:
    """A column of float32 as a read-only (n,) view."""
    return np.frombuffer(data, _F32)


def encode_floats(values: F32Array) -> bytes:
    """(n,) float32 as bytes."""
    return values.astype(_F32, copy=False).tobytes()


def _decode_rows(data: bytes, count: int, name: str) -> U32Array:
    if len(data) % _U32.itemsize:
        raise InvalidArgument(
            f"{name} must be whole uint32 of 4 bytes, got {len(data)} bytes",
            field=name,
            limit="4 bytes each",
            value=len(data),
        )
    rows = np.frombuffer(data, _U32)
    if rows.shape[0] and (int(rows[-1]) >= count or not (rows[1:] > rows[:-1]).all()):
        raise InvalidArgument(
            f"{name} must ascend and stay below {count}, the number of points",
            field=name,
            limit=f"ascending, below {count}",
        )
    return rows


def _refuse_dtype(dtype: int, name: str) -> None:
    if dtype == values_pb2.DTYPE_UNSPECIFIED:
        raise InvalidArgument(f"{name} is missing", field=name, limit="DTYPE_FLOAT32")
    raise Unimplemented(f"{name} {dtype} is unknown here", field=name, limit="DTYPE_FLOAT32", value=dtype)
