"""A segment, opened for reading.

Nothing is served unverified: ids, seqs, codes and graphs are checked whole before their first use, vectors and payloads
block by block before a row of them is read. Nothing that a reader is made of holds the reader, so that it is gone, and
its files may be unlinked, as soon as nobody holds it, without waiting for the garbage collector.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from vecdb.kernels.protocol import Kernels
from vecdb.schema import CollectionSchema
from vecdb.segment.field import SegmentField
from vecdb.segment.files import SegmentFiles
from vecdb.segment.keys import SegmentKeys
from vecdb.segment.layout import Role, SegmentEntry, SegmentFile
from vecdb.segment.payloads import SegmentPayloads
from vecdb.segment.room import Room
from vecdb.storage.directory import MmapDirectory
from vecdb.types import U64Array


class SegmentReader:
    """One segment. Safe to use from many threads; replaced roles appear by ``attach`` and ``take``.

    Parameters
    ----------
    directory
        Where the files are.
    entry
        What the manifest says of the segment.
    room
        The budget of memory that it keeps to, if there is one.
    go_on
        Called every few milliseconds while a graph is opened; whatever it raises ends that, and nothing is kept of it.

    Attributes
    ----------
    files
        The segment's files.
    keys, payloads
        The encoded id and the payload of each row.
    rows
        Rows in the segment, dead ones included.
    searched_s
        When it was last searched, by the monotonic clock; 0.0: never.
    """

    def __init__(
        self,
        directory: MmapDirectory,
        entry: SegmentEntry,
        schema: CollectionSchema,
        kernels: Kernels,
        room: Room | None = None,
        go_on: Callable[[], None] | None = None,
    ) -> None:
        self.files = SegmentFiles(directory, entry)
        self.keys = SegmentKeys(self.files)
        self.payloads = SegmentPayloads(self.files, room)
        self.rows = entry.rows
        self.room = room
        self._go_on = go_on
        self.searched_s = 0.0
        self._schema = schema
        self._kernels = kernels
        self._lock = threading.Lock()
        self._fields: dict[str, SegmentField] = {}

    @property
    def entry(self) -> SegmentEntry:
        """What the manifest says of the segment now."""
        return self.files.entry

    @property
    def segment_id(self) -> int:
        """The segment's number."""
        return self.files.entry.segment_id

    @property
    def field_names(self) -> list[str]:
        """The names of the vector fields."""
        return [each.name for each in self._schema.vectors]

    @property
    def seqs(self) -> U64Array:
        """(n,) uint64: the write batch that made each row."""
        return self.files.row_array(Role.SEQS, "seqs", self.rows)

    def attach(self, file: SegmentFile) -> None:
        """Use ``file`` for its role from now on."""
        self.files.attach(file)
        self._forget_fields((file,))

    def take(self, entry: SegmentEntry, *, damaged: bool = False) -> None:
        """Use the files of a newer entry of the segment; all of them are mapped on return, none is verified for it.

        For who does not own the directory: what is mapped stays readable when the owner unlinks it.

        Parameters
        ----------
        damaged
            Files may be missing or damaged; such a one is left to be an error where it is needed.

        Raises
        ------
        Corruption
            A file is missing or its frame is damaged; the reader is as it was.
        """
        self._forget_fields(self.files.take(entry, damaged=damaged))

    def _forget_fields(self, changed: Iterable[SegmentFile]) -> None:
        """Let the fields of changed files be made anew."""
        with self._lock:
            for file in changed:
                self._fields.pop(file.field, None)

    def field(self, name: str) -> SegmentField:
        """The vectors of a field and what searches them."""
        found = self._fields.get(name)
        self.searched_s = time.monotonic()
        if found is None:
            entry = self.files.entry
            found = SegmentField(self.files, self._schema.vector(name), self._kernels, self.room, self._go_on)
            with self._lock:
                # One that was made while a file was attached may lack it.
                if self.files.entry is entry:
                    self._fields[name] = found
        return found

    def open_field(self, name: str) -> SegmentField | None:
        """The same if it was asked for before: opens nothing."""
        self.searched_s = time.monotonic()
        return self._fields.get(name)

    def has_open_rows(self, with_payloads: bool) -> bool:
        """Whether the ids, and the payloads too, are open and verified."""
        opened = self.files.opened
        payloads = opened.get((Role.PAYLOAD, ""))
        return (Role.IDS, "") in opened and (not with_payloads or (payloads is not None and payloads.verified))

    @property
    def derived_bytes(self) -> int:
        """Bytes of memory of what was computed from the files and is kept."""
        return sum(field.derived_bytes for field in list(self._fields.values()))

    def forget_derived(self) -> None:
        """Give up what was computed from the files; it is computed again when it is needed."""
        for field in list(self._fields.values()):
            field.forget_derived()
