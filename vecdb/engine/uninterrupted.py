"""Calls that no signal interrupts: made on another thread, for which the calling thread only waits.

Python raises a signal's exception, KeyboardInterrupt above all, in the main thread, between any two steps of whatever
that thread does: after a commit and before the state in memory follows it, or with a lock that nobody will release. So
nothing that changes a database or a collection runs there. What the exception interrupts is the wait; the call goes on,
to its end or its failure, and the end of the process waits for it.

Calls that change what is stored are made one after the other, in the order in which the main thread asked for them: the
next one never overtakes one that nobody waits for any more. Other threads are never interrupted, and make their calls
themselves. Whatever the main thread does here is one step of the interpreter, or may be left off at any point.
"""

from __future__ import annotations

import _thread
import atexit
import functools
import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Generic, ParamSpec, TypeVar

from vecdb.engine.outcome import Outcome

P = ParamSpec("P")
Result = TypeVar("Result")


def uninterrupted(call: Callable[P, Result]) -> Callable[P, Result]:
    """The function or method, made so that a signal's exception interrupts the wait for it, and not the call."""

    @functools.wraps(call)
    def made(*arguments: P.args, **named: P.kwargs) -> Result:
        if not _interruptible():
            return call(*arguments, **named)
        return _made(_Call(lambda: call(*arguments, **named)), _make_at_once)

    return made


def in_order(call: Callable[P, Result]) -> Callable[P, Result]:
    """The same for one that changes what is stored: made after all such calls before it, interrupted or not."""

    @functools.wraps(call)
    def made(*arguments: P.args, **named: P.kwargs) -> Result:
        if not _interruptible():
            return call(*arguments, **named)
        return _made(_Call(lambda: call(*arguments, **named)), _make_in_order)

    return made


def opened_in_order(call: Callable[[], Result], discard: Callable[[Result], object]) -> Result:
    """What ``call`` opens; where the wait was interrupted, and nobody will have it, ``discard`` is called with it."""
    return _made(_Call(call, discard), _make_in_order) if _interruptible() else call()


def _interruptible() -> bool:
    return _thread.get_ident() == threading.main_thread().ident


class _Call(Generic[Result]):
    """A call on its way."""

    __slots__ = ("_call", "_claimed", "_discard", "outcome")

    def __init__(self, call: Callable[[], Result], discard: Callable[[Result], object] | None = None) -> None:
        self.outcome: Outcome[Result] = Outcome()
        self._call = call
        self._discard = discard
        self._claimed = threading.Lock()
        """Taken by the end of the call or by the end of the wait, whichever comes first."""

    def make(self) -> None:
        """Make the call and tell its outcome."""
        _running.add(self)
        try:
            result = self._call()
            if not self._claimed.acquire(blocking=False) and self._discard is not None:
                self._discard(result)
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(result)
        _running.discard(self)

    def leave(self) -> None:
        """End the wait without the result, which is discarded as soon as it is there."""
        discard = self._discard
        if discard is not None and not self._claimed.acquire(blocking=False):
            result = self.outcome.result()
            _make_in_order(_Call(lambda: discard(result)))


_queue: SimpleQueue[_Call[Any]] = SimpleQueue()
_serving = threading.Lock()
"""Held by the thread that makes the calls of the queue, for as long as the process lives."""
_running: set[_Call[Any]] = set()


def _made(call: _Call[Result], make: Callable[[_Call[Any]], None]) -> Result:
    try:
        make(call)
        return call.outcome.result()
    except BaseException:
        call.leave()
        raise
    finally:
        # Or the traceback of what it raised would hold this frame, which holds it.
        del call


def _make_at_once(call: _Call[Any]) -> None:
    # Not ``Thread.start``, whose wait for the thread does not bear interruption.
    try:
        _thread.start_new_thread(call.make, ())
    except RuntimeError:
        # The system has no memory for a thread. What has to be done, as closing a database has, is done all the same.
        call.make()


def _make_in_order(call: _Call[Any]) -> None:
    _queue.put(call)
    if not _serving.locked():
        try:
            _thread.start_new_thread(_serve, ())
        except RuntimeError:
            _make_queued()  # As above.


def _serve() -> None:
    # Where the main thread was interrupted, or was quick, there may be another by now.
    if _serving.acquire(blocking=False):
        while True:
            _queue.get().make()


def _make_queued() -> None:
    while True:
        try:
            _queue.get_nowait().make()
        except Empty:
            return


def _finish() -> None:
    """Wait for the calls that nobody waits for any more; a second signal ends that."""
    if _serving.locked():
        last: _Call[None] = _Call(lambda: None)
        _queue.put(last)
        last.outcome.wait()
    for call in list(_running):
        call.outcome.wait()


def _forget() -> None:
    """A forked child has none of the threads, and their locks as the fork found them."""
    global _queue, _serving
    _queue, _serving = SimpleQueue(), threading.Lock()
    _running.clear()


atexit.register(_finish)
os.register_at_fork(after_in_child=_forget)
