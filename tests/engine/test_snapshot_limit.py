"""Snapshots are refused before they make a manifest that is too large; nothing else ever is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.written import OPTIONS
from vecdb.engine import snapshot
from vecdb.engine.database import EmbeddedDatabase
from vecdb.errors import ResourceExhausted

PLAIN = replace(OPTIONS, compaction=False)


def below(directory: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}


def test_a_snapshot_too_many_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MANIFEST_BYTES_MAX", 5_000)
    with EmbeddedDatabase.open(tmp_path / "db", options=PLAIN) as database:
        docs = database.create_collection("docs", dim=2)
        for number in range(4):
            docs.upsert([number], [[1.0, number]])
            docs.flush()
        taken = 0
        before = below(tmp_path)
        with pytest.raises(ResourceExhausted) as caught:  # noqa: PT012 - how many there may be is not the point
            while True:
                docs.create_snapshot(f"s{taken}")
                taken += 1
                before = below(tmp_path)
        assert (caught.value.field, caught.value.limit) == ("snapshot", "5000")
        assert int(str(caught.value.value)) > 5_000
        assert taken >= 2
        assert below(tmp_path) == before
        # Beyond the limit without a snapshot: a flush must always be possible.
        for number in range(4, 14):
            docs.upsert([number], [[1.0, number]])
            docs.flush()
        (mirror,) = (tmp_path / "db" / "collections").rglob("mirror")
        assert mirror.stat().st_size > 5_000
        with pytest.raises(ResourceExhausted):
            docs.create_snapshot("more")
    with EmbeddedDatabase.open(tmp_path / "db", options=PLAIN) as database:
        docs = database.collection("docs")
        assert docs.count() == 14
        assert len(docs.snapshots()) == taken
        docs.compact()
        for number in range(taken):
            docs.drop_snapshot(f"s{number}")
        docs.create_snapshot("again")
        assert docs.count(at="again") == 14
