"""The container of a backup: an uncompressed tar of plain files, written front to back and read by offset.

Every member is one header of 512 bytes and its content, padded with zeros; nothing else is written, and nothing else is
read: no links, devices, directories, sparse files or extended headers, whatever a tar may hold elsewhere. So a name
never leads anywhere, and an archive never holds more than its own size. Format: ``docs/formats/backup.md``.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from vecdb.errors import Corruption
from vecdb.storage.file_reader import FileReader

BLOCK_BYTES: Final = 512
END: Final = bytes(2 * BLOCK_BYTES)
"""What follows the last member, up to the end of the file."""
PIECE_BYTES: Final = 1 << 20
MEMBERS_MAX: Final = 200_000
NAME_BYTES_MAX: Final = 100

MANIFEST: Final = "manifest.json"
MANIFEST_DIGEST: Final = "manifest.sha256"
METADATA: Final = "metadata"
"""The member that holds a collection's metadata; the others of a collection are files of segments."""

COLLECTION_ID: Final = re.compile(r"[0-9a-f]{16}")
DATA_NAME: Final = re.compile(r"[0-9]{10,20}(?:\.[a-z0-9]{1,20}){1,4}")
"""Names of files of segments and of snapshots. No other file of a collection has a name that begins with digits."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file in an archive.

    Attributes
    ----------
    offset
        Where its content begins.
    """

    name: str
    offset: int
    size_bytes: int


def collection_member(collection_id: str, name: str) -> str:
    """What the file ``name`` of a collection is called in an archive."""
    return f"collections/{collection_id}/{name}"


def is_member_name(name: str) -> bool:
    """Whether an archive may hold a member of this name."""
    if name in (MANIFEST, MANIFEST_DIGEST):
        return True
    top, _, rest = name.partition("/")
    collection_id, _, file = rest.partition("/")
    if top != "collections" or not COLLECTION_ID.fullmatch(collection_id) or len(name) > NAME_BYTES_MAX:
        return False
    return file == METADATA or DATA_NAME.fullmatch(file) is not None


def member_header(name: str, size_bytes: int, created_s: int) -> bytes:
    """The block in front of a member's content. Sizes from 8 GiB on are binary, as GNU tar writes them."""
    assert is_member_name(name), name
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    info.mtime = created_s
    info.mode = 0o600
    header = info.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")
    assert len(header) == BLOCK_BYTES, name
    return header


def padding(size_bytes: int) -> bytes:
    """The zeros behind a content of ``size_bytes``."""
    return bytes(-size_bytes % BLOCK_BYTES)


def read_members(reader: FileReader) -> dict[str, Member]:
    """The members of an archive, in their order, by name; their content is not read.

    Raises
    ------
    Corruption
        The file is no archive of vecdb, was cut off, or holds what a backup never holds.
    """
    members: dict[str, Member] = {}
    at = 0
    while True:
        if at + len(END) > reader.size_bytes:
            raise _refused(reader, at, "ends there: the backup was interrupted or cut off, or it is none")
        header = reader.pread(BLOCK_BYTES, at)
        if not any(header):
            break
        member = _parsed(reader, header, at)
        if member.name in members:
            raise _refused(reader, at, f"has a second member {member.name}")
        if len(members) == MEMBERS_MAX:
            raise _refused(reader, at, f"has more than {MEMBERS_MAX} members")
        end = member.offset + member.size_bytes + len(padding(member.size_bytes))
        if end + len(END) > reader.size_bytes:
            raise _refused(reader, at, f"says that {member.name} has {member.size_bytes} bytes: more than are there")
        members[member.name] = member
        at = end
    if reader.size_bytes - at != len(END) or any(reader.pread(len(END), at)):
        raise _refused(reader, at, "goes on behind its last member")
    return members


def read_content(reader: FileReader, member: Member) -> Iterator[bytes]:
    """The content of a member, piece by piece.

    Raises
    ------
    Corruption
        It cannot be read, or is not padded with zeros.
    """
    end = member.offset + member.size_bytes
    for at in range(member.offset, end, PIECE_BYTES):
        yield reader.pread(min(PIECE_BYTES, end - at), at)
    if any(reader.pread(len(padding(member.size_bytes)), end)):
        raise _refused(reader, end, f"has more behind {member.name} than padding")


def _parsed(reader: FileReader, header: bytes, at: int) -> Member:
    try:
        info = tarfile.TarInfo.frombuf(header, "ascii", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise _refused(reader, at, f"has no header of a tar: {error}") from None
    if info.type != tarfile.REGTYPE or info.linkname:
        raise _refused(reader, at, f"has a member that is no plain file (type {info.type!r})")
    if not is_member_name(info.name):
        raise _refused(reader, at, f"has a member {info.name!r}, which no backup has")
    if info.size < 0:
        raise _refused(reader, at, f"says that {info.name} has {info.size} bytes")
    return Member(info.name, at + BLOCK_BYTES, info.size)


def _refused(reader: FileReader, offset: int, what: str) -> Corruption:
    return Corruption(f"{reader.path} at offset {offset} {what}", field=str(reader.path), value=offset)
