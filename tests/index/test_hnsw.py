"""The graph: recall, reachability, determinism, and arrays that must not be trusted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.bitmap import Bitmap
from vecdb.errors import Corruption, InvalidArgument
from vecdb.index.codes import ScalarCodes
from vecdb.index.hnsw import HnswBuilder, HnswIndex, HnswParams, beam_for_recall, ef_for_recall
from vecdb.index.hnsw.levels import insertion_order
from vecdb.kernels.arrays import SLACK_BITS, Beam
from vecdb.kernels.cpu import CpuKernels
from vecdb.types import Metric

KERNELS = CpuKernels()
SMALL = HnswParams(m=4, ef_construction=24, seed=3)


def built(vectors, metric, params=SMALL):
    codes = ScalarCodes.encode(KERNELS, vectors, metric)
    builder = HnswBuilder(KERNELS, codes, params)
    assert builder.run()
    return builder.arrays(), codes


def index_of(vectors, metric, params=SMALL):
    arrays, codes = built(vectors, metric, params)
    for array in arrays.values():
        array.flags.writeable = False
    return HnswIndex.from_arrays(KERNELS, arrays, codes, vectors)


def clustered(rng, n, dim, metric):
    vectors = rng.normal(size=(30, dim))[rng.integers(0, 30, n)] + 0.7 * rng.normal(size=(n, dim))
    if metric is Metric.DOT:
        vectors *= rng.uniform(0.3, 1.5, (n, 1))
    if metric is Metric.COSINE:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def recall(found, right):
    pairs = zip(found.slots.tolist(), right.slots.tolist(), strict=True)
    return np.mean([len(set(a) & set(b) - {-1}) / len(set(b) - {-1}) for a, b in pairs])


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("dim", [24, 300])
def test_default_breadth_reaches_its_recall(rng, metric, dim):
    vectors = clustered(rng, 4200, dim, metric)
    vectors, queries = vectors[:4000], vectors[4000:]
    index = index_of(vectors, metric, HnswParams())
    right = KERNELS.scan_topk(vectors, queries, metric, 10)
    answer = index.search(queries, 10)
    assert recall(answer.topk, right) >= 0.95
    assert 0 < answer.hops < answer.distance_computations < 4000 * 200 * 0.6
    exact = KERNELS.rerank(vectors, queries, answer.topk.slots, metric, 10)
    np.testing.assert_array_equal(answer.topk.distances, exact.distances)
    assert index.check() == []


@given(
    n=st.integers(0, 300),
    dim=st.sampled_from([1, 2, 17, 64, 260]),
    metric=st.sampled_from(list(Metric)),
    kinds=st.sampled_from([1, 2, 5, 1000]),
    m=st.sampled_from([2, 4, 16]),
    seed=st.integers(0, 1000),
)
def test_every_row_is_reachable_and_a_broad_search_is_exact(n, dim, metric, kinds, m, seed):
    rng = np.random.default_rng(seed)
    pool = rng.normal(size=(kinds, dim)).astype(np.float32)
    vectors = pool[rng.integers(0, kinds, n)]
    if metric is Metric.COSINE:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = index_of(vectors, metric, HnswParams(m=m, ef_construction=8, seed=seed))
    assert index.check() == []
    answer = index.search(vectors[:5], n + 2, beam=Beam(n))
    right = KERNELS.scan_topk(vectors, vectors[:5], metric, n + 2)
    np.testing.assert_array_equal(answer.topk.slots, right.slots)


@pytest.mark.parametrize("dim", [1, 3, 4096])
def test_unusual_dimensions(rng, dim):
    vectors = rng.normal(size=(60, dim)).astype(np.float32)
    index = index_of(vectors, Metric.L2)
    assert (index.search(vectors, 1, beam=Beam(60)).topk.slots[:, 0] == np.arange(60)).all()


def test_rows_that_are_all_equal():
    vectors = np.ones((3000, 8), np.float32)
    index = index_of(vectors, Metric.L2)
    assert index.check() == []
    answer = index.search(vectors[:2], 20)
    assert (answer.topk.slots >= 0).all()
    assert (answer.topk.distances == 0).all()


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_only_allowed_rows_are_returned(rng, share):
    vectors = clustered(rng, 3100, 32, Metric.L2)
    vectors, queries = vectors[:3000], vectors[3000:]
    allowed = Bitmap.from_bools(rng.random(3000) < share)
    index = index_of(vectors, Metric.L2, HnswParams())
    answer = index.search(queries, 10, allowed=allowed)
    found = answer.topk.slots[answer.topk.slots >= 0]
    assert allowed.contains(found).all()
    assert recall(answer.topk, KERNELS.scan_topk(vectors, queries, Metric.L2, 10, allowed.words)) >= 0.95


def test_nothing_allowed_finds_nothing(rng):
    vectors = clustered(rng, 100, 8, Metric.L2)
    answer = index_of(vectors, Metric.L2).search(vectors[:2], 3, allowed=Bitmap.empty(100))
    assert (answer.topk.slots == -1).all()
    assert np.isinf(answer.topk.distances).all()


def test_rows_are_ensured_before_they_are_read(rng):
    vectors = clustered(rng, 500, 8, Metric.L2)
    asked = []
    answer = index_of(vectors, Metric.L2).search(vectors[:20], 5, ensure=asked.append)
    (slots,) = asked
    assert (np.diff(slots) > 0).all()
    assert np.isin(answer.topk.slots, slots).all()


def test_the_graph_does_not_depend_on_how_the_work_is_cut(rng):
    vectors = clustered(rng, 700, 20, Metric.COSINE)
    whole, codes = built(vectors, Metric.COSINE)
    builder = HnswBuilder(KERNELS, codes, SMALL)
    steps = 0
    while not builder.step(0.0):
        steps += 1
    assert steps > 10
    for name, array in builder.arrays().items():
        np.testing.assert_array_equal(array, whole[name])
        assert array.flags.c_contiguous
    other, _ = built(vectors, Metric.COSINE, HnswParams(m=4, ef_construction=24, seed=4))
    assert not np.array_equal(other["upper_rows"][:1], whole["upper_rows"][:1])


def test_a_build_can_be_cancelled(rng):
    codes = ScalarCodes.encode(KERNELS, clustered(rng, 3000, 20, Metric.L2), Metric.L2)
    builder = HnswBuilder(KERNELS, codes, HnswParams())
    assert not builder.run(cancelled=lambda: True)
    assert not builder.done
    assert builder.run()


def test_shapes_of_the_stored_arrays(rng):
    arrays, _ = built(clustered(rng, 500, 20, Metric.L2), Metric.L2)
    assert arrays["links"].shape == (500, 8)
    assert arrays["upper_links"].shape[1] == 4
    assert arrays["level_starts"][-1] == arrays["upper_links"].shape[0]
    assert {name: array.dtype.str for name, array in arrays.items()} == {
        "links": "<i4",
        "upper_rows": "<i4",
        "upper_links": "<i4",
        "level_starts": "<i8",
    }
    assert (arrays["links"] >= 0).sum(axis=1).min() >= 1


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("links", lambda a: np.where(a == a.max(), 500, a).astype(np.int32)),
        ("links", lambda a: np.where(a == -1, -2, a).astype(np.int32)),
        ("links", lambda a: a[:-1]),
        ("links", lambda a: a[:, :0].copy()),
        ("links", lambda a: a.astype(np.int64)),
        ("upper_rows", lambda a: np.append(a[:-1], np.int32(500))),
        ("upper_rows", lambda a: np.append(a[:-1], np.int32(-1))),
        ("upper_rows", lambda a: a[:0]),
        ("upper_rows", lambda a: a[:-1]),
        ("upper_links", lambda a: np.where(a == a.max(), 10**6, a).astype(np.int32)),
        ("upper_links", lambda a: a[:-1]),
        ("upper_links", lambda a: np.full_like(a, a.shape[0])),
        ("level_starts", lambda a: a + 1),
        ("level_starts", lambda a: a[::-1].copy()),
        ("level_starts", lambda a: a[:1]),
        ("level_starts", lambda a: a[:0]),
        ("level_starts", lambda a: np.concatenate([a[:1], a])),
        ("level_starts", lambda a: None),
    ],
)
def test_a_graph_that_does_not_fit_is_corruption(rng, name, change):
    vectors = clustered(rng, 500, 20, Metric.L2)
    arrays, codes = built(vectors, Metric.L2)
    arrays = {key: value for key, value in (arrays | {name: change(arrays[name])}).items() if value is not None}
    with pytest.raises(Corruption) as caught:
        HnswIndex.from_arrays(KERNELS, arrays, codes, vectors)
    assert caught.value.field in arrays.keys() | {name}


def test_check_tells_what_is_wrong(rng):
    vectors = clustered(rng, 300, 20, Metric.L2)
    arrays, codes = built(vectors, Metric.L2)
    links = arrays["links"].copy()
    links[links == 7] = 8
    links[9, 0] = 9
    links[10, 0] = links[10, 1]
    problems = HnswIndex.from_arrays(KERNELS, arrays | {"links": links}, codes, vectors).check()
    assert len(problems) == 3
    assert any("cannot be reached" in problem and "first is 7" in problem for problem in problems)


@pytest.mark.parametrize(
    ("field", "value"),
    [("m", 1), ("m", 129), ("m", 16.0), ("m", True), ("ef_construction", 0), ("ef_construction", 10_001), ("seed", -1)],
)
def test_absurd_parameters_are_refused(field, value):
    with pytest.raises(InvalidArgument) as caught:
        HnswParams(**{field: value})
    assert caught.value.field == field
    assert caught.value.limit is not None
    assert caught.value.value == str(value)


@given(rows=st.integers(0, 5000), m=st.integers(2, 40), seed=st.integers(0, 2**63 - 1))
@settings(max_examples=30)
def test_layers_are_nested_and_thin_out(rows, m, seed):
    order, counts = insertion_order(rows, m, seed)
    assert sorted(order.tolist()) == list(range(rows))
    assert (np.diff(counts) <= 0).all()
    assert (counts >= 1).all()
    assert (counts.shape[0] == 0) == (rows == 0)
    if rows > 2000:
        assert 0.4 * rows / m < counts[0] < 2.5 * rows / m + 30


def test_breadth_rises_with_what_is_asked():
    assert ef_for_recall(10, 0.9) < ef_for_recall(10, 0.95) < ef_for_recall(10, 0.99) < ef_for_recall(10, 1.0)
    assert ef_for_recall(10, 0.95) < ef_for_recall(100, 0.95)
    assert ef_for_recall(500, 0.5) >= 500
    for selectivity in (0.003, 0.02, 0.2, 0.99):
        slacks = [beam_for_recall(10, recall, selectivity).slack for recall in (0.8, 0.9, 0.95, 0.99, 1.0)]
        assert slacks == sorted(set(slacks))
        assert slacks[0] >= 1 << SLACK_BITS
