"""How long a request may take, and whose wish that is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from vecdb.errors import DeadlineExceeded


@dataclass(frozen=True, slots=True)
class Deadline:
    """The end of a request's time.

    Attributes
    ----------
    at
        By the clock of the event loop.
    seconds
        How long that was from the beginning.
    field
        What an error names: the option or the field that set it.
    whose
        The same in words.
    """

    at: float
    seconds: float
    field: str = "deadline_s"
    whose: str = "the server's deadline"

    def error(self, name: str) -> DeadlineExceeded:
        """What a request called ``name`` gets that takes longer."""
        return DeadlineExceeded(
            f"{name} was not answered within {self.whose} of {self.seconds:g} s",
            field=self.field,
            limit=f"{self.seconds:g} s",
        )

    @contextlib.asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        """Raise the error where the block takes longer."""
        try:
            async with asyncio.timeout_at(self.at):
                yield
        except TimeoutError:
            raise self.error(name) from None
