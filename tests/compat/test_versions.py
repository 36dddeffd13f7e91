"""What a later version of vecdb wrote is refused by its version, and not a byte of it changes."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import lmdb
import numpy as np
import pytest

from tests.compat.make_golden import OPTIONS
from tests.trust import Trust
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.log_record import encode_delete, encode_record
from vecdb.engine.manifest import MANIFEST_KEY, request_key
from vecdb.errors import FailedPrecondition
from vecdb.storage.checksum import checksum64
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.environment import CHECKSUM, ROOT_KEY
from vecdb.storage.io import FileSystem
from vecdb.storage.lmdb_store import LmdbStore
from vecdb.storage.mirror import read_mirror, write_mirror
from vecdb.storage.wal import Log
from vecdb.v1 import log_pb2

U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")
LATER = 2
UNKNOWN_FIELD = b"\xa0\x06\x07"
"""Field 100, a varint: 7."""


@dataclass(frozen=True)
class Place:
    """The files of one database with the collections ``docs`` and ``others``."""

    root: Path

    def directory(self, part: str) -> MmapDirectory:
        return MmapDirectory(self.path(part), FileSystem())

    def path(self, part: str) -> Path:
        if part == "catalogue":
            return self.root / "catalogue"
        store = LmdbStore.open(MmapDirectory(self.root / "catalogue", FileSystem(), read_only=True))
        try:
            found = [log_pb2.CatalogueEntry.FromString(value) for _, value in store.items(b"collection/")]
        finally:
            store.close()
        return self.root / "collections" / next(each.collection_id for each in found if each.name == part)

    def bytes(self) -> dict[str, bytes]:
        files = (each for each in self.root.rglob("*") if each.is_file())
        return {str(each.relative_to(self.root)): each.read_bytes() for each in files}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A database with segments, a graph and a log, closed."""
    chance = np.random.default_rng(5)
    with EmbeddedDatabase.open(tmp_path / "db", options=OPTIONS) as database:
        for name in ("docs", "others"):
            collection = database.create_collection(name, dim=4)
            collection.upsert(range(30), chance.standard_normal((30, 4)), request_id="a")
            collection.wait_indexed(60)
            collection.upsert(range(20, 40), chance.standard_normal((20, 4)), request_id="b")
    return Place(tmp_path / "db")


def raise_marker(place: Place) -> None:
    path = place.root / "VECDB"
    facts = json.loads(path.read_bytes()[len(b"vecdb ") : -18])
    text = json.dumps(facts | {"format_version": LATER, "unheard_of": 1}).encode()
    path.write_bytes(b"vecdb %s %016x\n" % (text, checksum64(text)))


def raise_array_file(place: Place) -> None:
    for path in place.path("docs").glob("*.vectors.*"):
        data = bytearray(path.read_bytes())
        data[-48:-44] = U32.pack(LATER)
        file_id, table_at, table_bytes = struct.unpack_from("<QQQ", data, len(data) - 40)
        table = checksum64(bytes(data[table_at : table_at + table_bytes]), file_id)
        data[-8:] = U64.pack(checksum64(bytes(data[-56:-8]) + U64.pack(table), file_id))
        path.write_bytes(data)


def raise_log(place: Place) -> None:
    for path in place.path("docs").glob("log/*.log"):
        data = bytearray(path.read_bytes())
        data[8:12] = U32.pack(LATER)
        data[120:128] = U64.pack(checksum64(bytes(data[:120])))
        path.write_bytes(data)


def raise_mirror(place: Place, part: str) -> None:
    path = place.path(part) / "mirror"
    data = bytearray(path.read_bytes())
    data[8:12] = U32.pack(LATER)
    data[48:56] = U64.pack(checksum64(bytes(data[:48])))
    data[-8:] = U64.pack(checksum64(bytes(data[:-8])))
    path.write_bytes(data)


def raise_environment(place: Place, part: str) -> None:
    with (
        lmdb.open(str(place.path(part) / "data.mdb"), subdir=False, lock=False) as env,
        env.begin(write=True) as transaction,
    ):
        record = bytearray(transaction.get(ROOT_KEY))
        record[8:12] = U32.pack(LATER)
        record[-CHECKSUM.size :] = U64.pack(checksum64(bytes(record[: -CHECKSUM.size])))
        transaction.put(ROOT_KEY, bytes(record))


def manifest_of_later(place: Place, change: Callable[[log_pb2.Manifest], bytes | None]) -> None:
    """Commit a manifest that a later version might have written."""
    directory = place.directory("docs")
    store = LmdbStore.open(directory)
    try:
        message = log_pb2.Manifest.FromString(store.get(MANIFEST_KEY) or b"")
        encoded = change(message) or message.SerializeToString()
        store.commit({MANIFEST_KEY: encoded})
        write_mirror(directory, "mirror", encoded, store.fingerprint())
    finally:
        store.close()


def with_a_field(message: log_pb2.Manifest) -> bytes:
    return message.SerializeToString() + UNKNOWN_FIELD


def with_a_field_inside(message: log_pb2.Manifest) -> None:
    message.segments[0].files[0].MergeFromString(UNKNOWN_FIELD)


def with_a_role(message: log_pb2.Manifest) -> None:
    message.segments[0].files.add(role="sparse", name="0000000001.sparse.0")


def with_a_metric(message: log_pb2.Manifest) -> None:
    message.schema.vectors[0].metric = 99  # type: ignore[assignment]


def with_a_kind_of_index(message: log_pb2.Manifest) -> None:
    message.schema.vectors[0].index.kind = 99  # type: ignore[assignment]


def request_of_later(place: Place) -> None:
    directory = place.directory("docs")
    mirror = read_mirror(directory, "mirror")
    assert mirror is not None
    store = LmdbStore.open(directory)
    try:
        store.commit({request_key(1): (store.get(request_key(1)) or b"") + UNKNOWN_FIELD})
        write_mirror(directory, "mirror", mirror.payload, store.fingerprint())
    finally:
        store.close()


def entry_of_later(place: Place) -> None:
    directory = place.directory("catalogue")
    store = LmdbStore.open(directory)
    try:
        changed = {key: value + UNKNOWN_FIELD for key, value in store.items(b"collection/")}
        store.commit(changed)
        write_mirror(directory, "mirror", b"", store.fingerprint())
    finally:
        store.close()


def record_of_later(place: Place, effects: bytes) -> None:
    log = Log(place.directory("docs").child("log", create=False))
    last = max(seq for seq, _ in log.replay(1))
    log.append([(last + 1, encode_record(last + 1, 1, "", 0, effects))])
    log.close()


def unknown_effect() -> bytes:
    return log_pb2.LogRecord(effects=[log_pb2.Effect.FromString(UNKNOWN_FIELD)]).SerializeToString()


def known_effect_with_a_field() -> bytes:
    record = log_pb2.LogRecord.FromString(encode_delete([3]))
    record.effects[0].delete.MergeFromString(UNKNOWN_FIELD)
    return record.SerializeToString()


CASES: dict[str, tuple[Callable[[Place], None], str, str]] = {
    "marker": (raise_marker, "open", "version 2"),
    "mirror of the catalogue": (lambda place: raise_mirror(place, "catalogue"), "open", "version 2"),
    "environment of the catalogue": (lambda place: raise_environment(place, "catalogue"), "open", "version 2"),
    "entry of the catalogue": (entry_of_later, "open", "later version"),
    "mirror": (lambda place: raise_mirror(place, "docs"), "use", "version 2"),
    "environment": (lambda place: raise_environment(place, "docs"), "use", "version 2"),
    "log": (raise_log, "use", "version 2"),
    "array file": (raise_array_file, "read", "version 2"),
    "a field of the manifest": (lambda place: manifest_of_later(place, with_a_field), "use", "later version"),
    "a field of a file": (lambda place: manifest_of_later(place, with_a_field_inside), "use", "later version"),
    "a role of file": (lambda place: manifest_of_later(place, with_a_role), "use", "later version.*sparse"),
    "a metric": (lambda place: manifest_of_later(place, with_a_metric), "use", "later version.*metric 99"),
    "a kind of index": (lambda place: manifest_of_later(place, with_a_kind_of_index), "use", "later version.*99"),
    "a retained request": (request_of_later, "use", "later version"),
    "a kind of effect": (lambda place: record_of_later(place, unknown_effect()), "use", "later version"),
    "a field of an effect": (lambda place: record_of_later(place, known_effect_with_a_field()), "use", "later version"),
}


@pytest.mark.parametrize(("change", "step", "told"), CASES.values(), ids=CASES.keys())
def test_it_is_refused_before_a_byte_changes(
    place: Place, trust: Trust, change: Callable[[Place], None], step: str, told: str
) -> None:
    trust.points("P12", 2)
    change(place)
    (place.root / "LOCK").write_bytes(b"what the last holder wrote\n")
    before = place.bytes()
    refusals = list(refused(place, step))
    after = place.bytes()
    for message in refusals:
        assert re.search(told, message), message
    assert len(refusals) == 2
    assert before.keys() == after.keys()
    # The marker, whose version is raised with any other, is read before the lock's holder is written down.
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= (set() if change is raise_marker else {"LOCK"})


def refused(place: Place, step: str) -> Iterator[str]:
    """What is said when the database is opened and used, twice: a refusal must not open the door to a second try."""
    for _ in range(2):
        if step == "open":
            with pytest.raises(FailedPrecondition) as caught:
                EmbeddedDatabase.open(place.root, options=OPTIONS)
        else:
            with EmbeddedDatabase.open(place.root, options=OPTIONS) as database:
                if step == "use":
                    with pytest.raises(FailedPrecondition) as caught:
                        database.collection("docs")
                else:
                    collection = database.collection("docs")
                    with pytest.raises(FailedPrecondition) as caught:
                        collection.get([1], with_vectors=True)
                assert database.collection("others").count() == 40
        yield caught.value.message


def test_a_lock_of_any_content_decides_nothing(place: Place) -> None:
    for content in (b'{"version": 99, "pid": {}}\n', b"", b"\xff" * 5000):
        (place.root / "LOCK").write_bytes(content)
        with EmbeddedDatabase.open(place.root, options=OPTIONS) as database:
            assert database.collection("docs").count() == 40
