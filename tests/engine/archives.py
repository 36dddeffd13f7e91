"""Backup files taken apart and put together again, whole or wrong, without the code that writes them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK = 512
MANIFEST, DIGEST = "manifest.json", "manifest.sha256"


@dataclass
class Parts:
    """The members of a backup, its manifest apart.

    Attributes
    ----------
    members
        (name, content) of the files, in order.
    """

    members: list[tuple[str, bytes]]
    manifest: dict[str, Any]

    @classmethod
    def of(cls, path: Path) -> Parts:
        with tarfile.open(path, "r:") as tar:
            members = [(each.name, tar.extractfile(each).read()) for each in tar.getmembers()]
        assert [name for name, _ in members[-2:]] == [MANIFEST, DIGEST]
        return cls(members[:-2], json.loads(members[-2][1]))

    def files(self) -> list[dict[str, Any]]:
        """What the manifest says of each file."""
        return [file for collection in self.manifest["collections"] for file in collection["files"]]

    def write(self, path: Path, manifest: bytes | None = None) -> Path:
        """As a backup whose manifest has the right digest, whatever is in it."""
        data = json.dumps(self.manifest).encode() if manifest is None else manifest
        line = f"{hashlib.sha256(data).hexdigest()}  {MANIFEST}\n".encode()
        return write_tar(path, [*self.members, (MANIFEST, data), (DIGEST, line)])

    def replace(self, name_ends: str, content: bytes) -> None:
        """Another content of a member, of which the manifest knows."""
        for number, (name, _) in enumerate(self.members):
            if name.endswith(name_ends):
                self.members[number] = (name, content)
                listed = next(each for each in self.files() if each["name"] == name.rpartition("/")[2])
                listed["size_bytes"] = len(content)
                listed["sha256"] = hashlib.sha256(content).hexdigest()
                return
        raise AssertionError(name_ends)


def plain_header(name: str, size: int, **facts: Any) -> bytes:
    """The header of a member; ``facts`` are attributes of ``tarfile.TarInfo``."""
    info = tarfile.TarInfo(name)
    info.size = size
    for key, value in facts.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """A tar of plain files."""
    with path.open("wb") as file:
        for name, content in members:
            file.write(plain_header(name, len(content)) + padded(content))
        file.write(bytes(2 * BLOCK))
    return path


def listing(directory: Path) -> list[str]:
    """Everything below a directory."""
    return sorted(str(each.relative_to(directory)) for each in directory.rglob("*"))


def tar_of(members: Iterable[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    for name, content in members:
        buffer.write(plain_header(name, len(content)) + padded(content))
    return buffer.getvalue() + bytes(2 * BLOCK)
