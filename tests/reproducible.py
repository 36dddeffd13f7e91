"""Databases that come out alike: the random numbers and the clock that they are made with are functions of a seed.

Background threads draw from the same source, so that the numbers are the same in every run and may change places.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import secrets
import time
from collections.abc import Iterator
from functools import partial
from unittest import mock

BEGIN_S = 1_700_000_000
"""14 November 2023: requests of a reproducible database are long forgotten when it is opened."""


@contextlib.contextmanager
def reproducible(seed: int, *, clock: bool = True) -> Iterator[None]:
    """For the length of the block ``secrets`` draws from a seeded source, and the clock tells the time of long ago.

    Parameters
    ----------
    clock
        Whether the clock is replaced too.
    """
    source = random.Random(seed)
    ticks = itertools.count(BEGIN_S * 1_000_000_000, 1_000_000)
    with contextlib.ExitStack() as stack:
        for name, draw in {
            "randbits": source.getrandbits,
            "token_bytes": source.randbytes,
            "token_hex": lambda size_bytes: source.randbytes(size_bytes).hex(),
        }.items():
            stack.enter_context(mock.patch.object(secrets, name, draw))
        if clock:
            stack.enter_context(mock.patch.object(time, "time_ns", ticks.__next__))
            stack.enter_context(mock.patch.object(time, "time", partial(float, BEGIN_S)))
        yield
