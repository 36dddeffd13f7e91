"""HNSW: a layered graph of near neighbours, walked on byte codes and answered in float32."""

from vecdb.index.hnsw.breadth import beam_for_recall, ef_for_recall, recall_of_ef
from vecdb.index.hnsw.builder import HnswBuilder
from vecdb.index.hnsw.graft import LentGraph
from vecdb.index.hnsw.index import HnswIndex
from vecdb.index.hnsw.params import HnswParams
from vecdb.index.hnsw.phase import Crew

__all__ = [
    "Crew",
    "HnswBuilder",
    "HnswIndex",
    "HnswParams",
    "LentGraph",
    "beam_for_recall",
    "ef_for_recall",
    "recall_of_ef",
]
