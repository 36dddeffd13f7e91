"""Byte codes: what comes back from storage, what is refused, and that rows stay comparable."""

import numpy as np
import pytest

from vecdb.errors import Corruption
from vecdb.index.codes import ScalarCodes
from vecdb.kernels.reference import ReferenceKernels
from vecdb.types import Metric

KERNELS = ReferenceKernels()


def stored(rng, n=20, dim=70):
    return ScalarCodes.encode(KERNELS, rng.normal(size=(n, dim)).astype(np.float32), Metric.L2).arrays()


@pytest.mark.parametrize("n", [0, 1, 20])
def test_arrays_come_back(rng, n):
    arrays = stored(rng, n)
    for array in arrays.values():
        array.flags.writeable = False
    again = ScalarCodes.from_arrays(arrays, Metric.L2)
    assert (again.rows, again.dim, again.metric) == (n, 70, Metric.L2)
    for name, array in again.arrays().items():
        np.testing.assert_array_equal(array, arrays[name])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("codes", lambda a: a[:-1]),
        ("codes", lambda a: a[:, :-1].copy()),
        ("codes", lambda a: a.astype(np.int8)),
        ("codes", np.asfortranarray),
        ("codes", lambda a: a.ravel()),
        ("norms", lambda a: a[:-1]),
        ("norms", lambda a: a.astype(np.int64)),
        ("centre", lambda a: a[:-10]),
        ("centre", lambda a: np.full_like(a, np.nan)),
        ("step", lambda a: a[:0]),
        ("step", lambda a: a * 0),
        ("step", lambda a: a * np.nan),
        ("step", lambda a: None),
    ],
)
def test_arrays_that_do_not_fit_are_corruption(rng, name, change):
    arrays = stored(rng)
    changed = change(arrays[name])
    arrays = {key: value for key, value in (arrays | {name: changed}).items() if value is not None}
    with pytest.raises(Corruption) as caught:
        ScalarCodes.from_arrays(arrays, Metric.L2)
    assert caught.value.field is not None


def test_the_same_vectors_give_the_same_bytes(rng):
    vectors = rng.normal(size=(5000, 8)).astype(np.float32)
    first, second = (ScalarCodes.encode(KERNELS, vectors.copy(), Metric.COSINE) for _ in range(2))
    assert first.step == second.step
    np.testing.assert_array_equal(first.codes.table, second.codes.table)


def test_the_metric_dot_is_not_centred(rng):
    vectors = (rng.normal(size=(50, 8)) + 5).astype(np.float32)
    assert not ScalarCodes.encode(KERNELS, vectors, Metric.DOT).centre.any()
    assert ScalarCodes.encode(KERNELS, vectors, Metric.L2).centre.min() > 3


@pytest.mark.parametrize("metric", list(Metric))
def test_distances_between_rows_are_never_negative(rng, metric):
    vectors = (rng.normal(size=(100, 30)) * rng.uniform(0.1, 3, (100, 1))).astype(np.float32)
    space = ScalarCodes.encode(KERNELS, vectors, metric).build_space(KERNELS)
    levels = space.table.astype(np.int64) - 128
    distances = space.halves[:, None] + space.halves - levels @ levels.T
    assert distances.min() >= -1
    if metric is not Metric.DOT:
        right = ((vectors[:, None] - vectors) ** 2).sum(axis=2)
        assert np.corrcoef(right.ravel(), distances.ravel())[0, 1] > 0.999
