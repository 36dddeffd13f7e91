"""The bytes of a log file: its header and its records, each with checksums of its own.

A record's checksums are seeded with the file's id and the record's offset, so that neither an old record nor one from
another place passes. Format: ``docs/formats/log.md``.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import xxhash

from vecdb.errors import Corruption, FailedPrecondition
from vecdb.storage.checksum import checksum64, place_seed
from vecdb.storage.io import Buffer

HEADER_BYTES: Final = 128
RECORD_HEADER_BYTES: Final = 40
ALIGNMENT: Final = 8
PAYLOAD_BYTES_MAX: Final = 1 << 30

KIND_DATA: Final = 1
KIND_END: Final = 2

MAGIC_BYTES: Final = 4

_MAGIC: Final = b"VECDBLOG"
_VERSION: Final = 1
_HEADER: Final = struct.Struct("<8sIIQQQQQQQ")
"""magic, version, header bytes, file id, ordinal, first seq, allocated bytes, then of the predecessor: file id and
valid end; the id of the file with the record before; zeros up to the checksum."""
_CHECKSUM: Final = struct.Struct("<Q")
_RECORD: Final = struct.Struct("<4sBBHIIQQQ")
"""magic, kind, zero, zero, payload bytes, header check, seq, synced before, payload checksum."""
_CHECK_MASK: Final = 0xFFFF_FFFF
_CHECK_AT: Final = 12
_NO_CHECK: Final = bytes(4)
_NAME: Final = re.compile(r"([0-9a-f]{16})-([0-9a-f]{8})\.log")


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The file before: which it is, and how much of it holds.

    Attributes
    ----------
    file_id
        Its id; 0 where there is none.
    valid_end
        Offset behind its last record. What lies beyond never was acknowledged.
    """

    file_id: int
    valid_end: int


@dataclass(frozen=True, slots=True)
class LogHeader:
    """The first 128 bytes of a log file.

    Attributes
    ----------
    file_id
        Random 64-bit number.
    ordinal
        Number of the file; the next one's is larger by 1.
    first_seq
        The seq its first record has, or would have.
    allocated_bytes
        The size it was made with; it is cut to its last record once, when it is closed.
    predecessor
        The file before.
    last_record_file_id
        Id of the file that holds the record before ``first_seq``, which need not be the predecessor; 0 where there is
        none, or it is not known.
    """

    file_id: int
    ordinal: int
    first_seq: int
    allocated_bytes: int
    predecessor: Predecessor
    last_record_file_id: int = 0

    @property
    def name(self) -> str:
        """The name of the file."""
        return f"{self.first_seq:016x}-{self.ordinal:08x}.log"

    def encode(self) -> bytes:
        """The header's bytes."""
        body = _HEADER.pack(
            _MAGIC,
            _VERSION,
            HEADER_BYTES,
            self.file_id,
            self.ordinal,
            self.first_seq,
            self.allocated_bytes,
            self.predecessor.file_id,
            self.predecessor.valid_end,
            self.last_record_file_id,
        ).ljust(HEADER_BYTES - _CHECKSUM.size, b"\0")
        return body + _CHECKSUM.pack(checksum64(body))

    @classmethod
    def decode(cls, data: bytes, path: str, name: str) -> LogHeader:
        """The header, from the first bytes of the file ``name`` at ``path``.

        Raises
        ------
        Corruption
            It is cut off or damaged, or the file bears another's name.
        FailedPrecondition
            It is of a later format.
        """
        body = data[: HEADER_BYTES - _CHECKSUM.size]
        if len(data) < HEADER_BYTES or _CHECKSUM.unpack_from(data, len(body))[0] != checksum64(body):
            raise Corruption(f"{path} has a damaged header at offset 0", field=path, value=0)
        fields = _HEADER.unpack_from(body)
        magic, version, _header_bytes, file_id, ordinal, first_seq, allocated_bytes, *before = fields
        before_id, before_end, last_record_file_id = before
        if magic != _MAGIC:
            raise Corruption(f"{path} has a damaged header at offset 0", field=path, value=0)
        if version != _VERSION:
            raise FailedPrecondition(
                f"{path} is of format version {version}, this build reads {_VERSION}", field=path, limit=_VERSION
            )
        predecessor = Predecessor(before_id, before_end)
        header = cls(file_id, ordinal, first_seq, allocated_bytes, predecessor, last_record_file_id)
        if header.name != name:
            raise Corruption(f"{path} holds the log file {header.name}", field=path, value=header.name)
        return header


@dataclass(frozen=True, slots=True)
class LogName:
    """What the name of a log file says; names sort in the order of the log."""

    first_seq: int
    ordinal: int
    name: str

    @classmethod
    def parse(cls, name: str) -> LogName | None:
        """The parts of a name, or None where it is not one of a log file."""
        match = _NAME.fullmatch(name)
        return LogName(int(match[1], 16), int(match[2], 16), name) if match else None


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """The fixed part of a record, checked by itself.

    Attributes
    ----------
    kind
        Data, or the end of a file that was closed.
    payload_bytes
        Length of the payload without its padding.
    seq
        Seq of the record; in an end record the last one before it.
    synced_before
        The log file was durable up to this offset when the record was written.
    checksum
        Of the payload with its padding.
    """

    kind: int
    payload_bytes: int
    seq: int
    synced_before: int
    checksum: int


@functools.lru_cache(maxsize=64)
def record_magic(file_id: int) -> bytes:
    """The bytes that records of the file ``file_id`` begin with; none of them is 0.

    They differ from file to file, so that no payload can be made to look like many records to whoever searches for one.
    """
    return ((checksum64(b"record", file_id) & _CHECK_MASK) | 0x0101_0101).to_bytes(MAGIC_BYTES, "little")


def padded(size_bytes: int) -> int:
    """``size_bytes``, rounded up to the alignment of records."""
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT


def encode_record(
    kind: int, seq: int, payload: Sequence[Buffer], synced_before: int, *, file_id: int, offset: int
) -> list[Buffer]:
    """The buffers of the record that goes to ``offset`` of the file ``file_id``."""
    payload_bytes = sum(map(len, payload))
    padding = bytes(padded(payload_bytes) - payload_bytes)
    seed = place_seed(file_id, offset)
    digest = xxhash.xxh3_64(seed=seed)
    for part in payload:
        digest.update(part)
    digest.update(padding)
    magic = record_magic(file_id)
    checksum = digest.intdigest()
    unchecked = _RECORD.pack(magic, kind, 0, 0, payload_bytes, 0, seq, synced_before, checksum)
    check = checksum64(unchecked, seed) & _CHECK_MASK
    return [_RECORD.pack(magic, kind, 0, 0, payload_bytes, check, seq, synced_before, checksum), *payload, padding]


def decode_record_header(data: Buffer, file_id: int, offset: int) -> RecordHeader | None:
    """The header of the record at ``offset`` of the file ``file_id``, or None where there is none that is whole."""
    if len(data) < RECORD_HEADER_BYTES or data[:MAGIC_BYTES] != record_magic(file_id):
        return None
    _magic, kind, _zero, _zero_too, payload_bytes, check, seq, synced_before, checksum = _RECORD.unpack_from(data)
    unchecked = b"".join((data[:_CHECK_AT], _NO_CHECK, data[_CHECK_AT + len(_NO_CHECK) : RECORD_HEADER_BYTES]))
    if checksum64(unchecked, place_seed(file_id, offset)) & _CHECK_MASK != check:
        return None
    if kind not in (KIND_DATA, KIND_END) or payload_bytes > PAYLOAD_BYTES_MAX:
        return None
    return RecordHeader(kind, payload_bytes, seq, synced_before, checksum)


def payload_matches(header: RecordHeader, padded_payload: Buffer, file_id: int, offset: int) -> bool:
    """Whether the bytes behind a record header at ``offset`` are its payload."""
    return checksum64(padded_payload, place_seed(file_id, offset)) == header.checksum
