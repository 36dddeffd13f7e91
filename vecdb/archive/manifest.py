"""The manifest of a backup: which collections it holds, as of which write, and what every one of their files is.

It is JSON, for people to read; what is read back is taken for hostile. Only what ``encode`` writes is accepted, so that
nothing is passed over in silence. Format: ``docs/formats/backup.md``.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

from vecdb.archive.tar import COLLECTION_ID, DATA_NAME, METADATA, collection_member
from vecdb.errors import Corruption, FailedPrecondition, InvalidArgument
from vecdb.results.backup import BackupReport, CollectionBackup
from vecdb.schema import check_name

FORMAT: Final = "vecdb backup"
FORMAT_VERSION: Final = 1
MANIFEST_BYTES_MAX: Final = 32 << 20
FILES_MAX: Final = 100_000
CHAIN_MAX: Final = 1_000
"""Earlier backups that an incremental one may need."""

_HEX: Final = {length: re.compile(rf"[0-9a-f]{{{length}}}") for length in (16, 32, 64)}
_VERSION: Final = re.compile(r"[0-9A-Za-z.+!-]{1,64}")
_SIZE: Final = 2**63
_TIME_US: Final = 253_402_300_800_000_000
"""The end of the year 9999, the last one that can be told."""


@dataclass(frozen=True, slots=True)
class BackupFile:
    """One file of a collection.

    Attributes
    ----------
    sha256
        Of its content, in hexadecimal.
    file_id, checksum
        What the collection's own manifest says of a file of a segment, in hexadecimal; zeros for the metadata.
    stored_in
        Which of ``BackupManifest.needs`` holds the content; ``None``: this archive.
    """

    name: str
    size_bytes: int
    sha256: str
    file_id: str = "0" * 16
    checksum: str = "0" * 16
    stored_in: int | None = None


@dataclass(frozen=True, slots=True)
class BackupCollection:
    """One collection as of one write.

    Attributes
    ----------
    taken_us
        When it was frozen, in microseconds since 1970-01-01 UTC: no write that the backup holds is later.
    seq
        The last write that the backup holds.
    points
        Live points.
    files
        Its files; the last one is its metadata.
    """

    name: str
    collection_id: str
    created_us: int
    taken_us: int
    seq: int
    points: int
    files: tuple[BackupFile, ...]


@dataclass(frozen=True, slots=True)
class EarlierBackup:
    """A backup that holds files of a later one: the SHA-256 of its manifest, and when it was taken."""

    manifest_sha256: str
    created_us: int

    @property
    def created(self) -> str:
        """When it was taken, for people."""
        return datetime.fromtimestamp(self.created_us // 1_000_000, UTC).isoformat(sep=" ")


@dataclass(frozen=True, slots=True)
class BackupManifest:
    """What an archive holds.

    Attributes
    ----------
    created_us
        Microseconds since 1970-01-01 UTC.
    database_format
        Format version of the database that it was taken of, and of the files.
    since
        SHA-256 of the manifest of the backup that it was taken after; empty for a full one.
    needs
        The earlier backups that hold files of this one.
    """

    created_us: int
    vecdb_version: str
    database_format: int
    database_id: str
    since: str
    needs: tuple[EarlierBackup, ...]
    collections: tuple[BackupCollection, ...]

    def encode(self) -> bytes:
        """As bytes; the same manifest gives the same bytes."""
        facts = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        return json.dumps(facts, ensure_ascii=False, indent=1).encode() + b"\n"

    def members(self) -> list[tuple[str, BackupFile]]:
        """What is stored in the archive itself, by name of the member, in order."""
        return [
            (collection_member(collection.collection_id, file.name), file)
            for collection in self.collections
            for file in collection.files
            if file.stored_in is None
        ]

    @classmethod
    def decode(cls, data: bytes, where: str) -> BackupManifest:
        """The manifest that ``data`` encodes; ``where`` is what an error calls its place.

        Raises
        ------
        Corruption
            It is not what ``encode`` writes.
        FailedPrecondition
            It is of another format version.
        """
        # Each of these makes an object in memory many times its size.
        if len(data) > MANIFEST_BYTES_MAX or data.count(b"{") + data.count(b"[") > 3 * FILES_MAX:
            raise Corruption(
                f"{where}: the manifest is larger than that of any backup", field=where, limit=MANIFEST_BYTES_MAX
            )
        try:
            facts = json.loads(
                data, object_pairs_hook=_without_repeats, parse_float=_no_number, parse_constant=_no_number
            )
            if not isinstance(facts, dict) or facts.pop("format", None) != FORMAT:
                raise ValueError(f"it is not that of a {FORMAT}")
            version = facts.pop("format_version", None)
            if type(version) is int and version != FORMAT_VERSION:
                raise FailedPrecondition(
                    f"{where} has format version {version}; this vecdb reads {FORMAT_VERSION}",
                    field="format_version",
                    limit=FORMAT_VERSION,
                    value=version,
                )
            if version is None:
                raise ValueError("it has no format version")
            return _manifest(facts)
        except (ValueError, RecursionError, InvalidArgument) as error:
            raise Corruption(f"{where}: the manifest cannot be read: {error}", field=where) from None


def hexadecimal(word: int) -> str:
    """A 64-bit number as the manifest holds it: JSON's readers round larger ones than 53 bits."""
    return f"{word:016x}"


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def report_of(manifest_bytes: bytes, size_bytes: int) -> BackupReport:
    """What a backup of this manifest holds."""
    manifest = BackupManifest.decode(manifest_bytes, "the backup")
    files = [file for collection in manifest.collections for file in collection.files]
    return BackupReport(
        manifest.created_us,
        tuple(
            CollectionBackup(each.name, each.collection_id, each.taken_us, each.seq, each.points)
            for each in manifest.collections
        ),
        len(files),
        sum(file.stored_in is None for file in files),
        size_bytes,
        digest(manifest_bytes),
        tuple(each.manifest_sha256 for each in manifest.needs),
    )


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object names something twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:32]} is no whole number")


class _Facts:
    """The facts of one object, each of which must be taken, and of the right kind."""

    def __init__(self, found: object, what: str) -> None:
        if not isinstance(found, dict):
            raise ValueError(f"{what} is no object")  # noqa: TRY004 - bad content, not a bad argument
        self._found = dict(found)
        self._what = what

    def take(self, key: str) -> Any:
        if key not in self._found:
            raise ValueError(f"{self._what} lacks {key}")
        return self._found.pop(key)

    def number(self, key: str, below: int) -> int:
        value = self.take(key)
        if type(value) is not int or not 0 <= value < below:
            raise ValueError(f"{key} of {self._what} is no number below {below}")
        return value

    def text(self, key: str, pattern: re.Pattern[str]) -> str:
        value = self.take(key)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError(f"{key} of {self._what} is not one")
        return value

    def several(self, key: str, at_most: int) -> list[Any]:
        value = self.take(key)
        if not isinstance(value, list) or len(value) > at_most:
            raise ValueError(f"{key} of {self._what} are no list of at most {at_most}")
        return value

    def end(self) -> None:
        if self._found:
            raise ValueError(f"{self._what} has {min(self._found)[:64]!r}, which is unknown")


def _manifest(found: object) -> BackupManifest:
    facts = _Facts(found, "the manifest")
    needs = tuple(_earlier(each) for each in facts.several("needs", CHAIN_MAX))
    since = facts.take("since")
    if since != "" and not (isinstance(since, str) and _HEX[64].fullmatch(since)):
        raise ValueError("since is no SHA-256")
    collections = tuple(_collection(each, len(needs)) for each in facts.several("collections", FILES_MAX))
    manifest = BackupManifest(
        facts.number("created_us", _TIME_US),
        facts.text("vecdb_version", _VERSION),
        facts.number("database_format", _SIZE),
        facts.text("database_id", _HEX[32]),
        since,
        needs,
        collections,
    )
    facts.end()
    if sum(len(each.files) for each in collections) > FILES_MAX:
        raise ValueError(f"there are more than {FILES_MAX} files")
    for name in ("name", "collection_id"):
        if len({getattr(each, name) for each in collections}) != len(collections):
            raise ValueError(f"two collections have one {name}")
    if len({each.manifest_sha256 for each in needs}) != len(needs):
        raise ValueError("an earlier backup is named twice")
    return manifest


def _earlier(found: object) -> EarlierBackup:
    facts = _Facts(found, "an earlier backup")
    earlier = EarlierBackup(facts.text("manifest_sha256", _HEX[64]), facts.number("created_us", _TIME_US))
    facts.end()
    return earlier


def _collection(found: object, needs: int) -> BackupCollection:
    facts = _Facts(found, "a collection")
    files = tuple(_file(each, needs) for each in facts.several("files", FILES_MAX))
    names = [each.name for each in files]
    if len(set(names)) != len(names) or not names or names[-1] != METADATA or files[-1].stored_in is not None:
        raise ValueError("the files of a collection are named twice, or lack its metadata at their end")
    name = check_name(facts.take("name"), "collection")
    collection = BackupCollection(
        name,
        facts.text("collection_id", COLLECTION_ID),
        facts.number("created_us", _TIME_US),
        facts.number("taken_us", _TIME_US),
        facts.number("seq", _SIZE),
        facts.number("points", _SIZE),
        files,
    )
    facts.end()
    return collection


def _file(found: object, needs: int) -> BackupFile:
    facts = _Facts(found, "a file")
    name = facts.take("name")
    if name != METADATA and not (isinstance(name, str) and DATA_NAME.fullmatch(name)):
        raise ValueError("name of a file is not one")
    size_bytes = facts.number("size_bytes", _SIZE)
    sha256 = facts.text("sha256", _HEX[64])
    file_id, checksum = facts.text("file_id", _HEX[16]), facts.text("checksum", _HEX[16])
    stored_in = facts.take("stored_in")
    if stored_in is not None and (type(stored_in) is not int or not 0 <= stored_in < needs):
        raise ValueError("stored_in of a file names no earlier backup")
    facts.end()
    return BackupFile(name, size_bytes, sha256, file_id, checksum, stored_in)
