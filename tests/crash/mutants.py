"""Wrong engines, each wrong in one place: what the gate must notice, one by one.

A mutant leaves a sync out, does two things in the wrong order, or believes bytes without their checksum. ``rig`` tells
what notices it: a loss of power, a kill, or flipped bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

from vecdb.engine import marker, state
from vecdb.engine.manifest import LIVE_PREFIX, REQUEST_PREFIX
from vecdb.engine.state import CollectionState
from vecdb.storage import array_file, array_format, directory, lmdb_check, lmdb_store, log_format, log_scan, mirror
from vecdb.storage.directory import FileWriter, MmapDirectory
from vecdb.storage.io import translating, write_fully
from vecdb.storage.log_file import LogFile
from vecdb.storage.wal import Log

POWER, KILL, FLIP = "power", "kill", "flip"
VALUES, PAGES = "values", "pages"


@dataclass(frozen=True)
class Mutant:
    """One wrong engine.

    Attributes
    ----------
    name
        What is wrong with it.
    rig
        What notices it.
    left_out
        The label of a sync that it leaves out.
    apply
        Makes this process's engine wrong.
    lose_on
        The label of the calls at which to lose the power; any call otherwise.
    calm
        Whether it shows only where nothing is flushed.
    kind
        The kind of file to flip bytes of, or ``VALUES`` or ``PAGES`` of environments.
    """

    name: str
    rig: str = POWER
    left_out: str = ""
    apply: Callable[[], None] = lambda: None
    lose_on: str = ""
    calm: bool = False
    kind: str = ""


def acknowledge_before_sync() -> None:
    """Have the log sync what was appended some appends later."""
    real_sync, real_append = Log.sync, Log.append
    appended = itertools.count(1)

    def append(self: Log, records: Any) -> None:
        if next(appended) % 4 == 0:
            real_sync(self)
        real_append(self, records)

    def sync(self: Log) -> int:
        return self.last_seq

    _put(Log, append=append, sync=sync)


def rename_before_sync() -> None:
    def finish(self: FileWriter) -> int:
        with translating(self._path, "write"):
            self._fs.rename(self._path, self._target)
            self._fs.fsync(self._fd)
            self._close()
        self._directory.changed()
        return self.size_bytes

    _put(FileWriter, finish=finish)


def rename_log_before_sync() -> None:
    real = LogFile.make.__func__  # type: ignore[attr-defined]

    def make(cls: type[LogFile], place: MmapDirectory, header: Any) -> LogFile:
        fs = place.fs
        temporary = place.path_of(header.name + directory.TEMPORARY_SUFFIX)
        fd = fs.create(temporary)
        fs.allocate(fd, header.allocated_bytes)
        write_fully(fs, fd, [header.encode()], 0)
        fs.rename(temporary, place.path_of(header.name))
        place.changed()
        place.sync()
        fs.fdatasync(fd)
        return cls(place, header, fd)

    assert real
    _put(LogFile, make=classmethod(make))


def commit_before_names() -> None:
    """Let metadata name files whose own names are not durable yet."""
    real = MmapDirectory.sync
    real_replace = MmapDirectory.replace_file

    def sync(self: MmapDirectory) -> None:
        if self.path.parent.name != "collections":
            real(self)

    def replace_file(self: MmapDirectory, name: str, data: Any) -> None:
        with mock.patch.object(MmapDirectory, "sync", real):
            real_replace(self, name, data)

    _put(MmapDirectory, sync=sync, replace_file=replace_file)


def trim_before_commit() -> None:
    def commit(self: CollectionState, change: Any, *rest: Any) -> Any:
        self.log.trim(change(self.manifest).flushed_seq)
        return real(self, change, *rest)

    real = CollectionState.commit
    _put(CollectionState, commit=commit)


def trim_before_mirror() -> None:
    def commit(self: CollectionState, change: Any, *rest: Any) -> Any:
        def write(*arguments: Any) -> None:
            self.log.trim(self.manifest.flushed_seq)
            mirror.write_mirror(*arguments)

        with mock.patch.object(state, "write_mirror", write):
            return real(self, change, *rest)

    real = CollectionState.commit
    _put(CollectionState, commit=commit)


def unlink_before_commit() -> None:
    """Remove the files of merged segments while the metadata still names them."""

    def commit(self: CollectionState, change: Any, *rest: Any) -> Any:
        for name in self.manifest.file_names() - change(self.manifest).file_names():
            self.directory.unlink(name)
        return real(self, change, *rest)

    real = CollectionState.commit
    _put(CollectionState, commit=commit)


def _commit_without(prefix: bytes) -> Callable[[], None]:
    def apply() -> None:
        real = lmdb_store.LmdbStore.commit

        def commit(self: lmdb_store.LmdbStore, puts: Mapping[bytes, bytes], deletes: Any = ()) -> int:
            return real(self, {key: value for key, value in puts.items() if not key.startswith(prefix)}, deletes)

        _put(lmdb_store.LmdbStore, commit=commit)

    return apply


def believe_blocks() -> None:
    """Whatever is in a block of an array file is what was written."""

    def _check(self: array_file.ArrayFile, blocks: Any) -> None:
        self.verified = True

    _put(array_file.ArrayFile, _check=_check)


def believe_headers() -> None:
    real = array_format.decode_header

    def _read_header(reader: Any, file_id: int, body_bytes: int, checksums: Any) -> Any:
        return real(reader.pread(body_bytes, 0), file_id, body_bytes)

    def _check(self: array_file.ArrayFile, blocks: Any) -> None:
        real_check(self, blocks[blocks > 0])
        self.verified = True

    real_check = array_file.ArrayFile._check
    _put(array_format, _read_header=_read_header)
    _put(array_file.ArrayFile, _check=_check)


def believe_log_payloads() -> None:
    _put(log_format, payload_matches=lambda *_: True)
    _put(log_scan, payload_matches=lambda *_: True)


def believe_values() -> None:
    def stored_checksum(key: bytes, stored: bytes, *_: Any) -> int:
        return lmdb_store.CHECKSUM.unpack_from(stored)[0]

    for module in (lmdb_check, lmdb_store):
        _put(module, stored_checksum=stored_checksum)


def believe_environments() -> None:
    """Open whatever ``data.mdb`` is there, without comparing it with the mirror's digest."""

    def _open_owned(place: MmapDirectory, expected: Any, map_bytes: int) -> Any:
        path = place.path_of(lmdb_store.DATA_NAME)
        if not place.exists(lmdb_store.DATA_NAME):
            return real(place, expected, map_bytes)
        return lmdb_store._Environment(place, lmdb_store._open_lmdb(path, map_bytes), expected)

    real = lmdb_store._open_owned
    _put(lmdb_store, _open_owned=_open_owned)


def _believe_checksums(module: Any) -> Callable[[], None]:
    """A checksum for which any other is right."""

    class Any64(int):
        def __eq__(self, other: object) -> bool:
            return True

        def __ne__(self, other: object) -> bool:
            return False

        __hash__ = int.__hash__

    real = module.checksum64
    return lambda: _put(module, checksum64=lambda *arguments: Any64(real(*arguments)))


def _put(owner: Any, **names: Any) -> None:
    for name, value in names.items():
        assert hasattr(owner, name), (owner, name)
        setattr(owner, name, value)


_LEFT_OUT = (
    "fdatasync of a log",
    "fdatasync of a new log file",
    "fsync of segments",
    "fsync of a collection's mirror",
    "fsync of the catalogue's mirror",
    "fsync of the marker",
    "committed of a collection's environment",
    "committed of the catalogue's environment",
    "fsync_directory of a log",
    "fsync_directory of a collection",
    "fsync_directory of collections",
    "fsync_directory of the catalogue",
    "fsync_directory of the database",
    "fsync_directory of what is above",
)
_AT = {"fdatasync of a new log file": "fdatasync of a log"}
"""Where the power must be lost for a sync to be missed: before another one that does its work too."""

MUTANTS = (
    *(Mutant(f"without {label}", left_out=label, lose_on=_AT.get(label, "")) for label in _LEFT_OUT),
    Mutant("acknowledges before the sync", apply=acknowledge_before_sync, calm=True),
    Mutant("renames before the sync", apply=rename_before_sync, lose_on="fsync of a collection's mirror"),
    Mutant("renames a log file before the sync", apply=rename_log_before_sync, lose_on="fdatasync of a log"),
    Mutant("commits before names are durable", apply=commit_before_names, lose_on="fsync of a collection's mirror"),
    Mutant(
        "trims the log before the commit", apply=trim_before_commit, lose_on="committing of a collection's environment"
    ),
    Mutant(
        "unlinks the files of a merge before the commit",
        apply=unlink_before_commit,
        lose_on="unlink of segments",
    ),
    Mutant("trims the log before the mirror", apply=trim_before_mirror, lose_on="fsync of a collection's mirror"),
    Mutant("commits no live rows", KILL, apply=_commit_without(LIVE_PREFIX)),
    Mutant("commits no request ids", KILL, apply=_commit_without(REQUEST_PREFIX)),
    Mutant("believes segment files", FLIP, apply=believe_blocks, kind="payload"),
    Mutant("believes headers of segment files", FLIP, apply=believe_headers, kind="vectors"),
    Mutant("believes payloads of log records", FLIP, apply=believe_log_payloads, kind="log"),
    Mutant("believes headers of log files", FLIP, apply=_believe_checksums(log_format), kind="log"),
    Mutant("believes values of environments", FLIP, apply=believe_values, kind=VALUES),
    Mutant("believes environments", FLIP, apply=believe_environments, kind=PAGES),
    Mutant("believes mirrors", FLIP, apply=_believe_checksums(mirror), kind="mirror"),
    Mutant("believes the marker", FLIP, apply=_believe_checksums(marker), kind="VECDB"),
)


def mutant_of(name: str) -> Mutant:
    """The mutant of this name; of no name, an engine that is right."""
    return next((each for each in MUTANTS if each.name == name), Mutant(""))
