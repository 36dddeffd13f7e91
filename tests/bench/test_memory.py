"""Memory: what is counted, what is not."""

import mmap
import os

import numpy as np
import pytest

from vecdb.bench.memory import allocated_bytes, memory_use, peak_resident_bytes, reset_peak, resident_bytes

MEGABYTE = 2**20
SIZE = 32 * MEGABYTE


def mapped(path, size):
    with path.open("wb") as file:
        for _ in range(0, size, MEGABYTE):
            file.write(bytes(MEGABYTE))
    array = np.memmap(path, np.uint8, "r")
    assert int(array[::4096].sum()) == 0  # touches every page
    return array


def now(directory):
    use = memory_use(os.getpid(), directory)
    if use is None:
        pytest.skip("the kernel does not show /proc/self/smaps")
    return use


def test_anonymous_memory_is_counted(tmp_path):
    before = now(tmp_path)
    block = np.ones(SIZE, np.uint8)
    after = now(tmp_path)
    assert block[-1] == 1
    assert abs(after.anonymous_bytes - before.anonymous_bytes - SIZE) < 4 * MEGABYTE
    assert after.own_file_bytes == before.own_file_bytes


def test_pages_of_own_files_are_counted_and_others_are_not(tmp_path):
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    other.mkdir()
    before = now(own)
    kept = [mapped(other / "data", SIZE), mapped(own / "data", SIZE // 2)]
    after = now(own)
    assert len(kept) == 2
    assert after.own_file_bytes - before.own_file_bytes == SIZE // 2
    assert abs(after.anonymous_bytes - before.anonymous_bytes) < 4 * MEGABYTE


def test_a_file_mapped_twice_counts_once(tmp_path):
    kept = [mapped(tmp_path / "data", SIZE), np.memmap(tmp_path / "data", np.uint8, "r")]
    assert int(kept[1][::4096].sum()) == 0
    assert abs(now(tmp_path).own_file_bytes - SIZE) < MEGABYTE


def test_a_directory_whose_name_begins_alike_is_another(tmp_path):
    (tmp_path / "engine2").mkdir()
    kept = mapped(tmp_path / "engine2" / "data", MEGABYTE)
    assert len(kept) == MEGABYTE
    assert now(tmp_path / "engine").own_file_bytes == 0


def test_the_peak_remembers_what_was_freed():
    pid = os.getpid()
    if not reset_peak(pid):
        pytest.skip("the kernel does not let a process reset its peak")
    before = resident_bytes(pid)
    with mmap.mmap(-1, SIZE) as block:
        block.write(b"\1" * SIZE)
    assert peak_resident_bytes(pid) - before > SIZE - MEGABYTE
    assert reset_peak(pid)
    assert peak_resident_bytes(pid) - before < SIZE // 2


def test_a_process_that_is_gone_has_no_memory(tmp_path):
    pid = 2**22 - 3
    assert memory_use(pid, tmp_path) is None
    assert resident_bytes(pid) is None
    assert not reset_peak(pid)


def test_disk_counts_what_is_allocated(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "data").write_bytes(b"x" * MEGABYTE)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(SIZE)
    assert MEGABYTE <= allocated_bytes(tmp_path) < 2 * MEGABYTE
