"""Arrays that kernels read in no order start where a cache line does."""

import errno
import mmap
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vecdb.bitmap import Bitmap
from vecdb.index.codes import ScalarCodes
from vecdb.index.hnsw import HnswBuilder, HnswIndex, HnswParams
from vecdb.kernels.cpu import host
from vecdb.kernels.cpu.host import CpuKernels
from vecdb.kernels.memory import HUGE_PAGE_BYTES, LINE_BYTES, aligned_copy, aligned_empty
from vecdb.types import Metric


@pytest.mark.parametrize("rows", [1, 3, HUGE_PAGE_BYTES // 256 - 1, HUGE_PAGE_BYTES // 256, 20_000])
def test_arrays_start_at_a_line_and_large_ones_at_a_huge_page(rows):
    made = [aligned_empty((rows, 64), np.int32) for _ in range(3)]
    for number, array in enumerate(made):
        array[...] = number
    for number, array in enumerate(made):
        assert (array.shape, array.dtype, array.flags.c_contiguous) == ((rows, 64), np.int32, True)
        assert array.ctypes.data % (LINE_BYTES if array.nbytes < HUGE_PAGE_BYTES else HUGE_PAGE_BYTES) == 0
        assert (array == number).all()


def test_large_arrays_are_given_huge_pages_where_the_system_has_any():
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.exists() or "[never]" in setting.read_text():
        pytest.skip("this system has no huge pages")
    array = aligned_empty((4 * HUGE_PAGE_BYTES,), np.uint8)
    array[:] = 1
    mapped = Path("/proc/self/smaps").read_text().splitlines()
    starts = [
        number for number, line in enumerate(mapped)
        if (found := re.match("([0-9a-f]+)-([0-9a-f]+) ", line))
        and int(found[1], 16) <= array.ctypes.data < int(found[2], 16)
    ]  # fmt: skip
    (start,) = starts
    assert next(line for line in mapped[start:] if line.startswith("THPeligible")).split()[1] == "1"


def test_a_want_of_memory_is_told_as_one(monkeypatch):
    def refused(*_args, **_flags):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refused)
    with pytest.raises(MemoryError, match=str(HUGE_PAGE_BYTES)):
        aligned_empty((HUGE_PAGE_BYTES,), np.uint8)


def test_many_queries_are_several_calls(monkeypatch):
    rng = np.random.default_rng(1)
    vectors, queries = (rng.standard_normal((rows, 12)).astype(np.float32) for rows in (300, 25))
    kernels = CpuKernels()
    codes = ScalarCodes.encode(kernels, vectors, Metric.L2)
    builder = HnswBuilder(kernels, codes, HnswParams(m=8, ef_construction=20))
    builder.run()
    index = HnswIndex.from_arrays(kernels, builder.arrays(), codes, vectors)
    some = Bitmap.from_bools(np.arange(300) % 2 == 0)
    whole = [index.search(queries, 10, allowed=allowed) for allowed in (None, some)]
    monkeypatch.setattr(host, "_CALL_QUERIES", 4)
    for allowed, one in zip((None, some), whole, strict=True):
        parts = index.search(queries, 10, allowed=allowed)
        assert np.array_equal(parts.topk.slots, one.topk.slots)
        assert np.array_equal(parts.topk.distances, one.topk.distances)
        assert replace(parts, topk=one.topk) == one


def test_a_copy_is_what_was_copied():
    rows = np.arange(60, dtype=np.uint16).reshape(12, 5)[::2]
    assert np.array_equal(aligned_copy(rows), rows)
    assert aligned_copy(rows).dtype == rows.dtype


def test_what_a_walk_reads_is_aligned():
    vectors = np.random.default_rng(0).standard_normal((500, 320)).astype(np.float32)
    kernels = CpuKernels()
    codes = ScalarCodes.encode(kernels, vectors, Metric.L2)
    builder = HnswBuilder(kernels, codes, HnswParams(m=8, ef_construction=20))
    builder.run()
    graph = HnswIndex.from_arrays(kernels, builder.arrays(), codes, vectors).graph
    walked = {
        "codes": codes.codes.table,
        "links": graph.links,
        "sketches": graph.sketches,
        "nibbles": graph.nibbles.table,
        "upper codes": graph.upper.table,
    }
    assert {name: array.ctypes.data % LINE_BYTES for name, array in walked.items()} == dict.fromkeys(walked, 0)
    assert all(array.size for array in walked.values())
