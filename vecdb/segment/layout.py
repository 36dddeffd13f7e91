"""Which files make up a segment and which arrays each holds. The bytes are described in docs/formats/segment.md.

Every file has a role; roles of a vector field carry its name. A role is replaced by a file of a higher generation and
never rewritten, so that a graph can be attached or a payload changed without touching the vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from vecdb.storage.array_file import FileRef
from vecdb.types import SegmentId


class Role(Enum):
    """What a file of a segment holds."""

    # Members are single; the hash of an Enum by its name runs in Python, for every file looked up in every search.
    __hash__ = object.__hash__

    IDS = "ids"
    """``hashes`` (n,) uint64 ascending; ``hash_rows`` (n,) uint32: the row of each hash; ``key_offsets`` (n+1,) uint64
    into ``keys`` uint8: the encoded id of each row."""

    SEQS = "seqs"
    """``seqs`` (n,) uint64: the write batch that made each row."""

    PAYLOAD = "payload"
    """``offsets`` (n+1,) uint64 into ``bytes`` uint8: one UTF-8 JSON object a row."""

    VECTORS = "vectors"
    """``vectors`` (m, dim) float32, normalised under cosine; ``norms`` (m,) float32 under cosine: the original lengths;
    ``slot_rows`` (m,) uint32 ascending, only where some row lacks the vector."""

    CODES = "codes"
    """The arrays of ``vecdb.index.codes.ScalarCodes``."""

    GRAPH = "graph"
    """The arrays of ``vecdb.index.hnsw.HnswBuilder``."""

    JOURNAL = "journal"
    """What happened in the segment's range of seqs and is not told by its rows: ``key_offsets``, ``keys`` and ``seqs``
    of deletes; ``request_offsets`` and ``requests``: encoded ``AppliedRequest`` messages."""


ROLES_OF_FIELDS = frozenset({Role.VECTORS, Role.CODES, Role.GRAPH})


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """One file of a segment, as the manifest names it."""

    role: Role
    field: str
    generation: int
    ref: FileRef


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """One segment, as the manifest names it.

    Attributes
    ----------
    rows
        Rows in its files, dead ones included.
    seq_first, seq_last
        The write batches whose effects it holds.
    """

    segment_id: SegmentId
    rows: int
    seq_first: int
    seq_last: int
    files: tuple[SegmentFile, ...]

    def file(self, role: Role, field: str = "") -> SegmentFile | None:
        """The file of the role (and field) with the highest generation."""
        found = [each for each in self.files if each.role is role and each.field == field]
        return max(found, key=lambda each: each.generation, default=None)

    def file_names(self) -> set[str]:
        """The names of its files."""
        return {file.ref.name for file in self.files}

    def with_file(self, file: SegmentFile) -> SegmentEntry:
        """The entry with ``file`` in place of those of the same role and field."""
        kept = tuple(each for each in self.files if (each.role, each.field) != (file.role, file.field))
        return SegmentEntry(self.segment_id, self.rows, self.seq_first, self.seq_last, (*kept, file))


def file_name(segment_id: SegmentId, role: Role, field_number: int, generation: int) -> str:
    """The name of a file. Names hold numbers only: a field's name never becomes part of a path."""
    of_field = f".{field_number}" if role in ROLES_OF_FIELDS else ""
    return f"{segment_id:010d}.{role.value}{of_field}.{generation}"
