"""Measuring what searches cost on this machine, in the background: no search waits for it.

A search under a filter is planned by the costs that are known then. Where none were measured, and all that it takes is
compiled, they are measured soon afterwards, once per process and length of code rows.
"""

from __future__ import annotations

from vecdb.engine.background import BackgroundWork
from vecdb.engine.state import CollectionState
from vecdb.engine.threads import Pool
from vecdb.errors import ResourceExhausted
from vecdb.kernels.arrays import stride_bytes
from vecdb.query.costs import lacks_costs, measure_costs
from vecdb.schema import VectorField


class CostMeasurement:
    """Measures costs for the vector fields of one collection."""

    def __init__(self, state: CollectionState, pool: Pool) -> None:
        self._state = state
        self._work = BackgroundWork(pool, self.measure)

    def schedule(self, declared: VectorField) -> None:
        """Measure, soon, if that was not done for searches of this field."""
        state = self._state
        if state.options.search_costs is None and lacks_costs(state.kernels, stride_bytes(declared.dim)):
            try:
                self._work.schedule()
            except ResourceExhausted:
                # There is no thread; a later search asks again.
                state.events.count("costs_not_measured")

    def measure(self) -> None:
        """Measure now what was not measured yet and compiles nothing."""
        state = self._state
        if state.options.search_costs is not None:
            return
        for declared in state.manifest.schema.vectors:
            if not state.closing.is_set():
                measure_costs(state.kernels, stride_bytes(declared.dim))

    def stop(self) -> None:
        """Wait for the running measurement, which takes some milliseconds."""
        self._work.stop()
