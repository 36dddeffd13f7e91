"""What searches cost is measured once, and never while somebody waits for a search."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.engine.conftest import DIM, SMALL
from tests.engine.test_compaction import wait_until
from tests.walking import WALKS
from vecdb.engine import search
from vecdb.kernels.cpu import CpuKernels
from vecdb.query import costs
from vecdb.query.costs import DEFAULT_COSTS, SearchCosts

MEASURED = replace(SMALL, search_costs=None, recall_checked_share=0.0, memtable_size_bytes=2**20)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads that measured, in a process that has not measured yet."""
    found: list[str] = []

    def measured(kernels: Any, stride: int) -> SearchCosts:
        del kernels, stride
        found.append(threading.current_thread().name)
        return WALKS

    monkeypatch.setattr(costs, "_measured", {})
    monkeypatch.setattr(costs, "measured", measured)
    monkeypatch.setattr(CpuKernels, "is_ready", lambda *_: True)
    return found


@pytest.fixture
def planned_by(monkeypatch: pytest.MonkeyPatch) -> list[SearchCosts]:
    """The costs that searches were planned by."""
    found: list[SearchCosts] = []
    plan_parts = search.plan_parts

    def noted(*arguments: Any, **named: Any) -> Any:
        found.append(arguments[5])
        return plan_parts(*arguments, **named)

    monkeypatch.setattr(search, "plan_parts", noted)
    return found


def filled(database: Any, vectors: np.ndarray) -> Any:
    collection = database.create_collection("c", DIM)
    collection.upsert(range(300), vectors[:300], [{"n": n} for n in range(300)])
    collection.wait_indexed()
    return collection


def test_a_filtered_search_waits_for_no_measurement(
    open_database: Any, vectors: np.ndarray, runs: list[str], planned_by: list[SearchCosts]
) -> None:
    with open_database(MEASURED) as database:
        collection = filled(database, vectors)
        collection.search(vectors[0])
        assert runs == []
        for query in vectors[:20]:
            collection.search(query, where="n < 200")
        wait_until(lambda: len(runs) == 1)
        for query in vectors[:20]:
            collection.search(query, where="n < 200")
        assert planned_by[1] is DEFAULT_COSTS
        assert planned_by[-1] is WALKS
        other = database.create_collection("d", DIM)
        other.upsert(range(50), vectors[:50], [{"n": n} for n in range(50)])
        other.search(vectors[0], where="n < 20")
    (thread,) = runs
    assert thread.startswith("vecdb-verify")


def test_warming_measures(
    open_database: Any, vectors: np.ndarray, runs: list[str], planned_by: list[SearchCosts]
) -> None:
    with open_database(MEASURED) as database:
        collection = filled(database, vectors)
        collection.warm()
        assert len(runs) == 1
        collection.search(vectors[0], where="n < 200")
    assert planned_by[-1] is WALKS
    assert len(runs) == 1


def test_costs_that_are_given_are_not_measured(open_database: Any, vectors: np.ndarray, runs: list[str]) -> None:
    with open_database(replace(MEASURED, search_costs=DEFAULT_COSTS)) as database:
        collection = filled(database, vectors)
        collection.warm()
        collection.search(vectors[0], where="n < 200")
    assert runs == []
