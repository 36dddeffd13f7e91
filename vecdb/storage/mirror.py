"""The manifest mirror: one small file, replaced after each commit, that tells what the LMDB environment should be.

It lets a damaged or stale environment be noticed before it is opened, and rebuilt by hand if need be. A mirror is whole
and checksummed, or it is Corruption. Format: ``docs/formats/lmdb.md``.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from typing import Final

from vecdb.errors import Corruption, FailedPrecondition
from vecdb.storage.checksum import checksum64
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.environment import Fingerprint, present_digest
from vecdb.storage.file_reader import FileReader

_MAGIC: Final = b"VECDBMIR"
_VERSION: Final = 1
_HEADER: Final = struct.Struct("<8sIIQQQQ")
"""magic, version, zero, environment id, generation, digest, payload bytes."""
_CHECKSUM: Final = struct.Struct("<Q")
_SETTLING_LOOKS: Final = 20
_SETTLING_S: Final = 0.005


@dataclass(frozen=True, slots=True)
class Mirror:
    """What the file says.

    Attributes
    ----------
    payload
        The manifest, opaque here.
    fingerprint
        The environment as it was when the mirror was written.
    """

    payload: bytes
    fingerprint: Fingerprint


def write_mirror(directory: MmapDirectory, name: str, payload: bytes, fingerprint: Fingerprint) -> None:
    """Replace the mirror, atomically and durably.

    Raises
    ------
    ResourceExhausted, Unavailable
        It could not be written; the old one is still there.
    """
    header = _HEADER.pack(
        _MAGIC, _VERSION, 0, fingerprint.environment_id, fingerprint.generation, fingerprint.digest, len(payload)
    )
    body = header + _CHECKSUM.pack(checksum64(header)) + payload
    directory.replace_file(name, body + _CHECKSUM.pack(checksum64(body)))


def read_mirror(directory: MmapDirectory, name: str) -> Mirror | None:
    """The mirror, or None where there is no such file.

    Raises
    ------
    Corruption
        The file is damaged; its name and the offset are in the message.
    FailedPrecondition
        It was written in a later format.
    """
    if not directory.exists(name):
        return None
    with directory.open_reader(name) as reader:
        return _read(reader)


def _read(reader: FileReader) -> Mirror:
    """The same, of an open file: what its header does not bear out is not read, so that no size is too large for it."""
    path = str(reader.path)
    size_bytes = reader.size_bytes
    payload_at = _HEADER.size + _CHECKSUM.size
    if size_bytes < payload_at + _CHECKSUM.size:
        raise Corruption(f"{path} is cut off at byte {size_bytes}", field=path, value=size_bytes)
    data = reader.pread(payload_at, 0)
    magic, version, _zero, environment_id, generation, digest, payload_bytes = _HEADER.unpack_from(data)
    if magic != _MAGIC or _CHECKSUM.unpack_from(data, _HEADER.size)[0] != checksum64(data[: _HEADER.size]):
        raise Corruption(f"{path} is damaged at offset 0", field=path, value=0)
    if version != _VERSION:
        raise FailedPrecondition(
            f"{path} is of format version {version}, this build reads {_VERSION}", field=path, limit=_VERSION
        )
    if size_bytes != payload_at + payload_bytes + _CHECKSUM.size:
        raise Corruption(f"{path} has {size_bytes} bytes, not what its header says", field=path, value=size_bytes)
    end = payload_at + payload_bytes
    data = reader.pread(size_bytes, 0)
    if _CHECKSUM.unpack_from(data, end)[0] != checksum64(memoryview(data)[:end]):
        raise Corruption(f"{path} is damaged at or after offset {payload_at}", field=path, value=payload_at)
    return Mirror(data[payload_at:end], Fingerprint(environment_id, generation, digest))


def settled_mirror(directory: MmapDirectory, name: str) -> Mirror | None:
    """The mirror, at a moment at which the environment is what it says; raises as ``read_mirror`` does.

    For who reads while the owner writes: between a commit and its mirror the environment would have to be read through
    before it is trusted. An owner that was stopped or killed there leaves them different, and is not waited for.
    """
    for _ in range(_SETTLING_LOOKS):
        mirror = read_mirror(directory, name)
        if mirror is None:
            return None
        if present_digest(directory) == mirror.fingerprint.digest:
            return mirror
        time.sleep(_SETTLING_S)
    return mirror
