"""Which graph a merge goes on from: that of the source that gives the new segment most of its rows, if it gives enough.

A function of the sources in their order and of the schema: the new graph is one too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vecdb.index.hnsw import LentGraph
from vecdb.schema import VectorField
from vecdb.segment.layout import Role
from vecdb.segment.merge import MergeSource, kept_slots

_SHARE_MIN = 0.2
"""Of the rows of the new graph that come from the lent one; with fewer, building from nothing costs little more."""

_KEPT_MIN = 0.7
"""Of the rows of the lent graph that are kept; with fewer, searches take more distances than in a new one."""


def lent_graph(sources: Sequence[MergeSource], declared: VectorField) -> LentGraph | None:
    """What the sources of a merge have for the graph of a field; ``None`` where it is to be built from nothing.

    Raises
    ------
    Corruption
        The graph of the source that would lend it is damaged.
    """
    slots = [kept_slots(source, declared.name) for source in sources if source.rows.shape[0]]
    readers = [source.reader for source in sources if source.rows.shape[0]]
    counts = [kept.shape[0] for kept in slots]
    able = [at for at, reader in enumerate(readers) if reader.entry.file(Role.GRAPH, declared.name) is not None]
    largest = max(able, key=lambda at: counts[at], default=None)
    if largest is None:
        return None
    reader, kept = readers[largest], slots[largest]
    all_slots = reader.field(declared.name).slots
    if counts[largest] < _SHARE_MIN * sum(counts) or counts[largest] < _KEPT_MIN * all_slots:
        return None
    rows = np.full(all_slots, -1, np.int32)
    first = sum(counts[:largest])
    rows[kept] = np.arange(first, first + kept.shape[0], dtype=np.int32)
    lent = LentGraph.from_arrays(reader.files.array_file(Role.GRAPH, declared.name).arrays, rows)
    return lent if lent.links.shape[1] == 2 * declared.index.m else None
