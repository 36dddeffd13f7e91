"""Files of arrays: what was written comes back, and no changed, moved or missing byte goes unnoticed."""

import errno
import shutil
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.storage.faults import CountingFileSystem, FailingFileSystem, ShortFileSystem, UnreadableFileSystem
from vecdb.errors import Corruption, FailedPrecondition, VecdbError
from vecdb.storage.array_file import ArrayFile, ArrayStream, FileRef, write_array_file
from vecdb.storage.checksum import BLOCK_BYTES
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem
from vecdb.types import AnyArray

DTYPES = ["?", "i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8"]

array_sets = st.dictionaries(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9))
    ),
    max_size=5,
)


def same(one: AnyArray, other: AnyArray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def small_file(directory: MmapDirectory, name: str = "file", file_id: int = 7) -> FileRef:
    arrays = {
        "ids": np.arange(100, dtype=np.uint64),
        "vectors": np.arange(900, dtype=np.float32).reshape(60, 15),
        "none": np.zeros((0, 15), np.float32),
        "flag": np.array(True),
    }
    return write_array_file(directory, name, "vectors", arrays, file_id=file_id)


def flip(path: Path, offset: int, bits: int) -> None:
    with path.open("r+b", buffering=0) as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ bits]))


def judged(directory: MmapDirectory, ref: FileRef) -> None:
    ArrayFile.open(directory, ref, role="vectors").verify()


@given(arrays=array_sets, role=st.text(st.characters(codec="utf-8"), max_size=10))
def test_arrays_come_back(tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, AnyArray], role: str) -> None:
    directory = MmapDirectory(tmp_path_factory.mktemp("db"), FileSystem())
    ref = write_array_file(directory, "file", role, arrays)
    assert (directory.path / "file").stat().st_size == ref.size_bytes
    opened = ArrayFile.open(directory, ref, role=role)
    assert list(opened.arrays) == list(arrays)
    for name, array in arrays.items():
        view = opened.arrays[name]
        assert same(view, array)
        assert not view.flags.writeable
        assert view.size == 0 or view.__array_interface__["data"][0] % 64 == 0
        opened.ensure(name)
    opened.verify()
    assert opened.verified


def test_large_arrays_are_aligned_to_pages(directory: MmapDirectory, rng: np.random.Generator) -> None:
    arrays = {"small": np.arange(3), "large": rng.random((3000, 100)), "other": rng.random((700, 900))}
    ref = write_array_file(directory, "file", "r", arrays)
    opened = ArrayFile.open(directory, ref)
    for name in ("large", "other"):
        assert opened.arrays[name].__array_interface__["data"][0] % 4096 == 0
        assert same(opened.arrays[name], arrays[name])


def test_any_memory_order_and_byte_order_is_written(directory: MmapDirectory, rng: np.random.Generator) -> None:
    base = rng.random((400, 1200)).astype(np.float32)
    arrays = {"T": base.T, "strided": base[::3, ::2], "fortran": np.asfortranarray(base), "big": base.astype(">f4")}
    opened = ArrayFile.open(directory, write_array_file(directory, "file", "r", arrays))
    for name, array in arrays.items():
        assert opened.arrays[name].dtype == np.dtype("<f4")
        assert np.array_equal(opened.arrays[name], array)
        assert opened.arrays[name].flags.c_contiguous


def test_streams_are_written_as_if_whole(directory: MmapDirectory, rng: np.random.Generator) -> None:
    whole = rng.random((1000, 33)).astype(np.float32)
    pieces = (whole[at : at + 77] for at in range(0, 1000, 77))
    stream = ArrayStream(whole.dtype, whole.shape, pieces)
    streamed = write_array_file(directory, "streamed", "r", {"v": stream, "n": np.arange(3)}, file_id=5)
    at_once = write_array_file(directory, "at_once", "r", {"v": whole, "n": np.arange(3)}, file_id=5)
    assert directory.read_file("streamed") == directory.read_file("at_once")
    assert (streamed.checksum, streamed.size_bytes) == (at_once.checksum, at_once.size_bytes)


def test_a_stream_that_is_too_short_leaves_no_file(directory: MmapDirectory) -> None:
    stream = ArrayStream(np.dtype(np.float32), (10, 2), [np.zeros((9, 2), np.float32)])
    with pytest.raises(AssertionError):
        write_array_file(directory, "file", "r", {"v": stream})
    assert list(directory.path.iterdir()) == []


def test_every_flipped_byte_is_noticed(directory: MmapDirectory) -> None:
    ref = small_file(directory)
    path = directory.path / "file"
    judged(directory, ref)
    for offset in range(ref.size_bytes):
        flip(path, offset, 1 << offset % 8)
        with pytest.raises(Corruption) as caught:
            judged(directory, ref)
        assert str(path) in caught.value.message
        assert "offset" in caught.value.message
        named = int(caught.value.value or -1)
        assert named <= offset, "the offset is that of the block, or of the part, in which the byte is"
        flip(path, offset, 1 << offset % 8)
    judged(directory, ref)


@pytest.mark.parametrize("cut", [0, 1, 8, 56, 63, 64, 100, 4095, 4096, 4700])
def test_a_truncated_file_is_noticed_before_it_is_mapped(directory: MmapDirectory, cut: int) -> None:
    ref = small_file(directory)
    path = directory.path / "file"
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    with pytest.raises(Corruption, match=f"{cut} bytes"):
        ArrayFile.open(directory, ref)


@pytest.mark.parametrize("added", [b"\0", b"x" * 64, bytes(4096)])
def test_an_extended_file_is_noticed(directory: MmapDirectory, added: bytes) -> None:
    ref = small_file(directory)
    path = directory.path / "file"
    path.write_bytes(path.read_bytes() + added)
    with pytest.raises(Corruption):
        ArrayFile.open(directory, ref)


def test_swapped_files_of_one_length_are_noticed(directory: MmapDirectory) -> None:
    one, other = small_file(directory, "one", 1), small_file(directory, "other", 2)
    assert one.size_bytes == other.size_bytes
    for ref, found in ((one, "other"), (other, "one")):
        swapped = FileRef(found, ref.size_bytes, ref.checksum, ref.file_id)
        with pytest.raises(Corruption, match="another file"):
            ArrayFile.open(directory, swapped)


def test_an_older_copy_is_noticed(directory: MmapDirectory) -> None:
    older = write_array_file(directory, "file", "r", {"a": np.arange(10)}, file_id=9)
    shutil.copy(directory.path / "file", directory.path / "copy")
    directory.unlink("file")
    ref = write_array_file(directory, "file", "r", {"a": np.arange(10) + 1}, file_id=9)
    assert older.size_bytes == ref.size_bytes
    ArrayFile.open(directory, ref).verify()
    shutil.copy(directory.path / "copy", directory.path / "file")
    with pytest.raises(Corruption, match="another file"):
        ArrayFile.open(directory, ref)


def test_blocks_that_changed_places_are_noticed(directory: MmapDirectory, rng: np.random.Generator) -> None:
    ref = write_array_file(directory, "file", "r", {"v": rng.random((64, 512))})
    data = bytearray((directory.path / "file").read_bytes())
    begin, end = 3 * BLOCK_BYTES, 4 * BLOCK_BYTES
    data[begin:end], data[end : end + BLOCK_BYTES] = data[end : end + BLOCK_BYTES], data[begin:end]
    (directory.path / "file").write_bytes(data)
    with pytest.raises(Corruption, match=f"offset {begin}"):
        ArrayFile.open(directory, ref).verify()


def test_another_role_is_refused(directory: MmapDirectory) -> None:
    ref = small_file(directory)
    with pytest.raises(Corruption, match="role"):
        ArrayFile.open(directory, ref, role="graph")


def test_a_later_version_is_refused_by_its_number(directory: MmapDirectory) -> None:
    from vecdb.storage.checksum import checksum64

    ref = small_file(directory)
    path = directory.path / "file"
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, len(data) - 48, 2)
    footer = bytes(data[-56:-8])
    table_at, table_bytes = struct.unpack_from("<QQ", footer, 24)
    table = bytes(data[table_at : table_at + table_bytes])
    root = checksum64(footer + struct.pack("<Q", checksum64(table, ref.file_id)), ref.file_id)
    struct.pack_into("<Q", data, len(data) - 8, root)
    path.write_bytes(data)
    with pytest.raises(FailedPrecondition, match="version 2"):
        ArrayFile.open(directory, ref)


@given(data=st.data())
def test_bytes_of_any_kind_never_crash(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    directory = MmapDirectory(tmp_path_factory.mktemp("db"), FileSystem())
    ref = small_file(directory)
    path = directory.path / "file"
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.one_of(st.integers(0, 200), st.integers(len(whole) - 100, len(whole) - 1)))
        patch = data.draw(st.binary(min_size=1, max_size=16))
        whole[at : at + len(patch)] = patch[: len(whole) - at]
    if bytes(whole) == path.read_bytes():
        return
    path.write_bytes(whole)
    with pytest.raises(VecdbError):
        judged(directory, ref)


def hostile_headers() -> dict[str, Callable[[bytearray], None]]:
    """Changes of a header whose checksums are then made right again, as somebody could who means harm."""

    def put(form: str, offset: int, value: int) -> Callable[[bytearray], None]:
        return lambda data: struct.pack_into(form, data, offset, value)

    first_entry = 32 + 2 + len("r")
    after_name = first_entry + 4 + 1
    return {
        "header bytes": put("<I", 24, 1 << 31),
        "number of arrays": put("<I", 28, 1 << 31),
        "codec": put("<B", 12, 1),
        "role bytes": put("<H", 32, 60_000),
        "name bytes": put("<H", first_entry, 60_000),
        "dtype": put("<B", first_entry + 2, 200),
        "dimensions": put("<B", first_entry + 3, 200),
        "shape": put("<Q", after_name, 1 << 63),
        "offset": put("<Q", after_name + 8, 1 << 62),
        "offset into the header": put("<Q", after_name + 8, 0),
        "unaligned": put("<Q", after_name + 8, 65),
        "size bytes": put("<Q", after_name + 16, 1 << 62),
        "name": put("<B", first_entry + 4, 0xFF),
    }


@pytest.mark.parametrize("part", hostile_headers())
def test_headers_that_contradict_themselves_are_refused(directory: MmapDirectory, part: str) -> None:
    from vecdb.storage.checksum import block_checksums, checksum64

    ref = write_array_file(directory, "file", "r", {"a": np.arange(200)}, file_id=3)
    path = directory.path / "file"
    data = bytearray(path.read_bytes())
    hostile_headers()[part](data)
    footer = bytes(data[-56:-8])
    table_at = struct.unpack_from("<Q", footer, 24)[0]
    table = struct.pack(f"<{(table_at + 4095) // 4096}Q", *block_checksums(bytes(data[:table_at]), 3, 0))
    root = checksum64(footer + struct.pack("<Q", checksum64(table, 3)), 3)
    path.write_bytes(bytes(data[:table_at]) + table + footer + struct.pack("<Q", root))
    with pytest.raises(Corruption, match="makes no sense"):
        ArrayFile.open(directory, FileRef("file", ref.size_bytes, root, 3))


@given(
    rows=st.lists(st.integers(0, 799), max_size=30),
    damaged=st.integers(0, 799),
    width=st.sampled_from([1, 15, 256, 1024, 3000]),
)
def test_ensure_checks_the_blocks_of_the_rows_and_no_others(
    tmp_path_factory: pytest.TempPathFactory, rows: list[int], damaged: int, width: int
) -> None:
    directory = MmapDirectory(tmp_path_factory.mktemp("db"), FileSystem())
    vectors = np.arange(800 * width, dtype=np.float32).reshape(800, width)
    ref = write_array_file(directory, "file", "r", {"v": vectors})
    opened = ArrayFile.open(directory, ref)
    begin = (
        opened.arrays["v"].__array_interface__["data"][0]
        - np.frombuffer(opened._mapping, np.uint8).__array_interface__["data"][0]
    )
    at = begin + damaged * width * 4
    flip(directory.path / "file", at, 0x10)

    def blocks(row: int) -> range:
        return range((begin + row * width * 4) // 4096, (begin + (row + 1) * width * 4 - 1) // 4096 + 1)

    touched = {block for row in rows for block in blocks(row)}
    if at // 4096 in touched:
        with pytest.raises(Corruption, match=f"offset {at // 4096 * 4096}"):
            opened.ensure("v", np.array(rows, np.int64))
    else:
        opened.ensure("v", np.array(rows, np.uint32))
        assert set(np.flatnonzero(opened._checked)) == touched
    with pytest.raises(Corruption):
        opened.verify()
    assert not opened.verified


def test_rows_are_read_once(directory: MmapDirectory, rng: np.random.Generator) -> None:
    class CountingReads(FileSystem):
        reads = 0

        def read(self, fd: int, buffer: bytearray | memoryview, offset: int) -> int:
            self.reads += 1
            return super().read(fd, buffer, offset)

    fs = CountingReads()
    counting = MmapDirectory(directory.path, fs)
    ref = write_array_file(directory, "file", "r", {"v": rng.random((1000, 64)), "w": rng.random(10)})
    opened = ArrayFile.open(counting, ref)
    rows = np.array([3, 999, 500])
    opened.ensure("v", rows)
    before = fs.reads
    opened.ensure("v", rows)
    assert fs.reads == before
    opened.ensure("v")
    opened.ensure("w")
    opened.verify()
    assert opened.verified
    before = fs.reads
    opened.ensure("v", rows)
    opened.verify()
    assert fs.reads == before


def test_threads_may_verify_together(directory: MmapDirectory, rng: np.random.Generator) -> None:
    vectors = rng.random((5000, 64))
    opened = ArrayFile.open(directory, write_array_file(directory, "file", "r", {"v": vectors}))
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        chance = np.random.default_rng(seed)
        try:
            for _ in range(30):
                opened.ensure("v", chance.integers(0, 5000, 40))
            opened.verify()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert opened.verified


def test_an_unlinked_file_is_verified_through_its_mapping(directory: MmapDirectory, rng: np.random.Generator) -> None:
    vectors = rng.random((500, 64))
    ref = write_array_file(directory, "file", "r", {"v": vectors})
    opened = ArrayFile.open(directory, ref)
    directory.unlink("file")
    opened.ensure("v", np.array([4, 400]))
    write_array_file(directory, "file", "r", {"v": vectors + 1})
    opened.verify()
    assert opened.verified
    assert same(opened.arrays["v"], vectors)


def test_a_device_error_is_an_exception_that_names_the_file(tmp_path: Path, rng: np.random.Generator) -> None:
    fs = UnreadableFileSystem(errno.EIO, 200_000)
    directory = MmapDirectory.open(tmp_path / "db", fs, create=True)
    ref = write_array_file(directory, "file", "r", {"v": rng.random((1000, 64))})
    opened = ArrayFile.open(directory, ref)
    fs.armed = True
    opened.ensure("v", np.array([0]))
    for check in (lambda: opened.ensure("v", np.array([383])), opened.verify):
        with pytest.raises(Corruption, match="file: Input/output error"):
            check()
    fs.armed = False
    opened.verify()
    assert opened.verified


def test_short_calls_are_carried_on(tmp_path: Path, rng: np.random.Generator) -> None:
    directory = MmapDirectory.open(tmp_path / "db", ShortFileSystem(1000), create=True)
    vectors = rng.random((100, 64))
    opened = ArrayFile.open(directory, write_array_file(directory, "file", "r", {"v": vectors}))
    opened.verify()
    assert same(opened.arrays["v"], vectors)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_leaves_no_file(tmp_path: Path, number: int) -> None:
    counting = CountingFileSystem()
    small_file(MmapDirectory.open(tmp_path / "counted", counting, create=True))
    for n in range(1, counting.total - 1):
        fs = FailingFileSystem(number, n)
        with pytest.raises(VecdbError):
            small_file(MmapDirectory(tmp_path, fs))
        assert [path.name for path in tmp_path.iterdir()] == ["counted"]
