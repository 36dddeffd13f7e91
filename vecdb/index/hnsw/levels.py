"""Which layers a row is on, and when it is inserted: functions of the row number and a seed, of nothing else."""

from __future__ import annotations

import numpy as np

from vecdb.types import I32Array, I64Array, U64Array

LEVELS_MAX = 16


def _mixed(rows: U64Array, seed: int) -> U64Array:
    """A 64-bit hash of each row number (the finaliser of SplitMix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        value = (rows + np.uint64(1)) * np.uint64(0x9E37_79B9_7F4A_7C15) + np.uint64(seed) * np.uint64(
            0xD1B5_4A32_D192_ED03
        )
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
        return value ^ (value >> np.uint64(31))


def row_hashes(rows: int, seed: int) -> U64Array:
    """(rows,) uint64: a hash of each row number."""
    return _mixed(np.arange(rows, dtype=np.uint64), seed)


def insertion_order(rows: int, m: int, seed: int) -> tuple[I32Array, I64Array]:
    """Rows from the highest layer down, and how many rows each layer above the bottom holds.

    A row reaches layer l with probability ``m ** -l``, decided by integer comparison. The first row in the order is the
    entry point and is on layer 1 at least.

    Returns
    -------
    order
        (rows,) int32, a permutation: highest layer first, within a layer in the order of a hash.
    counts
        (levels,) int64: rows on layer 1, on layer 2, ...; each at least 1.
    """
    hashes = row_hashes(rows, seed)
    levels = np.zeros(rows, np.int64)
    threshold = 1 << 64
    for _ in range(LEVELS_MAX):
        threshold //= m
        if threshold == 0:
            break
        levels += hashes < np.uint64(threshold)
    # The row with the smallest hash is on the highest layer; sorting by hash alone therefore sorts by layer too.
    order = np.argsort(hashes, kind="stable").astype(np.int32)
    if rows:
        levels[order[0]] = max(1, levels[order[0]])
    top = int(levels.max(initial=0))
    counts = np.array([int((levels >= level).sum()) for level in range(1, top + 1)], np.int64)
    return order, counts
