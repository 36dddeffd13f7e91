"""One damaged collection never stops the others: each kind of its files destroyed, the others open, read and write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.crash.history import SCHEMA, State, batch
from tests.crash.observe import differences, observe
from tests.crash.workload import QUIET, hand_over
from tests.engine.repairing import BATCHES, DOCS, OTHER, SEED, build, collection_path, copied
from vecdb.api import Collection
from vecdb.engine.database import EmbeddedDatabase
from vecdb.errors import Corruption

BODY = np.ones(8, np.float32)
AT_OPEN = ("data.mdb", "mirror", "log")
"""What is read when a collection is opened; the others when a search needs them."""


def ask_everything(docs: Collection) -> None:
    """Exact and approximate searches, and every payload."""
    docs.search(BODY, 5, field="body", recall="exact")
    docs.search(BODY, 5, field="body", recall=0.9)
    list(docs.scroll())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State]:
    path = tmp_path_factory.mktemp("built") / "db"
    return path, build(path)


@pytest.mark.parametrize(
    "kind", ["data.mdb", "mirror", "log", "ids", "payload", "vectors.0", "codes.0", "graph.0", "seqs", "journal"]
)
def test_the_others_go_on(built: tuple[Path, State], tmp_path: Path, kind: str):
    path, state = copied(built[0], tmp_path / "db"), built[1]
    directory = collection_path(path)
    damaged = [each for each in directory.iterdir() if each.name == kind or f".{kind}." in each.name]
    if kind == "log":
        damaged = [each for each in (directory / "log").iterdir() if each.stat().st_size > 128]
    assert damaged
    for each in damaged:
        each.write_bytes(np.random.default_rng(2).bytes(each.stat().st_size))
    with EmbeddedDatabase.open(path, options=QUIET) as database:
        assert list(database.collections()) == [DOCS, OTHER]
        if kind in AT_OPEN:
            with pytest.raises(Corruption, match=kind) as caught:
                database.collection(DOCS)
            assert f"vecdb repair {path}" in caught.value.message
        elif kind not in ("seqs", "journal", "graph.0"):
            # Of these the first two are only read by a check and a repair, and a search may do without the third.
            with pytest.raises(Corruption, match=kind):
                ask_everything(database.collection(DOCS))
        other = database.collection(OTHER)
        assert differences(observe(other, [0]), state) == []
        hand_over(other, batch(SEED, 0, BATCHES))
        other.flush()
        database.create_collection("new", schema=SCHEMA)
    with EmbeddedDatabase.open(path, options=QUIET) as database:
        assert database.collection("new").count() == 0
