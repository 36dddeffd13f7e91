"""Going on from a finished graph: what is mapped, what is cut out, and that nothing is lost by it."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.errors import Corruption
from vecdb.index.codes import ScalarCodes
from vecdb.index.hnsw import Crew, HnswBuilder, HnswIndex, HnswParams, LentGraph
from vecdb.kernels.arrays import Beam
from vecdb.kernels.cpu import CpuKernels
from vecdb.kernels.reference import ReferenceKernels
from vecdb.types import Metric

KERNELS = CpuKernels()


def mapped(links, rows, row):
    """The new links of one old row, and the candidates in the place of those it lost, by plain loops."""
    own = [link for link in links[row].tolist() if link >= 0]
    kept = [int(rows[link]) for link in own if rows[link] >= 0]
    lost = [link for link in own if rows[link] < 0]
    further = {int(rows[link]) for gone in lost for link in links[gone].tolist() if link >= 0 and rows[link] >= 0}
    return kept, sorted(further - {int(rows[row])})


def test_links_are_mapped_and_lost_ones_replaced_by_those_behind_them(rng):
    links = np.full((40, 6), -1, np.int32)
    for row in range(40):
        count = rng.integers(0, 7)
        links[row, :count] = rng.choice(np.delete(np.arange(40), row), count, replace=False)
    keep = rng.random(40) < 0.6
    rows = np.where(keep, 5 + np.cumsum(keep), -1).astype(np.int32)
    lent = LentGraph(links, rows)
    kept = lent.kept()
    np.testing.assert_array_equal(kept, np.flatnonzero(keep))
    found, pairs = lent.links_of(kept)
    assert (np.diff(pairs) > 0).all()
    for number, row in enumerate(kept.tolist()):
        expected, further = mapped(links, rows, row)
        assert found[number, : len(expected)].tolist() == expected
        assert (found[number, len(expected) :] == -1).all()
        assert (pairs[pairs >> 32 == rows[row]] & 0xFFFF_FFFF).tolist() == further


def graph_of(kernels, vectors, metric, params, lent=None, crew=None):
    codes = ScalarCodes.encode(kernels, vectors, metric)
    builder = HnswBuilder(kernels, codes, params, crew or Crew(), lent)
    assert builder.run()
    return builder.arrays(), codes


def lent_by(vectors, keep, first, params, metric=Metric.L2):
    """A graph of ``vectors``, of which the rows in ``keep`` become the rows from ``first`` on."""
    arrays, _ = graph_of(KERNELS, vectors, metric, params)
    rows = np.where(keep, first + np.cumsum(keep) - 1, -1).astype(np.int32)
    return LentGraph.from_arrays(arrays, rows)


@given(
    n=st.integers(1, 200),
    more=st.integers(0, 60),
    dead=st.sampled_from([0.0, 0.1, 0.6, 1.0]),
    kinds=st.sampled_from([1, 3, 1000]),
    dim=st.sampled_from([1, 7, 260]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40)
def test_a_grafted_graph_reaches_every_row(n, more, dead, kinds, dim, seed):
    rng = np.random.default_rng(seed)
    pool = rng.normal(size=(kinds, dim)).astype(np.float32)
    old, new = pool[rng.integers(0, kinds, n)], pool[rng.integers(0, kinds, more)]
    keep = rng.random(n) >= dead
    params = HnswParams(m=4, ef_construction=12, seed=seed)
    # The lender may stand anywhere among the sources.
    before = more // 3
    vectors = np.concatenate([new[:before], old[keep], new[before:]])
    arrays, codes = graph_of(KERNELS, vectors, Metric.L2, params, lent_by(old, keep, before, params))
    index = HnswIndex.from_arrays(KERNELS, arrays, codes, vectors)
    assert index.check() == []
    if vectors.shape[0]:
        answer = index.search(vectors[:3], 5, beam=Beam(vectors.shape[0]))
        right = KERNELS.scan_topk(vectors, vectors[:3], Metric.L2, 5)
        np.testing.assert_array_equal(answer.topk.slots, right.slots)


def recall_of(arrays, codes, vectors, queries, metric):
    index = HnswIndex.from_arrays(KERNELS, arrays, codes, vectors)
    answer = index.search(queries, 10, beam=Beam(32))
    right = KERNELS.scan_topk(vectors, queries, metric, 10)
    pairs = zip(answer.topk.slots.tolist(), right.slots.tolist(), strict=True)
    return np.mean([len(set(a) & set(b)) / 10 for a, b in pairs]), answer.distance_computations


@pytest.mark.parametrize("dead", [0.0, 0.3])
def test_a_grafted_graph_is_as_good_as_one_built_anew(rng, dead):
    centres = rng.normal(size=(60, 40))
    points = (centres[rng.integers(0, 60, 4700)] + rng.normal(size=(4700, 40))).astype(np.float32)
    queries, old, new = points[:500], points[500:4100], points[4100:]
    keep = rng.random(3600) >= dead
    params = HnswParams(m=8, ef_construction=48)
    vectors = np.concatenate([old[keep], new])
    anew = recall_of(*graph_of(KERNELS, vectors, Metric.L2, params), vectors, queries, Metric.L2)
    lent = lent_by(old, keep, 0, params)
    grafted = recall_of(*graph_of(KERNELS, vectors, Metric.L2, params, lent), vectors, queries, Metric.L2)
    assert grafted[0] > anew[0] - 0.01
    assert grafted[1] < anew[1] * 1.05


def test_a_grafted_graph_is_the_same_for_any_number_of_threads_and_on_the_reference(rng):
    old = rng.normal(size=(160, 20)).astype(np.float32)
    new = rng.normal(size=(30, 20)).astype(np.float32)
    keep = rng.random(160) < 0.8
    params = HnswParams(m=4, ef_construction=16)
    vectors = np.concatenate([old[keep], new])
    lent = lent_by(old, keep, 0, params)
    alone, _ = graph_of(KERNELS, vectors, Metric.L2, params, lent)
    with ThreadPoolExecutor(3) as pool:
        together, _ = graph_of(KERNELS, vectors, Metric.L2, params, lent, Crew(3, pool))
    slowly, _ = graph_of(ReferenceKernels(), vectors, Metric.L2, params, lent)
    for name, array in alone.items():
        np.testing.assert_array_equal(together[name], array)
        np.testing.assert_array_equal(slowly[name], array)
    anew, _ = graph_of(KERNELS, vectors, Metric.L2, params)
    assert not np.array_equal(anew["links"], alone["links"])


@pytest.mark.parametrize(
    "change",
    [
        lambda links: links[:-1],
        lambda links: np.where(links == -1, -2, links).astype(np.int32),
        lambda links: np.where(links == links.max(), 60, links).astype(np.int32),
        lambda links: links.astype(np.int64),
    ],
)
def test_lent_links_that_lead_nowhere_are_corruption(rng, change):
    vectors = rng.normal(size=(60, 8)).astype(np.float32)
    arrays, _ = graph_of(KERNELS, vectors, Metric.L2, HnswParams(m=4))
    with pytest.raises(Corruption) as caught:
        LentGraph.from_arrays({"links": change(arrays["links"])}, np.arange(60, dtype=np.int32))
    assert caught.value.field == "links"
