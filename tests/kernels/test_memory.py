"""Arrays that kernels read in no order start where a cache line does."""

import numpy as np
import pytest

from vecdb.index.codes import ScalarCodes
from vecdb.index.hnsw import HnswBuilder, HnswIndex, HnswParams
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
        "upper sketches": graph.upper.sketches,
    }
    assert {name: array.ctypes.data % LINE_BYTES for name, array in walked.items()} == dict.fromkeys(walked, 0)
    assert all(array.size for array in walked.values())
