"""Searching parts and merging: the rows of every part are told apart, whatever was skipped or lacks the vector."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.bitmap import Bitmap
from vecdb.index.flat import FlatIndex
from vecdb.kernels.cpu import CpuKernels
from vecdb.kernels.reference import ReferenceKernels
from vecdb.query.execute import PartSearch, plan_parts, search_parts
from vecdb.segment.vectors import FieldVectors
from vecdb.types import Metric


@dataclass
class Part:
    """A part that is always searched exactly."""

    vectors: FieldVectors
    kernels: object
    has_codes = has_open_codes = False
    has_graph = has_open_graph = False
    verified = True

    @property
    def slots(self):
        return self.vectors.slots

    @property
    def exact(self):
        return FlatIndex(self.kernels, self.vectors.vectors, Metric.L2)

    scan = graph = exact

    def ensure(self, _slots):
        pass


@pytest.fixture(params=[CpuKernels, ReferenceKernels], ids=["cpu", "reference"], scope="module")
def kernels(request):
    return request.param()


@given(
    parts=st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([None, 0.0, 0.5, 1.0])),
        max_size=5,
    ),
    k=st.integers(1, 30),
    nq=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_the_nearest_rows_of_all_parts(kernels, parts, k, nq, seed):
    rng = np.random.default_rng(seed)
    # Few different numbers: many equal distances, within parts and between them.
    queries = rng.integers(0, 2, (nq, 3)).astype(np.float32)
    searches, rows_of = [], []
    for number, (rows, having, allowing) in enumerate(parts):
        has_vector = rng.random(rows) < having
        vectors = rng.integers(0, 3, (int(has_vector.sum()), 3)).astype(np.float32)
        slot_rows = None if has_vector.all() else np.flatnonzero(has_vector).astype(np.uint32)
        allowed = None if allowing is None else rng.random(rows) < allowing
        part = Part(FieldVectors(vectors, None, slot_rows), kernels)
        searches.append(PartSearch(part, None if allowed is None else Bitmap.from_bools(allowed)))
        rows_of += [
            (number, int(row), vector)
            for row, vector in zip(np.flatnonzero(has_vector), vectors, strict=True)
            if allowed is None or allowed[row]
        ]
    ranked = search_parts(plan_parts(searches, k, 0.95, None), queries, k, kernels)
    assert ranked.rows.shape == ranked.distances.shape == (nq, k)
    # One number where all are of one part.
    parts_found = np.where(ranked.rows < 0, -1, ranked.parts)
    assert parts_found.shape == (nq, k)
    for line, query in enumerate(queries):
        right = sorted((float(((query - vector) ** 2).sum()), number, row) for number, row, vector in rows_of)[:k]
        right += [(np.inf, -1, -1)] * (k - len(right))
        found = zip(ranked.distances[line].tolist(), parts_found[line], ranked.rows[line], strict=True)
        assert list(found) == right
