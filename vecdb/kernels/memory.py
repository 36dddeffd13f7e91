"""Memory for arrays whose rows are read in no order, each in as few cache lines and page walks as can be.

A row of 64 bytes that does not start at a cache line lies in two, and NumPy's arrays start 16 bytes behind one.
Where an array is large it also asks for huge pages: a walk reads hundreds of rows that are pages apart.
"""

from __future__ import annotations

import contextlib
import math
import mmap

import numpy as np
import numpy.typing as npt

from vecdb.types import AnyArray

LINE_BYTES = 64
HUGE_PAGE_BYTES = 2 * 2**20


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> AnyArray:
    """An array of this shape and type, C order, whose first element starts a cache line; its content is undefined.

    From ``HUGE_PAGE_BYTES`` on it starts a huge page, which the system may give or not.

    Raises
    ------
    MemoryError
        There is none.
    """
    size_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if size_bytes < HUGE_PAGE_BYTES:
        return _from(np.empty(size_bytes + LINE_BYTES, np.uint8), LINE_BYTES, size_bytes).view(dtype).reshape(shape)
    # What lies before the first huge page and behind the last row is never touched, so it takes no memory. Private,
    # because to the system what is shared is a file: it has other rules for huge pages, and is counted with files.
    try:
        mapped = mmap.mmap(-1, size_bytes + HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"no memory for {size_bytes} bytes") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # A kernel may be built without them: the array is as good then, only slower to walk.
        with contextlib.suppress(OSError):
            mapped.madvise(mmap.MADV_HUGEPAGE)
    return _from(np.frombuffer(mapped, np.uint8), HUGE_PAGE_BYTES, size_bytes).view(dtype).reshape(shape)


def aligned_copy(array: AnyArray) -> AnyArray:
    """A copy of an array, aligned as ``aligned_empty``."""
    copied = aligned_empty(array.shape, array.dtype)
    copied[...] = array
    return copied


def _from(room: AnyArray, alignment: int, size_bytes: int) -> AnyArray:
    start = -room.ctypes.data % alignment
    return room[start : start + size_bytes]
