"""``warm`` and what ``stats`` says of memory, by every implementation."""

from __future__ import annotations

from typing import Any

import pytest

from vecdb.errors import NotFound, VecdbError


def test_warming_says_what_it_did_and_changes_no_answer(database: Any) -> None:
    docs = database.create_collection("docs", dim=2, metric="l2")
    docs.upsert(["a", "b", 3], [[0, 0], [1, 0], [2, 0]])
    docs.flush()
    before = docs.search([2, 0], k=9).ids
    for report in (docs.warm(), docs.warm(with_vectors=True)):
        assert report.left_out_bytes == 0
        assert report.segments == docs.stats().segments
        assert min(report.compile_s, report.verify_s, report.read_s) >= 0
    assert docs.search([2, 0], k=9).ids == before
    database.create_collection("empty", dim=2)
    assert database.warm().segments == docs.stats().segments
    memory = docs.stats().memory
    assert memory.budget_bytes == memory.releases == 0
    assert memory.resident_bytes == memory.mapped_bytes + memory.derived_bytes + memory.rows_bytes


def test_a_collection_that_is_gone_is_not_warmed(database: Any) -> None:
    docs = database.create_collection("docs", dim=2)
    database.drop_collection("docs")
    with pytest.raises(NotFound):
        docs.warm()
    database.close()
    with pytest.raises(VecdbError):
        database.warm()
