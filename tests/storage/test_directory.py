"""Write-once files: whole under their name or not there, durable in the right order, refused where they should be."""

import errno
import threading
from pathlib import Path

import pytest

from tests.storage.faults import FailingFileSystem
from tests.storage.forgetful import ForgetfulFileSystem, PowerLoss, UnsyncedFileSystem
from vecdb.errors import Corruption, FailedPrecondition, NotFound, ResourceExhausted, Unavailable
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem


def test_a_file_has_its_name_only_once_it_is_whole(directory: MmapDirectory) -> None:
    writer = directory.create("file")
    writer.write(b"abc", b"def")
    assert directory.names() == []
    assert writer.finish() == 6
    assert directory.names() == ["file"]
    assert directory.read_file("file") == b"abcdef"


def test_an_abandoned_file_leaves_nothing(directory: MmapDirectory) -> None:
    with directory.create("file") as writer:
        writer.write(b"abc")
    assert list(directory.path.iterdir()) == []


def test_leftovers_are_not_names_and_are_removed(directory: MmapDirectory) -> None:
    (directory.path / "file.tmp").write_bytes(b"half")
    assert directory.names() == []
    with directory.create("file") as writer:
        writer.write(b"whole")
        writer.finish()
    (directory.path / "other.tmp").write_bytes(b"half")
    assert directory.remove_leftovers() == ["other.tmp"]
    assert directory.names() == ["file"]
    assert [entry.name for entry in directory.path.iterdir()] == ["file"]


def test_reading_beyond_the_end_is_corruption(directory: MmapDirectory) -> None:
    directory.write_file("file", b"0123456789")
    with directory.open_reader("file") as reader:
        assert reader.pread(4, 6) == b"6789"
        for size, offset in ((5, 6), (1, 10), (1 << 60, 0), (4, -1)):
            with pytest.raises(Corruption, match="file"):
                reader.pread(size, offset)
        (directory.path / "file").write_bytes(b"012")
        with pytest.raises(Corruption, match="ends at byte 3"):
            reader.pread(5, 0)


def test_mapping_another_size_is_corruption(directory: MmapDirectory) -> None:
    directory.write_file("file", b"0123456789")
    assert bytes(directory.map("file", 10)) == b"0123456789"
    for size in (9, 11, 0):
        with pytest.raises(Corruption, match="10 bytes"):
            directory.map("file", size)
    directory.write_file("empty", b"")
    assert bytes(directory.map("empty", 0)) == b""


def test_a_missing_file_is_corruption_that_names_it(directory: MmapDirectory) -> None:
    with pytest.raises(Corruption, match=r"gone\.bin is missing"):
        directory.read_file("gone.bin")
    directory.unlink("gone.bin")
    assert not directory.exists("gone.bin")


def test_too_large_a_file_is_not_read(directory: MmapDirectory) -> None:
    directory.write_file("file", bytes(100))
    with pytest.raises(Corruption):
        directory.read_file("file", 99)


@pytest.mark.parametrize("name", ["../file", "a/b", ".hidden", "", "a\0b", "-x"])
def test_names_never_leave_the_directory(directory: MmapDirectory, name: str) -> None:
    with pytest.raises(AssertionError):
        directory.path_of(name)


def test_sub_directories(directory: MmapDirectory) -> None:
    with pytest.raises(Corruption):
        directory.child("sub", create=False)
    child = directory.child("sub", create=True)
    child.write_file("file", b"x")
    child.child("deeper", create=True).write_file("file", b"y")
    assert directory.children() == ["sub"]
    assert directory.names() == []
    directory.remove_child("sub")
    directory.remove_child("sub")
    assert directory.children() == []


def test_a_read_only_directory_refuses_changes(directory: MmapDirectory) -> None:
    directory.write_file("file", b"x")
    reading = MmapDirectory.open(directory.path, FileSystem(), create=False, read_only=True)
    assert reading.read_file("file") == b"x"
    for change in (
        lambda: reading.create("other"),
        lambda: reading.unlink("file"),
        lambda: reading.remove_child("sub"),
        reading.remove_leftovers,
    ):
        with pytest.raises(FailedPrecondition):
            change()
    with pytest.raises(Corruption):
        reading.child("sub", create=True)


def test_a_file_is_no_directory(directory: MmapDirectory) -> None:
    directory.write_file("file", b"x")
    with pytest.raises(FailedPrecondition):
        MmapDirectory.open(directory.path / "file", FileSystem(), create=True)
    with pytest.raises(NotFound):
        MmapDirectory.open(directory.path / "none", FileSystem(), create=False)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_every_failing_call_leaves_the_old_file(tmp_path: Path, number: int) -> None:
    MmapDirectory.open(tmp_path / "db", FileSystem(), create=True).replace_file("file", b"old")
    for n in range(1, 20):
        fs = FailingFileSystem(number, n)
        directory = MmapDirectory(tmp_path / "db", fs)
        try:
            directory.replace_file("file", b"new")
        except ResourceExhausted:
            assert number == errno.ENOSPC
            assert not fs.calls["fsync_directory"]
        except Unavailable:
            # A failed sync is never a reason to try again, whatever it failed for.
            assert number == errno.EIO or fs.calls["fsync_directory"]
        else:
            assert fs.total < n
            break
        content = directory.read_file("file")
        assert content == b"old" or fs.calls["fsync_directory"]
        MmapDirectory(tmp_path / "db", FileSystem()).replace_file("file", b"old")
        assert [entry.name for entry in (tmp_path / "db").iterdir()] == ["file"]
    else:
        pytest.fail("the calls never came to an end")


def replaced_under_power_loss(tmp_path: Path, left_out: tuple[str, ...]) -> list[str]:
    """Lose the power at each call of two replacements and after them; what is wrong afterwards."""
    findings = []
    for n in range(1, 50):
        root = tmp_path / f"run{n}"
        (root / "db").mkdir(parents=True)
        (root / "db" / "file").write_bytes(b"old")
        fs = UnsyncedFileSystem(root, left_out=left_out, lose_at=n)
        acknowledged = b"old"
        possible = {b"old"}
        try:
            directory = MmapDirectory(root / "db", fs)
            for content in (b"new" * 1000, b"newest"):
                possible = {acknowledged, content}
                directory.replace_file("file", content)
                acknowledged = content
                possible = {content}
        except PowerLoss:
            pass
        for seed in (None, 1, 2, 3):
            target = tmp_path / f"left{n}-{seed}"
            fs.materialise(target, seed=seed)
            found = target / "db" / "file"
            if not found.exists() or found.read_bytes() not in possible:
                findings.append(f"call {n}, seed {seed}")
        if not fs.lost:
            return findings
    raise AssertionError("the calls never came to an end")


def test_replacing_a_file_survives_a_loss_of_power(tmp_path: Path) -> None:
    assert replaced_under_power_loss(tmp_path, ()) == []


@pytest.mark.parametrize("left_out", ["fsync", "fsync_directory"])
def test_leaving_a_sync_out_is_noticed(tmp_path: Path, left_out: str) -> None:
    assert replaced_under_power_loss(tmp_path, (left_out,)) != []


def test_a_new_directory_is_durable_before_it_is_used(tmp_path: Path) -> None:
    fs = ForgetfulFileSystem(tmp_path)
    MmapDirectory.open(tmp_path / "db", fs, create=True).replace_file("file", b"x")
    fs.materialise(tmp_path / "left")
    assert (tmp_path / "left" / "db" / "file").read_bytes() == b"x"


def test_a_file_finished_during_a_sync_is_synced_by_the_next(tmp_path: Path) -> None:
    """The sync under way may have passed its name already."""

    class Slow(FileSystem):
        def __init__(self) -> None:
            self.syncs = 0
            self.entered = threading.Event()
            self.go_on = threading.Event()
            self.go_on.set()

        def fsync_directory(self, path: Path) -> None:
            super().fsync_directory(path)
            self.syncs += 1
            self.entered.set()
            assert self.go_on.wait(10)

    fs = Slow()
    directory = MmapDirectory.open(tmp_path / "db", fs, create=True)
    directory.write_file("first", b"x")
    directory.sync()
    directory.sync()
    idle = fs.syncs
    directory.write_file("second", b"x")
    fs.entered.clear()
    fs.go_on.clear()
    syncing = threading.Thread(target=directory.sync)
    syncing.start()
    assert fs.entered.wait(10)
    directory.write_file("third", b"x")
    fs.go_on.set()
    syncing.join()
    assert fs.syncs == idle + 1
    directory.sync()
    assert fs.syncs == idle + 2
    directory.sync()
    assert fs.syncs == idle + 2
