"""Payload values by path, in the form that predicates evaluate quickly: each distinct value once, and a code per row.

A ``FieldColumn`` never changes. Columns of one part share an append-only dictionary per path, so that a growing
memtable decodes and encodes each of its rows once, however many columns are taken of it. Numbers that are equal share a
code (``1`` and ``1.0``, exactly, at any size); ``1``, ``True`` and ``"1"`` do not.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vecdb.errors import Corruption
from vecdb.filter import Path, Scalar
from vecdb.payload import decode_payload
from vecdb.query.dictionary import ABSENT, LIST, ValueDictionary
from vecdb.types import I32Array, Payload

_CHUNK_ROWS = 512
_CHUNK_BYTES_MAX = 4 << 20

_decode = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True, eq=False)
class FieldColumn:
    """The values at one path of the first ``n`` rows.

    Attributes
    ----------
    codes
        (n,) int32: an index into ``values``, or ``MISSING``, ``NULL``, ``LIST``, ``OBJECT``.
    dictionary
        The distinct scalars, of rows and of list elements; it may hold more than these rows use.
    element_rows
        (elements,) int32, ascending: the row of each list element.
    element_codes
        (elements,) int32: the elements, coded as ``codes`` are. A list without elements shows in ``codes`` only.
    """

    codes: I32Array
    dictionary: ValueDictionary
    element_rows: I32Array
    element_codes: I32Array

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.codes.shape[0])

    @property
    def values(self) -> Sequence[Scalar]:
        """The distinct scalars; the index is the code."""
        return self.dictionary.values

    @property
    def nbytes(self) -> int:
        """About how many bytes of memory the column and its dictionary hold."""
        arrays = self.codes.nbytes + self.element_rows.nbytes + self.element_codes.nbytes
        return arrays + _values_bytes(self.values)


class PayloadColumns:
    """The columns of one part's payloads, built when a path is first asked for and extended as the part grows.

    Safe to use from several threads. A row is decoded once for all paths that are asked for together.

    Parameters
    ----------
    payloads
        The JSON bytes of each row: any sequence of which a slice is a sequence; it may grow at its end, and its rows
        never change.
    """

    __slots__ = ("_builders", "_lock", "_payloads", "_used_s")

    def __init__(self, payloads: Sequence[bytes]) -> None:
        self._payloads = payloads
        self._builders: dict[Path, _ColumnBuilder] = {}
        self._used_s: dict[Path, float] = {}
        """When each path was last asked for, by the monotonic clock."""
        self._lock = threading.Lock()

    def columns(self, paths: Iterable[Path], n: int | None = None) -> dict[Path, FieldColumn]:
        """The columns of the first ``n`` rows (all that there are, if not given) at each path.

        Raises
        ------
        Corruption
            A payload is not a JSON object.
        """
        rows = len(self._payloads) if n is None else n
        wanted = list(paths)
        now_s = time.monotonic()
        for path in wanted:
            self._used_s[path] = now_s
        builders = [self._builders.get(path) for path in wanted]
        if any(builder is None or builder.rows < rows for builder in builders):
            with self._lock:
                builders = [self._builders.setdefault(path, _ColumnBuilder(path)) for path in wanted]
                self._extend([builder for builder in builders if builder is not None], rows)
        return {
            path: builder.column(rows) for path, builder in zip(wanted, builders, strict=True) if builder is not None
        }

    def _extend(self, builders: list[_ColumnBuilder], rows: int) -> None:
        assert rows <= len(self._payloads), (rows, len(self._payloads))
        while True:
            behind = [builder for builder in builders if builder.rows < rows]
            if not behind:
                return
            start = min(builder.rows for builder in behind)
            # Those further on join in when the others have caught up with them.
            stop = min((builder.rows for builder in behind if builder.rows > start), default=rows)
            stop = min(stop, start + _CHUNK_ROWS)
            objects = _decode_rows(self._payloads[start:stop], start)
            for builder in behind:
                if builder.rows == start:
                    builder.append(objects)

    @property
    def nbytes(self) -> int:
        """About how many bytes of memory the columns hold."""
        return sum(size_bytes for _, _, size_bytes in self.kept())

    def kept(self) -> list[tuple[Path, float, int]]:
        """The columns in memory: path, when it was last asked for, and about how many bytes it holds."""
        # Without the lock, as below: whoever makes a column holds it, and may have to make room meanwhile.
        return [(path, self._used_s.get(path, 0.0), builder.nbytes) for path, builder in list(self._builders.items())]

    def drop(self, path: Path) -> None:
        """Forget the column of a path; it is made again when it is asked for."""
        self._builders.pop(path, None)
        self._used_s.pop(path, None)


class _GrowingArray:
    """int32 values that grow in number at their end; views taken earlier stay as they are.

    How many of them count is for the owner to say: what lies beyond may be written any number of times.
    """

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer: I32Array = np.zeros(16, np.int32)

    def write(self, size: int, values: list[int]) -> None:
        """Put values after the first ``size``."""
        end = size + len(values)
        if end > self._buffer.shape[0]:
            grown = np.zeros(max(end, 2 * self._buffer.shape[0]), np.int32)
            grown[:size] = self._buffer[:size]
            self._buffer = grown
        self._buffer[size:end] = values

    @property
    def nbytes(self) -> int:
        """Bytes of memory that they hold, with room for more."""
        return int(self._buffer.nbytes)

    def view(self, size: int) -> I32Array:
        """The first ``size`` values."""
        view = self._buffer[:size]
        view.flags.writeable = False
        return view


class _ColumnBuilder:
    """One path's column so far. One thread at a time appends; any may take columns of rows already appended.

    An append that fails on the way, for want of memory or by a signal's exception, has not happened.
    """

    __slots__ = ("_codes", "_dictionary", "_element_codes", "_element_rows", "_path", "_sizes", "_values_bytes")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._dictionary = ValueDictionary()
        self._codes = _GrowingArray()
        self._element_rows = _GrowingArray()
        self._element_codes = _GrowingArray()
        self._sizes = (0, 0)
        """Rows and list elements; replaced as one, when all arrays hold them."""
        self._values_bytes = 0

    @property
    def rows(self) -> int:
        return self._sizes[0]

    @property
    def nbytes(self) -> int:
        """About how many bytes of memory it holds."""
        return self._codes.nbytes + self._element_rows.nbytes + self._element_codes.nbytes + self._values_bytes

    def append(self, objects: list[Payload]) -> None:
        first, elements_before = self._sizes
        values_before = len(self._dictionary.values)
        values = _values_at(objects, self._path)
        codes = self._dictionary.encode(values)
        rows: list[int] = []
        elements: list[int] = []
        if LIST in codes:
            for row, value in enumerate(values, first):
                if type(value) is list:
                    elements.extend(self._dictionary.encode(value))
                    rows.extend([row] * len(value))
            self._element_codes.write(elements_before, elements)
            self._element_rows.write(elements_before, rows)
        self._codes.write(first, codes)
        self._values_bytes += _values_bytes(self._dictionary.values[values_before:])
        # Last: whoever reads, and whoever tries again after a failure, goes by these.
        self._sizes = (first + len(objects), elements_before + len(elements))

    def column(self, rows: int) -> FieldColumn:
        _, all_elements = self._sizes
        element_rows = self._element_rows.view(all_elements)
        elements = int(np.searchsorted(element_rows, rows))
        return FieldColumn(
            self._codes.view(rows),
            self._dictionary,
            element_rows[:elements],
            self._element_codes.view(elements),
        )


def _values_bytes(values: Sequence[Scalar]) -> int:
    """About how many bytes of memory the distinct values of a column take."""
    # A value's hash table entry and its places in lists and order take about as much again as its object.
    return 2 * sum(map(sys.getsizeof, values))


def _values_at(objects: list[Payload], path: Path) -> list[Any]:
    if len(path) == 1:
        key = path[0]
        return [payload.get(key, ABSENT) for payload in objects]
    values: list[Any] = objects
    for key in path:
        values = [value.get(key, ABSENT) if type(value) is dict else ABSENT for value in values]
    return values


def _decode_rows(payloads: Sequence[bytes], first_row: int) -> list[Payload]:
    """Decode the payloads of consecutive rows: together, as one JSON array, which costs half as much."""
    if sum(map(len, payloads)) <= _CHUNK_BYTES_MAX:
        try:
            objects, _ = _decode((b"[" + b",".join(payloads) + b"]").decode())
        except (ValueError, RecursionError):
            objects = []
        if len(objects) == len(payloads) and set(map(type, objects)) <= {dict}:
            decoded: list[Payload] = objects
            return decoded
    singly: list[Payload] = []
    for row, data in enumerate(payloads, first_row):
        try:
            singly.append(decode_payload(data))
        except Corruption as error:
            raise Corruption(f"row {row}: {error.message}", field=error.field, value=error.value) from None
    return singly
