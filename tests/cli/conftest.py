"""A small database on disk, and a way to run the command line in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.cli import main
from vecdb.cli.settings import KINDS, PREFIX

DIM = 8
ROWS = 40


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit status, standard output, standard error."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of whoever runs the tests do not count."""
    for name in ("config", *KINDS):
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def vecdb_command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run(*words: object) -> Outcome:
        capsys.readouterr()
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run


@pytest.fixture
def vectors(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((ROWS, DIM)).astype(np.float32)


@pytest.fixture
def database(tmp_path: Path, vectors: np.ndarray) -> Path:
    """Directory with the collections "docs" (L2; ids 0, 1 ... and "a") and "empty"."""
    path = tmp_path / "kb"
    with vecdb.open(path) as opened:
        docs = opened.create_collection("docs", dim=DIM, metric="l2")
        docs.upsert(
            [*range(ROWS - 1), "a"],
            vectors,
            [{"n": row, "parity": "even" if row % 2 == 0 else "odd"} for row in range(ROWS)],
        )
        opened.create_collection("empty", dim=3)
    return path
