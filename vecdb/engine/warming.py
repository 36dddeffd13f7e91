"""Warming: what the next search of a collection needs is compiled, opened, verified and in memory when it comes."""

from __future__ import annotations

import time
from collections.abc import Iterable

from vecdb.engine.memory_budget import MemoryBudget
from vecdb.engine.state import CollectionState
from vecdb.filter import parse_filter
from vecdb.results.warming import WarmReport
from vecdb.segment.layout import Role
from vecdb.segment.reader import SegmentReader
from vecdb.storage.array_file import ArrayFile


def warm(state: CollectionState, budget: MemoryBudget, *, with_vectors: bool) -> WarmReport:
    """Compile the kernels; open, verify and read the ids, codes and graphs of all segments, as far as there is room.

    The grammar of filters is made too.

    Parameters
    ----------
    with_vectors
        Verify and read the float32 vectors too, after everything else.

    Raises
    ------
    Corruption
        A file is damaged.
    Cancelled
        The collection is being closed.
    """
    began_s = time.perf_counter()
    kernels = state.kernels.warm_up()
    parse_filter("a = 1")
    compiled_s = time.perf_counter()
    readers = [each.reader for each in state.view.segments]
    searched = {reader: _searched(state, reader) for reader in readers}
    vectors = [file for reader in readers for file in _vectors(state, reader)] if with_vectors else []
    verified_s = time.perf_counter()
    resident_bytes = left_out_bytes = 0
    for reader, files in searched.items():
        left_out = _populate(state, budget, files)
        if not left_out:
            _open_indexes(reader)
        left_out_bytes += left_out
        resident_bytes += sum(each.ref.size_bytes for each in files) - left_out
    left_out = _populate(state, budget, vectors)
    left_out_bytes += left_out
    resident_bytes += sum(each.ref.size_bytes for each in vectors) - left_out
    return WarmReport(
        segments=len(readers),
        resident_bytes=resident_bytes,
        left_out_bytes=left_out_bytes,
        kernels=len(kernels),
        kernels_compiled=sum(not each.cached for each in kernels),
        compile_s=compiled_s - began_s,
        verify_s=verified_s - compiled_s,
        read_s=time.perf_counter() - verified_s,
    )


def _searched(state: CollectionState, reader: SegmentReader) -> list[ArrayFile]:
    """The files of a segment that searches walk through, verified."""
    state.check_not_closing()
    files = [reader.files.array_file(Role.IDS)]
    for name in reader.field_names:
        roles = (Role.CODES, Role.GRAPH) if reader.field(name).has_graph else (Role.CODES,)
        files += [reader.files.array_file(role, name) for role in roles]
    return files


def _vectors(state: CollectionState, reader: SegmentReader) -> list[ArrayFile]:
    """The float32 vectors of a segment, verified."""
    files = [reader.files.array_file(Role.VECTORS, name) for name in reader.field_names]
    for file in files:
        state.check_not_closing()
        file.verify()
    return files


def _open_indexes(reader: SegmentReader) -> None:
    """Make what is computed from codes and graphs."""
    for name in reader.field_names:
        field = reader.field(name)
        if field.has_graph:
            _ = field.graph
        else:
            _ = field.codes


def _populate(state: CollectionState, budget: MemoryBudget, files: Iterable[ArrayFile]) -> int:
    """Bring files into memory; the bytes of those for which there is no room."""
    left_out_bytes = 0
    for file in files:
        state.check_not_closing()
        if budget.admits(file):
            file.populate()
        else:
            left_out_bytes += file.ref.size_bytes
    return left_out_bytes
