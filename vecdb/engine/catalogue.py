"""The catalogue: which collections a database has, by name, and in which directory each one lives.

A collection exists from the moment its entry is committed here until the moment the entry is removed; directories
without an entry are what interrupted creations and drops left, and are removed by the next owner.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from vecdb.engine.events import logger
from vecdb.engine.stored_message import refuse_unknown_fields
from vecdb.errors import Corruption, FailedPrecondition, ResourceExhausted, Unavailable, VecdbError
from vecdb.storage.checksum import random_id
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.environment import Fingerprint
from vecdb.storage.lmdb_store import LmdbStore, write_environment
from vecdb.storage.mirror import read_mirror, settled_mirror, write_mirror
from vecdb.v1 import log_pb2

CATALOGUE_MIRROR = "mirror"
_PREFIX = b"collection/"
_NAME_TAG = 0x0A
"""What the field ``name`` of an encoded ``CatalogueEntry`` begins with."""


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One collection.

    Attributes
    ----------
    collection_id
        Name of its directory: random, so that a collection's name never becomes a path.
    """

    name: str
    collection_id: str
    created_us: int


class Catalogue:
    """The open catalogue."""

    def __init__(self, directory: MmapDirectory, store: LmdbStore, entries: dict[str, CatalogueEntry]) -> None:
        self._directory = directory
        self._store = store
        self._entries = entries
        self._interrupted = False

    @classmethod
    def open(cls, directory: MmapDirectory, *, create: bool) -> Catalogue:
        """Open it; ``create`` makes an empty one.

        Raises
        ------
        Corruption
            It is damaged, missing, or older than its mirror.
        """
        where = str(directory.path)
        read = settled_mirror if directory.read_only else read_mirror
        mirror = read(directory, CATALOGUE_MIRROR)
        if mirror is None and not create:
            raise Corruption(f"{where}: the catalogue's mirror is missing", field=f"{where}/{CATALOGUE_MIRROR}")
        store = LmdbStore.open(directory, expected=None if mirror is None else mirror.fingerprint)
        try:
            catalogue = cls(directory, store, entries_of(store, where))
            if mirror is None:
                # A catalogue without one is not opened again, so a new database is none before it is there.
                catalogue._write_mirror()
            elif not directory.read_only and store.fingerprint() != mirror.fingerprint:
                catalogue._follow()
        except BaseException:
            store.close()
            raise
        return catalogue

    @property
    def entries(self) -> Mapping[str, CatalogueEntry]:
        """By name."""
        return self._entries

    def add(self, name: str, collection_id: str, created_us: int | None = None) -> CatalogueEntry:
        """Make a collection exist, created now unless it is said when; durable on return."""
        entry = CatalogueEntry(name, collection_id, time.time_ns() // 1000 if created_us is None else created_us)
        self._change({**self._entries, name: entry}, {_key(collection_id): _encode(entry)}, [])
        return entry

    def remove(self, name: str) -> None:
        """Make a collection cease to exist; durable on return."""
        entry = self._entries[name]
        left = {other: each for other, each in self._entries.items() if other != name}
        self._change(left, {}, [_key(entry.collection_id)])

    def close(self) -> None:
        """Release the environment."""
        self._store.close()

    def _change(
        self, entries: dict[str, CatalogueEntry], puts: Mapping[bytes, bytes], deletes: Iterable[bytes]
    ) -> None:
        """Make a change durable, and ``entries`` what there is after it.

        Raises
        ------
        ResourceExhausted, FailedPrecondition
            There is no disk or no memory, or this process may not; nothing changed.
        Unavailable
            The device failed, or a change was interrupted: only reopening tells which collections there are.
        """
        if self._interrupted:
            raise Unavailable("a change of the catalogue was interrupted: reopen the database", field="catalogue")
        self._interrupted = True
        try:
            self._store.commit(puts, deletes)
        except (ResourceExhausted, FailedPrecondition):
            self._interrupted = False
            raise
        self._entries = entries
        self._interrupted = False
        self._follow()

    def _write_mirror(self) -> None:
        payload = b"".join(value for _, value in self._store.items(_PREFIX))
        write_mirror(self._directory, CATALOGUE_MIRROR, payload, self._store.fingerprint())

    def _follow(self) -> None:
        """Write the mirror of a change that is durable already; a later change or open makes up for a failure."""
        try:
            self._write_mirror()
        except VecdbError as error:
            logger.warning("catalogue_mirror_not_written error=%s", type(error).__name__)


def entries_of(store: LmdbStore, where: str) -> dict[str, CatalogueEntry]:
    """The entries of an open environment by name.

    Raises
    ------
    Corruption
        One of them cannot be read, or two have one name.
    """
    entries: list[CatalogueEntry] = []
    for key, value in store.items(_PREFIX):
        entry = _decode(value, where)
        if key != _key(entry.collection_id):
            raise Corruption(f"{where}: entry {key!r} is of {entry.collection_id}", field=f"{where}/data.mdb")
        entries.append(entry)
    return by_name(entries, f"{where}/data.mdb")


def by_name(entries: Iterable[CatalogueEntry], file: str) -> dict[str, CatalogueEntry]:
    """The entries that a file holds, by name.

    Raises
    ------
    Corruption
        Two have one name. Nobody can tell which of them is meant, so neither may be taken for one that nothing names.
    """
    found: dict[str, CatalogueEntry] = {}
    for each in entries:
        other = found.setdefault(each.name, each)
        if other is not each:
            told = f"two collections are called {each.name!r}: {other.collection_id} and {each.collection_id}"
            raise Corruption(f"{file}: {told}", field=file, value=each.name)
    return found


def decode_mirrored(payload: bytes, where: str) -> list[CatalogueEntry]:
    """The entries that a mirror holds, one encoded message after the other.

    Raises
    ------
    Corruption
        They cannot be read.
    """
    entries: list[CatalogueEntry] = []
    at = 0
    while at < len(payload):
        end = _entry_end(payload, at)
        entry = _decode(payload[at:end], where)
        if end <= at or not entry.name or not entry.collection_id:
            raise Corruption(f"{where}: the entries cannot be read", field=where, value=at)
        entries.append(entry)
        at = end
    return entries


def _entry_end(payload: bytes, begin: int) -> int:
    """Where the message that begins there ends: before the next field that is a name, which is the first of each."""
    at = begin
    while at < len(payload) and (at == begin or payload[at] != _NAME_TAG):
        is_bytes = payload[at] & 7 == 2
        value, at = _varint(payload, at + 1)
        if is_bytes:
            at += value
    return min(at, len(payload))


def _varint(payload: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(payload):
        byte = payload[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return value, at


def write_catalogue(
    directory: MmapDirectory, entries: Iterable[CatalogueEntry], before: Fingerprint | None, generations: int
) -> None:
    """Put a catalogue of these entries, and its mirror, in the place of whatever is there.

    Parameters
    ----------
    before
        What is known of the environment that was there; the new one is so many ``generations`` ahead of it.
    """
    values = {_key(each.collection_id): _encode(each) for each in sorted(entries, key=lambda each: each.collection_id)}
    fingerprint = write_environment(
        directory,
        values,
        environment_id=random_id() if before is None else before.environment_id,
        generation=generations + (0 if before is None else before.generation),
    )
    write_mirror(directory, CATALOGUE_MIRROR, b"".join(values.values()), fingerprint)


def _encode(entry: CatalogueEntry) -> bytes:
    return log_pb2.CatalogueEntry(
        name=entry.name, collection_id=entry.collection_id, created_us=entry.created_us
    ).SerializeToString(deterministic=True)


def _key(collection_id: str) -> bytes:
    return _PREFIX + collection_id.encode()


def _decode(value: bytes, where: str) -> CatalogueEntry:
    try:
        message = log_pb2.CatalogueEntry.FromString(value)
    except DecodeError as error:
        raise Corruption(f"{where}: an entry cannot be read: {error}", field=f"{where}/data.mdb") from error
    refuse_unknown_fields(message, f"{where}/data.mdb")
    return CatalogueEntry(message.name, message.collection_id, message.created_us)
