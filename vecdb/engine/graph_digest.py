"""The digest of a graph's content: equal for equal graphs, whatever file, segment or collection holds them.

It covers the arrays and not the file, whose header and checksums carry a number drawn at random.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vecdb.types import AnyArray


@dataclass(frozen=True, slots=True)
class GraphDigest:
    """One graph and what it holds.

    Attributes
    ----------
    collection
        Its name, or its id where the name is not known.
    rows
        Of the graph.
    sha256
        Hexadecimal, from ``content_digest``.
    """

    collection: str
    segment_id: int
    field: str
    rows: int
    sha256: str


def content_digest(arrays: Mapping[str, AnyArray]) -> str:
    """SHA-256, in hexadecimal, of the names, types, shapes and little-endian bytes of arrays, in the order of names."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest.update(f"{name}\0{little.dtype.str}\0{little.shape}\0".encode())
        digest.update(little.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
