"""The marker file: tells that a directory is a vecdb database, of which format version and which identity."""

from __future__ import annotations

import json
import re
import secrets
import time
from dataclasses import dataclass

from vecdb.errors import Corruption, FailedPrecondition
from vecdb.storage.checksum import checksum64
from vecdb.storage.directory import MmapDirectory

MARKER = "VECDB"
FORMAT_VERSION = 1
_LINE = re.compile(rb"vecdb (\{.*\}) ([0-9a-f]{16})\n", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Marker:
    """What the file says."""

    database_id: str
    format_version: int
    created_s: int


def write_marker(directory: MmapDirectory) -> Marker:
    """Make the directory a database."""
    marker = Marker(secrets.token_hex(16), FORMAT_VERSION, int(time.time()))
    text = json.dumps(
        {"database_id": marker.database_id, "format_version": marker.format_version, "created_s": marker.created_s}
    ).encode()
    directory.replace_file(MARKER, b"vecdb %s %016x\n" % (text, checksum64(text)))
    return marker


def read_marker(directory: MmapDirectory) -> Marker:
    """What the directory's marker says.

    Raises
    ------
    Corruption
        The file is damaged.
    FailedPrecondition
        The database was written by a version of vecdb that this one cannot read; nothing was changed.
    """
    where = str(directory.path / MARKER)
    data = directory.read_file(MARKER)
    found = _LINE.fullmatch(data)
    if found is None or checksum64(found[1]) != int(found[2], 16):
        raise Corruption(f"{where} is damaged", field=where)
    facts = json.loads(found[1])
    marker = Marker(facts["database_id"], facts["format_version"], facts["created_s"])
    if marker.format_version != FORMAT_VERSION:
        raise FailedPrecondition(
            f"{directory.path} has format version {marker.format_version}; this vecdb reads {FORMAT_VERSION}",
            field="format_version",
            limit=FORMAT_VERSION,
            value=marker.format_version,
        )
    return marker
