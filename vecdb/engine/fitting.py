"""Whether what is derived from the rows of a segment fits them: the index of ids, the codes and the graph.

Checksums cannot tell that; both the check and the repair of a database ask it here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from vecdb.errors import VecdbError
from vecdb.index.codes import ScalarCodes
from vecdb.kernels.protocol import Kernels
from vecdb.segment.ids import hash_keys
from vecdb.segment.layout import Role, SegmentEntry
from vecdb.segment.reader import SegmentReader
from vecdb.types import F32Array, U32Array, U64Array

_ROWS_AT_ONCE = 65_536


def misfits(
    reader: SegmentReader, entry: SegmentEntry, hash_key: bytes, kernels: Kernels
) -> Iterator[tuple[Role, str, str]]:
    """(role, field, what is wrong) of each derived file that does not fit; all files must be whole."""
    if not entry.rows:
        return
    if not index_fits(reader.keys[:], reader.keys.hashes, reader.keys.hash_rows, hash_key):
        yield Role.IDS, "", "the id index does not fit the ids"
    for name in reader.field_names:
        try:
            field = reader.field(name)
            codes = field.codes
        except VecdbError as error:
            yield Role.CODES, name, error.message
            continue
        if not codes_fit(kernels, field.vectors.vectors, codes):
            yield Role.CODES, name, f"field {name!r}: the codes do not fit the vectors"
        if entry.file(Role.GRAPH, name) is not None:
            try:
                problems = field.graph.check()
            except VecdbError as error:
                problems = [error.message]
            for problem in problems:
                yield Role.GRAPH, name, f"field {name!r}: {problem}"


def index_fits(keys: Sequence[bytes], hashes: U64Array, hash_rows: U32Array, hash_key: bytes) -> bool:
    """Whether ``hashes`` and ``hash_rows`` are the index of the ids."""
    rows = len(keys)
    if (hash_rows >= rows).any() or np.unique(hash_rows).shape[0] != rows or (hashes[1:] < hashes[:-1]).any():
        return False
    return bool(np.array_equal(hash_keys(keys, hash_key)[hash_rows], hashes))


def codes_fit(kernels: Kernels, vectors: F32Array, codes: ScalarCodes) -> bool:
    """Whether the codes are those of the vectors, with the centre and the step that are stored with them."""
    for at in range(0, vectors.shape[0], _ROWS_AT_ONCE):
        part = slice(at, at + _ROWS_AT_ONCE)
        again = kernels.encode(vectors[part], codes.centre, codes.step)
        if not np.array_equal(again.table, codes.codes.table[part]) or not np.array_equal(
            again.norms, codes.codes.norms[part]
        ):
            return False
    return True
