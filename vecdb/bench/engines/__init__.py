"""The engines that the benchmark knows, by name. An adapter is imported only in the process that runs it."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vecdb.bench.engines.protocol import Engine
from vecdb.errors import InvalidArgument

REFERENCE = "hnswlib"
"""The engine that ratios refer to."""


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """One engine in one configuration.

    Attributes
    ----------
    name
        As on the command line, in tables and plots.
    place
        Module below ``vecdb.bench.engines``, and class.
    arguments
        Handed to the class after the directory.
    library
        Package on PyPI whose version is recorded.
    needs
        Module that must be importable for the engine to run.
    what
        One line for people.
    exact
        There is no effort to choose.
    extra
        Of vecdb, which installs the library.
    asks_recall
        A search may name no effort and is then meant to reach a recall of 0.95 by itself, whatever the filter.
    """

    name: str
    place: tuple[str, str]
    library: str
    needs: str
    what: str
    arguments: tuple[object, ...] = ()
    exact: bool = False
    extra: str = "bench"
    asks_recall: bool = False


ENTRIES: tuple[EngineEntry, ...] = (
    EngineEntry(
        "vecdb", ("vecdb_embedded", "VecdbEmbedded"), "vecdb", "vecdb.engine.database",
        "vecdb embedded, as ingested with default options, through the public interface",
    ),
    EngineEntry(
        "vecdb-one-segment", ("vecdb_embedded", "VecdbEmbedded"), "vecdb", "vecdb.engine.database",
        "vecdb embedded, all rows in one segment, through the public interface", (True,),
    ),
    EngineEntry(
        "vecdb-index", ("vecdb_index", "VecdbIndex"), "vecdb", "vecdb.index.hnsw",
        "vecdb's HNSW index alone: kernels, codes and graph, without the database around them",
    ),
    EngineEntry(
        "vecdb-served", ("vecdb_served", "VecdbServed"), "vecdb", "vecdb.service",
        "vecdb over gRPC on the loopback interface, server and client on the same core",
    ),
    EngineEntry(
        "hnswlib", ("hnswlib_graph", "HnswlibGraph"), "hnswlib", "hnswlib", "hnswlib, M=16, ef_construction=200"
    ),
    EngineEntry(
        "faiss-hnsw", ("faiss_index", "FaissHnsw"), "faiss-cpu", "faiss", "FAISS HNSW32 over float32"
    ),
    EngineEntry(
        "faiss-hnsw-sq8", ("faiss_index", "FaissHnswSq8"), "faiss-cpu", "faiss", "FAISS HNSW32 over 8-bit codes"
    ),
    EngineEntry(
        "faiss-flat", ("faiss_index", "FaissFlat"), "faiss-cpu", "faiss", "FAISS, exact scan", exact=True
    ),
    EngineEntry("usearch", ("usearch_graph", "UsearchGraph"), "usearch", "usearch", "USearch over float32"),
    EngineEntry(
        "svs-vamana", ("svs_vamana", "SvsVamana"), "scalable-vs", "svs",
        "Scalable Vector Search, Vamana of degree 32 over float32", ("float32", 32),
    ),
    EngineEntry(
        "svs-vamana-f16", ("svs_vamana", "SvsVamana"), "scalable-vs", "svs",
        "Scalable Vector Search, Vamana of degree 64 over float16", ("float16", 64),
    ),
    EngineEntry(
        "symphonyqg", ("symphonyqg_graph", "SymphonyqgGraph"), "rabitqlib", "rabitqlib",
        "SymphonyQG of rabitqlib, degree 32, one-bit codes of neighbours beside float32",
    ),
    EngineEntry(
        "vsag-hgraph-sq8", ("vsag_hgraph", "VsagHgraph"), "pyvsag", "pyvsag",
        "VSAG's HGraph over 8-bit codes, reranked by float32",
    ),
    EngineEntry(
        "zvec-hnsw-int8", ("zvec_hnsw", "ZvecHnsw"), "zvec", "zvec",
        "zvec's HNSW over 8-bit codes, reranked by float32",
    ),
)  # fmt: skip


def _database(name: str, place: tuple[str, str], library: str, needs: str, what: str, **more: Any) -> EngineEntry:
    return EngineEntry(name, place, library, needs, what, extra="bench-databases", **more)


DATABASES: tuple[EngineEntry, ...] = (
    EngineEntry(
        "vecdb", ("vecdb_database", "VecdbDatabase"), "vecdb", "vecdb.engine.database",
        "vecdb as ingested with default options", asks_recall=True,
    ),
    EngineEntry(
        "vecdb-compacted", ("vecdb_database", "VecdbDatabase"), "vecdb", "vecdb.engine.database",
        "vecdb after compact()", (True,), asks_recall=True,
    ),
    _database(
        "qdrant-edge", ("qdrant_edge", "QdrantEdge"), "qdrant-edge-py", "qdrant_edge",
        "Qdrant Edge, HNSW over int8 codes, rescored",
    ),
    _database("zvec", ("zvec_collection", "ZvecCollection"), "zvec", "zvec", "zvec, HNSW over int8 codes, refined"),
    _database(
        "zvec-vamana", ("zvec_collection", "ZvecCollection"), "zvec", "zvec",
        "zvec, Vamana over int8 codes, refined", arguments=(True,),
    ),
    _database(
        "lancedb", ("lancedb_table", "LancedbTable"), "lancedb", "lancedb", "LanceDB, HNSW over int8 codes, refined"
    ),
    _database("chroma", ("chroma_collection", "ChromaCollection"), "chromadb", "chromadb", "Chroma, HNSW over float32"),
    _database(
        "milvus-lite", ("milvus_lite_collection", "MilvusLiteCollection"), "milvus-lite", "milvus_lite",
        "Milvus Lite, HNSW over float32",
    ),
    _database(
        "sqlite-vec", ("sqlite_vec_table", "SqliteVecTable"), "sqlite-vec", "sqlite_vec",
        "sqlite-vec, exact scan", exact=True,
    ),
)  # fmt: skip

KINDS: Mapping[str, tuple[EngineEntry, ...]] = {"indexes": ENTRIES, "databases": DATABASES}
"""What can be compared with each other: a name stands for one engine within a kind."""

BY_NAME = {entry.name: entry for entry in ENTRIES}


def entries_of(names: Sequence[str], kind: str = "indexes") -> list[EngineEntry]:
    """The entries with these names, in this order; raises InvalidArgument for an unknown or repeated one."""
    by_name = {entry.name: entry for entry in KINDS[kind]}
    for at, name in enumerate(names):
        if name not in by_name:
            known = ", ".join(by_name)
            raise InvalidArgument(f"no engine {name!r}; there are {known}", field="engines", limit=known, value=name)
        if name in names[:at]:
            raise InvalidArgument(f"engine {name!r} is named twice", field="engines", value=name)
    return [by_name[name] for name in names]


def missing(entry: EngineEntry) -> str | None:
    """Why the engine cannot run here, or ``None``."""
    try:
        found = importlib.util.find_spec(entry.needs) is not None
    except ModuleNotFoundError:
        found = False
    return None if found else f"the package {entry.library} is not installed; it is in vecdb's extra '{entry.extra}'"


def make_engine(name: str, directory: Path, seed: int, kind: str = "indexes") -> Engine:
    """A new engine of this name that keeps its files under ``directory``."""
    entry = entries_of([name], kind)[0]
    module, class_name = entry.place
    adapter: type[Engine] = getattr(importlib.import_module(f"{__name__}.{module}"), class_name)
    return adapter(directory, seed, *entry.arguments)
