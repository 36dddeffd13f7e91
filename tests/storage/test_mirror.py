"""The mirror: whole or Corruption, replaced at once."""

import errno
from pathlib import Path

import pytest

from tests.storage.faults import FailingFileSystem
from tests.storage.forgetful import ForgetfulFileSystem, PowerLoss
from vecdb.errors import Corruption, FailedPrecondition, ResourceExhausted
from vecdb.storage import mirror
from vecdb.storage.directory import READ_FILE_BYTES_MAX, MmapDirectory
from vecdb.storage.environment import Fingerprint
from vecdb.storage.io import FileSystem
from vecdb.storage.mirror import Mirror, read_mirror, write_mirror

FINGERPRINT = Fingerprint(2**64 - 1, 3, 2**63)


def test_a_mirror_comes_back(directory: MmapDirectory) -> None:
    assert read_mirror(directory, "mirror") is None
    for payload in (b"", b"payload", bytes(100_000)):
        write_mirror(directory, "mirror", payload, FINGERPRINT)
        assert read_mirror(directory, "mirror") == Mirror(payload, FINGERPRINT)


def test_a_mirror_of_any_size_that_was_written_can_be_read(directory: MmapDirectory) -> None:
    payload = bytes(READ_FILE_BYTES_MAX + 1)
    write_mirror(directory, "mirror", payload, FINGERPRINT)
    found = read_mirror(directory, "mirror")
    assert found is not None
    assert found.payload == payload


def test_a_file_that_only_looks_large_is_not_read(directory: MmapDirectory) -> None:
    write_mirror(directory, "mirror", b"the payload", FINGERPRINT)
    with (directory.path / "mirror").open("r+b") as file:
        file.truncate(2**42)
    with pytest.raises(Corruption, match="its header"):
        read_mirror(directory, "mirror")


def test_every_flipped_byte_and_truncation_is_noticed(directory: MmapDirectory) -> None:
    write_mirror(directory, "mirror", b"the payload", FINGERPRINT)
    path = directory.path / "mirror"
    whole = path.read_bytes()
    for offset in range(len(whole)):
        for changed in (whole[:offset] + bytes([whole[offset] ^ 4]) + whole[offset + 1 :], whole[:offset]):
            path.write_bytes(changed)
            with pytest.raises(Corruption, match="mirror"):
                read_mirror(directory, "mirror")
    path.write_bytes(whole + b"\0")
    with pytest.raises(Corruption):
        read_mirror(directory, "mirror")


def test_a_later_version_is_refused_by_its_number(directory: MmapDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "_VERSION", 2)
    write_mirror(directory, "mirror", b"x", FINGERPRINT)
    monkeypatch.undo()
    with pytest.raises(FailedPrecondition, match="version 2"):
        read_mirror(directory, "mirror")


def test_a_loss_of_power_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    for n in range(1, 30):
        root = tmp_path / str(n)
        (root / "db").mkdir(parents=True)
        write_mirror(MmapDirectory(root / "db", FileSystem()), "mirror", b"old", FINGERPRINT)
        fs = ForgetfulFileSystem(root, lose_at=n)
        possible = {b"old", b"new"}
        try:
            write_mirror(MmapDirectory(root / "db", fs), "mirror", b"new", FINGERPRINT)
            possible = {b"new"}
        except PowerLoss:
            pass
        for seed in (None, 1, 2):
            left = tmp_path / f"{n}-{seed}"
            fs.materialise(left, seed=seed)
            found = read_mirror(MmapDirectory(left / "db", FileSystem()), "mirror")
            assert found is not None
            assert found.payload in possible
        if not fs.lost:
            return
    pytest.fail("the calls never came to an end")


def test_a_full_disk_leaves_the_old_one(tmp_path: Path) -> None:
    write_mirror(MmapDirectory(tmp_path, FileSystem()), "mirror", b"old", FINGERPRINT)
    directory = MmapDirectory(tmp_path, FailingFileSystem(errno.ENOSPC, 1, calls=["write"], partial=True))
    with pytest.raises(ResourceExhausted):
        write_mirror(directory, "mirror", b"new", FINGERPRINT)
    assert read_mirror(directory, "mirror") == Mirror(b"old", FINGERPRINT)
