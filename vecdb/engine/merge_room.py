"""The disk that a merge needs, known before it begins: it takes none of what writes and flushes live on.

A merge keeps its sources until it is committed, so for a time it takes its whole result. It begins where that fits and
as much as the reserve stays free beside it. Where less is free, it may have the reserve if it soon gives back more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vecdb.engine.options import EngineOptions
from vecdb.engine.state import CollectionState
from vecdb.schema import CollectionSchema, IndexKind
from vecdb.segment.layout import Role, SegmentEntry
from vecdb.storage.io import DiskFull, translating

_LINK_BYTES = 4


@dataclass(frozen=True, slots=True)
class MergePart:
    """A segment that is to be merged, and how many of its rows are kept."""

    entry: SegmentEntry
    live_rows: int


def merged_bytes(parts: Sequence[MergePart], schema: CollectionSchema, options: EngineOptions) -> int:
    """About the size of what the merge makes: the live share of every file but graphs, which are built anew."""
    size_bytes = sum(_kept_bytes(each) for each in parts)
    rows = sum(each.live_rows for each in parts)
    if rows >= options.graph_rows_min:
        for declared in schema.vectors:
            if declared.index.kind is not IndexKind.FLAT:
                # 2 m links of each row; the layers above have about m links of every m-th row, and its number.
                size_bytes += rows * _LINK_BYTES * (2 * declared.index.m + 2)
    return size_bytes


def _kept_bytes(part: MergePart) -> int:
    entry = part.entry
    size_bytes = {role: sum(each.ref.size_bytes for each in entry.files if each.role is role) for role in Role}
    shared = sum(size for role, size in size_bytes.items() if role not in (Role.GRAPH, Role.JOURNAL))
    # A journal tells of other rows than those of its segment.
    return size_bytes[Role.JOURNAL] + (shared * part.live_rows // entry.rows if entry.rows else 0)


def may_have_reserve(state: CollectionState, parts: Sequence[MergePart]) -> bool:
    """Whether a merge may have the reserve, should the disk be full before it is done.

    Raises
    ------
    DiskFull
        There is no room for the merge.
    """
    path = state.directory.path
    reserve = state.resources.reserve
    needed_bytes = merged_bytes(parts, state.manifest.schema, state.options)
    with translating(path, "read"):
        free_bytes = state.directory.fs.free_bytes(path)
    if needed_bytes + reserve.size_bytes <= free_bytes:
        return False
    held_bytes = reserve.size_bytes if reserve.held else 0
    worth_it = needed_bytes < (1 - state.options.compaction_dead_share_max) * _freed_bytes(state, parts)
    if worth_it and needed_bytes <= free_bytes + held_bytes:
        return True
    raise DiskFull(
        f"merging {len(parts)} segments takes about {needed_bytes} bytes in {path} until the old ones are gone, and "
        f"{reserve.size_bytes} are to stay free beside them; {free_bytes} are free",
        field=str(path),
        limit=f"{free_bytes} bytes free",
        value=f"{needed_bytes + reserve.size_bytes} bytes needed",
    )


def has_room(state: CollectionState, parts: Sequence[MergePart]) -> bool:
    """Whether there is room for a merge."""
    try:
        may_have_reserve(state, parts)
    except DiskFull:
        return False
    return True


def _freed_bytes(state: CollectionState, parts: Sequence[MergePart]) -> int:
    """What goes with the sources of a merge: all that no snapshot keeps."""
    kept: set[str] = set().union(*(each.file_names() for each in state.manifest.snapshots))
    files = [file.ref for each in parts for file in each.entry.files]
    return sum(ref.size_bytes for ref in files if ref.name not in kept)
