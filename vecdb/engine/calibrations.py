"""What calibration found, for ``stats``: told of the graphs that are open, so that nothing is opened for it."""

from __future__ import annotations

from collections.abc import Sequence

from vecdb.engine.recall_ledger import RECALLS
from vecdb.engine.view import View
from vecdb.index.hnsw import RecallCurves
from vecdb.results.stats import FieldCalibration
from vecdb.schema import CollectionSchema

_K = 10


def calibrations(view: View, schema: CollectionSchema) -> Sequence[FieldCalibration]:
    """Of every vector field that has an open graph."""
    found: list[FieldCalibration] = []
    for declared in schema.vectors:
        fields = [segment.reader.open_field(declared.name) for segment in view.segments]
        known = [each.breadth for each in fields if each is not None and each.has_open_graph]
        curves = [each for each in known if isinstance(each, RecallCurves)]
        if known:
            costs = {recall: sum(each.cost(_K, recall) for each in curves) for recall in RECALLS if curves}
            found.append(FieldCalibration(declared.name, len(known), len(curves), costs))
    return tuple(found)
