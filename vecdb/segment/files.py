"""The files of a segment: opened when they are first needed, and replaced role by role.

Ids, seqs, codes, graphs and journals are verified whole before they are handed out; vectors and payloads are verified
block by block by who reads a row of them. Files are mapped lazily, so that opening a collection costs no reads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from vecdb.errors import Corruption
from vecdb.segment.layout import Role, SegmentEntry, SegmentFile
from vecdb.storage.array_file import ArrayFile
from vecdb.storage.directory import MmapDirectory
from vecdb.types import AnyArray

_WHOLE = frozenset({Role.IDS, Role.SEQS, Role.CODES, Role.GRAPH, Role.JOURNAL})


class SegmentFiles:
    """The files of one segment. Safe to use from many threads.

    Parameters
    ----------
    directory
        Where they are.
    entry
        What the manifest says of the segment.

    Attributes
    ----------
    entry
        What it says now: ``attach`` and ``take`` replace it.
    rows
        Rows of the segment, which never change.
    opened
        The files that were handed out, by role and field.
    """

    def __init__(self, directory: MmapDirectory, entry: SegmentEntry) -> None:
        self.entry = entry
        self.rows = entry.rows
        self.opened: dict[tuple[Role, str], ArrayFile] = {}
        self._directory = directory
        self._lock = threading.Lock()
        self._mapped: dict[tuple[Role, str], ArrayFile] = {}
        """Files that were mapped ahead of their first use, and not verified."""

    def attach(self, file: SegmentFile) -> None:
        """Use ``file`` for its role from now on."""
        with self._lock:
            self._attach(file, None)

    def take(self, entry: SegmentEntry, *, damaged: bool = False) -> list[SegmentFile]:
        """Use the files of a newer entry of the segment, all of which are mapped on return; those of them that are new.

        None is verified for it. Parameters and errors are those of ``SegmentReader.take``.
        """
        with self._lock:
            there = {each.ref for each in (*self.opened.values(), *self._mapped.values())}
        new: list[tuple[SegmentFile, ArrayFile | None]] = []
        for file in entry.files:
            if file.ref in there:
                continue
            try:
                new.append((file, ArrayFile.open(self._directory, file.ref, role=file.role.value)))
            except Corruption:
                if not damaged:
                    raise
                new.append((file, None))
        with self._lock:
            for file, mapped in new:
                self._attach(file, mapped)
            self.entry = entry
        return [file for file, _ in new]

    def _attach(self, file: SegmentFile, mapped: ArrayFile | None) -> None:
        self.entry = self.entry.with_file(file)
        key = (file.role, file.field)
        self.opened.pop(key, None)
        self._mapped.pop(key, None)
        if mapped is not None:
            self._mapped[key] = mapped

    def array_file(self, role: Role, field: str = "") -> ArrayFile:
        """The open file of a role; those that are read whole are verified here.

        Raises
        ------
        Corruption
            There is none, or it is damaged.
        """
        opened = self.opened.get((role, field))
        return self._open(role, field) if opened is None else opened

    def _open(self, role: Role, field: str) -> ArrayFile:
        with self._lock:
            opened = self.opened.get((role, field))
            if opened is None:
                named = self.entry.file(role, field)
                if named is None:
                    raise Corruption(
                        f"segment {self.entry.segment_id} has no {role.value} file",
                        field=f"segment {self.entry.segment_id}",
                        value=role.value,
                    )
                opened = self._mapped.get((role, field)) or ArrayFile.open(self._directory, named.ref, role=role.value)
                if role in _WHOLE:
                    opened.verify()
                self.opened[(role, field)] = opened
                self._mapped.pop((role, field), None)
        return opened

    def array(self, role: Role, name: str, field: str = "") -> AnyArray:
        """One array of a role; raises as ``array_file``, and where the file has no such array."""
        file = self.array_file(role, field)
        try:
            return file.arrays[name]
        except KeyError:
            raise Corruption(f"{file.ref.name} has no array {name!r}", field=file.ref.name, value=name) from None

    def row_array(self, role: Role, name: str, length: int) -> AnyArray:
        """An array of a role that must have ``length`` entries; raises as ``array``, and where it has not."""
        found = self.array(role, name)
        if found.shape != (length,):
            raise Corruption(
                f"segment {self.entry.segment_id}: {role.value}/{name} has shape {found.shape}, "
                f"the manifest says {length}",
                field=f"segment {self.entry.segment_id}",
                limit=length,
                value=found.shape,
            )
        return found

    def mapped(self) -> Iterator[tuple[Role, ArrayFile]]:
        """The files that are mapped now."""
        for files in (self.opened, self._mapped):
            for (role, _), file in list(files.items()):
                yield role, file

    def verify(self, file: SegmentFile) -> None:
        """Check every byte of one file, in a fresh look at the disk.

        Raises
        ------
        Corruption
            It is damaged.
        """
        ArrayFile.open(self._directory, file.ref, role=file.role.value).verify()
