"""What every test shares: the Hypothesis profiles, a seeded source of random numbers, and the table of promises.

``gate`` runs with every commit and is the same on every run; ``long`` (``--hypothesis-profile=long``) searches further
and differently each time. Neither has a deadline: the first call of a kernel compiles it.
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from tests.trust import pytest_addoption, pytest_terminal_summary, trust

__all__ = ["pytest_addoption", "pytest_terminal_summary", "rng", "trust"]

settings.register_profile(
    "gate",
    deadline=None,
    derandomize=True,
    max_examples=50,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "long",
    deadline=None,
    max_examples=2_000,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("gate")


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same on every run."""
    return np.random.default_rng(20_240_229)
