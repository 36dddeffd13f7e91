"""The file system calls: short and interrupted writes, mappings without descriptors, what an error is turned into."""

import errno
import gc
import os
from pathlib import Path

import pytest

from tests.storage.faults import FailingFileSystem, ShortFileSystem
from vecdb.errors import Corruption, FailedPrecondition, ResourceExhausted, Unavailable
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import DiskFull, FileSystem, address_of, read_up_to, translated, write_fully


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("bytes_max", [1, 7, 4096])
def test_short_and_interrupted_calls_are_carried_on(tmp_path: Path, bytes_max: int) -> None:
    fs = ShortFileSystem(bytes_max)
    buffers = [b"abc", b"", bytearray(range(200)), memoryview(b"xyz" * 100)]
    whole = b"".join(bytes(buffer) for buffer in buffers)
    fd = fs.create(tmp_path / "file")
    write_fully(fs, fd, buffers, 10)
    found = bytearray(len(whole) + 10)
    assert read_up_to(fs, fd, found, 0) == len(found)
    assert found == bytes(10) + whole
    assert read_up_to(fs, fd, bytearray(50), len(found) - 20) == 20
    fs.close(fd)


def test_more_buffers_than_one_call_takes(tmp_path: Path) -> None:
    fs = FileSystem()
    buffers = [bytes([number % 256]) * (number % 5) for number in range(5_000)]
    fd = fs.create(tmp_path / "file")
    write_fully(fs, fd, buffers, 0)
    fs.close(fd)
    assert (tmp_path / "file").read_bytes() == b"".join(buffers)


def test_a_write_without_progress_is_an_error(tmp_path: Path) -> None:
    class StuckFileSystem(FileSystem):
        def write(self, fd: int, buffers: object, offset: int) -> int:
            return 0

    fs = StuckFileSystem()
    fd = fs.create(tmp_path / "file")
    with pytest.raises(OSError, match="no progress"):
        write_fully(fs, fd, [b"abc"], 0)
    fs.close(fd)


def test_a_mapping_holds_no_descriptor_and_outlives_the_name(directory: MmapDirectory) -> None:
    directory.write_file("file", b"0123456789" * 1000)
    before = descriptors()
    view = directory.map("file", 10_000)[5:15]
    assert descriptors() == before
    directory.unlink("file")
    gc.collect()
    assert bytes(view) == b"5678901234"
    with pytest.raises(TypeError):
        view[0] = 1


def test_a_mapping_ends_with_its_last_view(directory: MmapDirectory) -> None:
    directory.write_file("file", bytes(1 << 20))

    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count("/db/file")

    view = directory.map("file", 1 << 20)
    part = view[10:20]
    assert mapped() == 1
    view.release()
    assert mapped() == 1
    part.release()
    gc.collect()
    assert mapped() == 0


def test_a_mapping_is_brought_into_memory_and_given_back(directory: MmapDirectory) -> None:
    size_bytes = 32 << 20
    directory.write_file("file", bytes(size_bytes))
    fs = directory.fs
    view = directory.map("file", size_bytes)
    pages_fd = fs.open_process_pages()
    before = fs.mapped_bytes(pages_fd)
    assert fs.mapped_bytes_by_address()[address_of(view)] == 0
    fs.populate(view)
    assert fs.mapped_bytes_by_address()[address_of(view)] == size_bytes
    assert fs.mapped_bytes(pages_fd) - before > size_bytes // 2
    fs.release(view)
    assert fs.mapped_bytes_by_address()[address_of(view)] == 0
    assert fs.mapped_bytes(pages_fd) - before < size_bytes // 2
    assert bytes(view[-3:]) == bytes(3)
    fs.close(pages_fd)


def test_an_older_system_brings_a_mapping_into_memory_too(
    directory: MmapDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.write_file("file", bytes(1 << 20))
    view = directory.map("file", 1 << 20)
    monkeypatch.setattr("vecdb.storage.io._MADV_POPULATE_READ", 12345)
    directory.fs.populate(view)
    assert directory.fs.mapped_bytes_by_address()[address_of(view)] == 1 << 20


def test_only_a_whole_mapping_is_given_back(directory: MmapDirectory) -> None:
    directory.write_file("file", bytes(1 << 20))
    with pytest.raises(AssertionError):
        directory.fs.release(directory.map("file", 1 << 20)[7:])
    directory.fs.release(memoryview(b""))
    directory.fs.populate(memoryview(b""))


@pytest.mark.parametrize(
    ("number", "action", "kind"),
    [
        (errno.ENOSPC, "write", DiskFull),
        (errno.EDQUOT, "write", DiskFull),
        (errno.EMFILE, "read", ResourceExhausted),
        (errno.EIO, "write", Unavailable),
        (errno.EIO, "read", Corruption),
        (errno.ENOENT, "read", Corruption),
        (errno.EROFS, "write", FailedPrecondition),
        (errno.ENODEV, "read", Unavailable),
    ],
)
def test_errors_say_what_the_caller_can_do(number: int, action: str, kind: type[Exception]) -> None:
    error = translated(OSError(number, os.strerror(number)), Path("somewhere/file"), action)  # type: ignore[arg-type]
    assert type(error) is kind
    assert error.field == "somewhere/file"
    assert "somewhere/file" in error.message


def test_files_and_directories_are_private(directory: MmapDirectory) -> None:
    directory.write_file("file", b"x")
    assert (directory.path / "file").stat().st_mode & 0o777 == 0o600
    assert directory.path.stat().st_mode & 0o777 == 0o700


def test_a_failing_file_system_fails_where_it_is_told_to(tmp_path: Path) -> None:
    fs = FailingFileSystem(errno.EIO, 2, calls=["fsync"])
    fd = fs.create(tmp_path / "file")
    fs.fsync(fd)
    with pytest.raises(OSError, match="Input/output"):
        fs.fsync(fd)
    fs.fsync(fd)
    fs.close(fd)
    assert fs.calls["fsync"] == 3
