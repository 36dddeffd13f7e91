"""What a search does besides searching is counted in calls: a detour that each search takes is seen without a clock."""

import sys
import time
from collections import Counter

import numpy as np
import pytest

from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.options import EngineOptions

ROWS, DIM = 300, 8
PYTHON_CALLS_MAX = 66
BUILTIN_CALLS_MAX = 42
FOR_PAYLOADS = 8


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """One segment with a graph."""
    options = EngineOptions(graph_rows_min=40, compaction=False)
    with EmbeddedDatabase.open(tmp_path_factory.mktemp("calls") / "db", options=options) as database:
        made = database.create_collection("c", DIM)
        vectors = np.random.default_rng(5).standard_normal((ROWS, DIM)).astype(np.float32)
        made.upsert(range(ROWS), vectors, [{"n": number} for number in range(ROWS)])
        made.wait_indexed()
        yield made


def calls_of(search):
    """How often functions are called in ``search``, those of Python and those of compiled modules apart."""
    counts = Counter()

    def count(_frame, event, _argument):
        counts[event] += 1

    sys.setprofile(count)
    try:
        search()
    finally:
        sys.setprofile(None)
    # One of Python is ``search``, and one builtin ends the counting.
    return counts["call"] - 1, counts["c_call"] - 1


@pytest.mark.parametrize("with_payloads", [False, True])
def test_calls_of_one_search(collection, with_payloads):
    query = np.ones(DIM, np.float32)

    def search():
        return collection.search(query, k=10, with_payloads=with_payloads)

    assert search().strategy == "graph"
    more = FOR_PAYLOADS if with_payloads else 0
    limits = PYTHON_CALLS_MAX + more, BUILTIN_CALLS_MAX + more
    counted = (0, 0)
    # Calls until what was opened is verified in the background, and those of the garbage collector, are not meant.
    for _ in range(200):
        # Ahead of it, since counting what a kernel's compilation calls takes a minute.
        search()
        counted = calls_of(search)
        if all(number <= limit for number, limit in zip(counted, limits, strict=True)):
            return
        time.sleep(0.02)
    pytest.fail(f"{counted} calls, at most {limits}")
