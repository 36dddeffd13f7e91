"""Damaged vectors that a calibration meets: the graph is built all the same, and the damage is told."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.conftest import SMALL
from tests.engine.repairing import flip
from vecdb.engine.check import check_database
from vecdb.errors import Corruption

N, DIM = 2_100, 8
WITHOUT_GRAPHS = replace(SMALL, memtable_size_bytes=2**24, graph_rows_min=10**6, verify_ahead_bytes_max=0)
WITH_GRAPHS = replace(WITHOUT_GRAPHS, graph_rows_min=40)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_graph_over_damaged_vectors_is_built_and_the_damage_is_told(
    open_database: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: bool
) -> None:
    rows = np.random.default_rng(5).standard_normal((N, DIM)).astype(np.float32)
    with open_database(WITHOUT_GRAPHS) as database:
        collection = database.create_collection("c", DIM, "l2")
        collection.upsert(range(N), rows)
        collection.flush()
    if damaged:
        (path,) = tmp_path.rglob("0000000001.vectors*")
        flip(path, path.stat().st_size // 2)
    caplog.set_level(logging.WARNING)
    with open_database(WITH_GRAPHS) as database:
        collection = database.collection("c")
        collection.wait_indexed(60)
        told = [each.getMessage() for each in caplog.records if each.getMessage().startswith("file_damaged")]
        stats = collection.stats()
        # Nobody searched yet: it is calibration that met it.
        assert stats.events.get("file_damaged", 0) == len(told) == int(damaged)
        assert stats.unindexed_rows == 0
        # Whoever needs the damaged block is told again, and nobody else.
        with collection._lease() as opened:
            (segment,) = opened._state.view.segments
            field = segment.reader.field("")
            assert field.has_graph
            assert field.graph.check() == []
        (calibration,) = collection.stats().calibration
        assert (calibration.graphs, calibration.calibrated) == (1, int(not damaged))
        if damaged:
            assert "0000000001.vectors" in told[0]
            with pytest.raises(Corruption, match=r"0000000001\.vectors"):
                collection.search(rows[0], recall="exact")
        else:
            assert collection.search(rows[0], k=1)[0].id == 0
    assert check_database(tmp_path / "db").ok is not damaged
