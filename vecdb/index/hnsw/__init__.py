"""HNSW: a layered graph of near neighbours, walked on byte codes and answered in float32."""

from vecdb.index.hnsw.breadth import (
    DEFAULT_BREADTH,
    Breadth,
    RecallEstimate,
    beam_for_recall,
    ef_for_recall,
    recall_of_ef,
)
from vecdb.index.hnsw.builder import HnswBuilder
from vecdb.index.hnsw.calibration import Calibration
from vecdb.index.hnsw.curves import RecallCurves
from vecdb.index.hnsw.graft import LentGraph
from vecdb.index.hnsw.index import HnswIndex
from vecdb.index.hnsw.params import HnswParams
from vecdb.index.hnsw.phase import Crew

__all__ = [
    "DEFAULT_BREADTH",
    "Breadth",
    "Calibration",
    "Crew",
    "HnswBuilder",
    "HnswIndex",
    "HnswParams",
    "LentGraph",
    "RecallCurves",
    "RecallEstimate",
    "beam_for_recall",
    "ef_for_recall",
    "recall_of_ef",
]
