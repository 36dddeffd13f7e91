"""What the crash tests share: fork servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash.forks import Forks, forks


@pytest.fixture(scope="session")
def servers() -> Iterator[Forks]:
    """Two fork servers."""
    with forks() as found:
        yield found
