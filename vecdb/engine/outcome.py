"""The outcome of a call on another thread: set once by whoever makes the call, waited for by any number of threads.

A ``Future`` does the same, but where a signal's exception interrupts whoever waits for one, its lock may stay locked,
and whoever sets it waits for ever. Here a waiter holds nothing that anybody else needs: it can be interrupted at any
point, and nobody learns of it.
"""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Outcome(Generic[Result]):
    """What a call gave, or raised, once it is done."""

    __slots__ = ("_error", "_pending", "_result", "done")

    def __init__(self) -> None:
        self.done = False
        """Whether it is set; for whoever sets it, who needs no lock to know."""
        self._error: BaseException | None = None
        self._result: Result
        self._pending = threading.Lock()
        self._pending.acquire()

    def set_result(self, result: Result) -> None:
        """Tell what the call gave."""
        self._result = result
        self._set()

    def set_exception(self, error: BaseException) -> None:
        """Tell what the call raised."""
        self._error = error
        self._set()

    def wait(self) -> None:
        """Return when the call is done."""
        with self._pending:  # For a moment, so that others get it too.
            pass

    def result(self) -> Result:
        """What the call gave, as soon as it is done; raises what the call raised."""
        self.wait()
        if self._error is not None:
            try:
                raise self._error
            finally:
                # Or the traceback would hold this frame, which holds it.
                del self
        return self._result

    def _set(self) -> None:
        assert not self.done, "it is told once"
        self.done = True
        self._pending.release()
