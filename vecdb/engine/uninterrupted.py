"""Calls that no signal interrupts: made on another thread, for which the calling thread only waits.

Python raises a signal's exception, KeyboardInterrupt above all, in the main thread, between any two steps of whatever
that thread does: after a commit and before the state in memory follows it, or with a lock that nobody will release. So
nothing that changes a database or a collection runs there. What the exception interrupts is the wait; the call goes on,
to its end or its failure, and the end of the process waits for it.

Other threads are never interrupted, and make their calls themselves. Whatever the main thread does here is one step of
the interpreter, or may be left off at any point.
"""

from __future__ import annotations

import _thread
import atexit
import functools
import os
import threading
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

from vecdb.engine.outcome import Outcome

P = ParamSpec("P")
Result = TypeVar("Result")


def uninterrupted(call: Callable[P, Result]) -> Callable[P, Result]:
    """The function or method, made so that a signal's exception interrupts the wait for it, and not the call."""

    @functools.wraps(call)
    def made(*arguments: P.args, **named: P.kwargs) -> Result:
        return call_uninterrupted(lambda: call(*arguments, **named))

    return made


def call_uninterrupted(call: Callable[[], Result], discard: Callable[[Result], object] | None = None) -> Result:
    """What ``call`` gives.

    Parameters
    ----------
    discard
        Called with what ``call`` gave if whoever waits for it was interrupted and so will never have it.
    """
    if _thread.get_ident() != threading.main_thread().ident:
        return call()
    made = _Call(call, discard)
    try:
        _hand_over(made)
        return made.outcome.result()
    except BaseException:
        made.leave()
        raise
    finally:
        # Or the traceback of what it raised would hold this frame, which holds it.
        del made


class _Call(Generic[Result]):
    """A call on its way."""

    __slots__ = ("_call", "_claimed", "_discard", "outcome")

    def __init__(self, call: Callable[[], Result], discard: Callable[[Result], object] | None) -> None:
        self.outcome: Outcome[Result] = Outcome()
        self._call = call
        self._discard = discard
        self._claimed = threading.Lock()
        """Taken by the end of the call or by the end of the wait, whichever comes first."""

    def make(self) -> Callable[[], None]:
        """Make the call; what is to be called to tell of its end."""
        try:
            result = self._call()
            if not self._claimed.acquire(blocking=False) and self._discard is not None:
                self._discard(result)
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            return functools.partial(self.outcome.set_exception, error)
        return functools.partial(self.outcome.set_result, result)

    def leave(self) -> None:
        """End the wait without the result, which is discarded as soon as it is there."""
        discard = self._discard
        if discard is not None and not self._claimed.acquire(blocking=False):
            result = self.outcome.result()
            call_uninterrupted(lambda: discard(result))


class _Worker:
    """A thread that makes calls for the main thread, one at a time, and waits for the next one."""

    __slots__ = ("_next", "_wake")

    def __init__(self, first: _Call[Any]) -> None:
        self._next: _Call[Any] | None = first
        self._wake = threading.Lock()
        self._wake.acquire()

    def give(self, call: _Call[Any]) -> None:
        """Have an idle one make a call."""
        self._next = call
        self._wake.release()

    def run(self) -> None:
        """What the thread does, for as long as the process lives."""
        while True:
            call, self._next = self._next, None
            assert call is not None
            _running.add(call)
            tell = call.make()
            # Before it tells: who hears of the end finds an idle thread for the next call.
            _idle.append(self)
            _running.discard(call)
            tell()
            del call, tell  # And all that they hold.
            self._wake.acquire()


_idle: list[_Worker] = []
"""Taken from by the main thread only: one, and one more for each call at a time that the thread did not wait for."""
_running: set[_Call[Any]] = set()


def _hand_over(call: _Call[Any]) -> None:
    """Have another thread make the call. Interrupted on the way, it is made or is not made."""
    if _idle:
        _idle.pop().give(call)
        return
    try:
        # Not ``Thread.start``, whose wait for the thread does not bear interruption.
        _thread.start_new_thread(_Worker(call).run, ())
    except RuntimeError:
        # The system has no memory for a thread. A database has to be closed all the same.
        call.make()()


def _finish() -> None:
    """Wait for the calls that nobody waits for any more; a second signal ends that."""
    for call in list(_running):
        call.outcome.wait()


def _forget() -> None:
    """A forked child has none of the threads."""
    _idle.clear()
    _running.clear()


atexit.register(_finish)
os.register_at_fork(after_in_child=_forget)
