"""What the storage tests share."""

from pathlib import Path

import pytest

from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem


@pytest.fixture
def directory(tmp_path: Path) -> MmapDirectory:
    """An empty directory of the real file system."""
    return MmapDirectory.open(tmp_path / "db", FileSystem(), create=True)
