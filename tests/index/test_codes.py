"""Byte codes: what comes back from storage, what is refused, and that rows stay comparable."""

import tracemalloc

import numpy as np
import pytest

from vecdb.errors import Cancelled, Corruption
from vecdb.index.codes import ScalarCodes
from vecdb.index.hnsw import HnswIndex
from vecdb.index.steps import finished
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
    space = finished(ScalarCodes.encode(KERNELS, vectors, metric).build_space(KERNELS))
    levels = space.table.astype(np.int64) - 128
    distances = space.halves[:, None] + space.halves - levels @ levels.T
    assert distances.min() >= -1
    if metric is not Metric.DOT:
        right = ((vectors[:, None] - vectors) ** 2).sum(axis=2)
        assert np.corrcoef(right.ravel(), distances.ravel())[0, 1] > 0.999


def opened_in_steps(codes, links):
    """Sketches, nibbles and the space to build in, each with the number of steps they took."""
    for steps in (codes.sketches(KERNELS), codes.nibbles(links), codes.build_space(KERNELS)):
        taken: list[int] = []
        yield finished(steps, lambda taken=taken: taken.append(1)), len(taken)


def test_what_is_derived_in_many_steps_is_what_is_derived_in_one(rng, monkeypatch):
    vectors = rng.standard_normal((3000, 300)).astype(np.float32)
    codes = ScalarCodes.encode(KERNELS, vectors, Metric.L2)
    links = rng.integers(0, 3000, (3000, 4)).astype(np.int32)
    monkeypatch.setattr("vecdb.index.codes._STEP_BYTES", 2**30)
    (sketches, _), (nibbles, _), (space, _) = opened_in_steps(codes, links)
    assert nibbles.table.shape[0] == 3000
    monkeypatch.setattr("vecdb.index.codes._STEP_BYTES", 70 * codes.codes.table.shape[1])
    (some_sketches, taken), (some_nibbles, more), (some_space, most) = opened_in_steps(codes, links)
    assert min(taken, more, most) >= 3000 // 70
    np.testing.assert_array_equal(some_sketches, sketches)
    np.testing.assert_array_equal(some_nibbles.table, nibbles.table)
    assert some_nibbles.step == nibbles.step
    np.testing.assert_array_equal(some_space.sketches, space.sketches)
    # By the definition: the four bits of each level, those of the second half of a row above those of the first.
    levels = np.clip((codes.codes.table.astype(np.int64) - 128) // nibbles.step, -8, 7) + 8
    halves = levels[:, : nibbles.table.shape[1]]
    np.testing.assert_array_equal(nibbles.table & 15, halves)


def test_an_opening_that_is_ended_holds_nothing_of_what_was_half_done(rng):
    vectors = rng.standard_normal((16_000, 512)).astype(np.float32)
    codes = ScalarCodes.encode(KERNELS, vectors, Metric.L2)
    n = codes.rows
    arrays = {
        "links": rng.integers(0, n, (n, 4)).astype(np.int32),
        "upper_rows": np.zeros(1, np.int32),
        "upper_links": np.full((1, 2), -1, np.int32),
        "level_starts": np.array([0, 1]),
    }
    steps = 0

    def count():
        nonlocal steps
        steps += 1

    whole = HnswIndex.from_arrays(KERNELS, arrays, codes, vectors, count).derived_bytes
    assert steps > 8
    last = steps - 1

    def stop():
        nonlocal steps
        steps += 1
        if steps == last:
            raise Cancelled("enough")

    steps = 0
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        with pytest.raises(Cancelled) as caught:
            HnswIndex.from_arrays(KERNELS, arrays, codes, vectors, stop)
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert caught.value.__traceback__ is not None
    assert held < whole // 10
