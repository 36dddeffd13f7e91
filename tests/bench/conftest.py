"""Nobody's cached ground truth counts in these tests."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache directory of this test alone. The environment stays, for compiled kernels are cached under it too."""
    cache = tmp_path / "own_cache"
    cache.mkdir()
    monkeypatch.setattr("vecdb.bench.dataset.private_cache", lambda: cache)
    return cache
