"""Two writers upsert overlapping ids at once: every batch is all or nothing, the later seq wins, one id has one row."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.trust import Trust
from vecdb.api import Collection
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.options import EngineOptions
from vecdb.results.write import WriteResult

IDS = 24
SHARED = range(8, 16)
OPTIONS = EngineOptions(
    memtable_size_bytes=300 * 300, graph_rows_min=10**6, log_file_bytes_first=65_536, kernels="reference"
)


def upsert(collection: Collection, writer: int, number: int) -> tuple[WriteResult, dict[int, tuple[int, int]]]:
    """Both write the shared ids, and each some of its own."""
    chance = np.random.default_rng([writer, number])
    own = range(8) if writer == 0 else range(16, IDS)
    ids = [*chance.permutation(own)[: chance.integers(9)].tolist(), *SHARED]
    payload = {"writer": writer, "number": number}
    vectors = np.full((len(ids), 2), [writer, number], np.float32)
    return collection.upsert(ids, vectors, [payload] * len(ids)), dict.fromkeys(ids, (writer, number))


def values(collection: Collection, ids: list[int]) -> dict[int, tuple[int, int]]:
    found = collection.get(ids, with_vectors=True)
    assert len({each.id for each in found}) == len(found)
    for each in found:
        assert each.payload is not None
        assert each.vectors[""].tolist() == [each.payload["writer"], each.payload["number"]]
    return {int(each.id): (each.payload["writer"], each.payload["number"]) for each in found if each.payload}


@pytest.mark.parametrize("rounds", [2_000])
def test_overlapping_batches_are_all_or_nothing(quick_directory: Path, trust: Trust, rounds: int) -> None:
    trust.points("P2", rounds, told="rounds of two upserters")
    model: dict[int, tuple[int, int]] = {}
    over = threading.Event()
    torn: list[object] = []

    def watch(collection: Collection) -> None:
        while not over.wait(0.002):
            shared = set(values(collection, list(SHARED)).values())
            if len(shared) > 1:
                torn.append(shared)

    with (
        EmbeddedDatabase.open(quick_directory / "db", options=OPTIONS) as database,
        ThreadPoolExecutor(3) as pool,
    ):
        collection = database.create_collection("docs", dim=2, metric="l2", index="flat")
        watching = pool.submit(watch, collection)
        try:
            for number in range(rounds):
                both = [pool.submit(upsert, collection, writer, number) for writer in range(2)]
                results = sorted((each.result() for each in both), key=lambda told: told[0].seq)
                assert [told.seq for told, _ in results] == [2 * number + 1, 2 * number + 2]
                for _, written in results:
                    model |= written
                if number % 50 == 0:
                    assert values(collection, list(range(IDS))) == model
                    assert collection.count() == len(model)
        finally:
            over.set()
        watching.result()
        assert not torn
        assert values(collection, list(range(IDS))) == model
    with EmbeddedDatabase.open(quick_directory / "db", options=OPTIONS) as database:
        assert values(database.collection("docs"), list(range(IDS))) == model
        assert database.collection("docs").count() == len(model)
