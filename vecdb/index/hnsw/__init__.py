"""HNSW: a layered graph of near neighbours, walked on byte codes and answered in float32."""

from vecdb.index.hnsw.breadth import beam_for_recall, ef_for_recall, recall_of_ef
from vecdb.index.hnsw.builder import HnswBuilder
from vecdb.index.hnsw.index import HnswIndex
from vecdb.index.hnsw.params import HnswParams

__all__ = ["HnswBuilder", "HnswIndex", "HnswParams", "beam_for_recall", "ef_for_recall", "recall_of_ef"]
