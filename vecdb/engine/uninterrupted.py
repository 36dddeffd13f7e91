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
import contextlib
import functools
import os
import sys
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
        return _made(_Call(lambda: call(*arguments, **named)), _unordered)

    return made


def in_order(call: Callable[P, Result]) -> Callable[P, Result]:
    """The same for one that changes what is stored: made after all such calls before it, interrupted or not."""

    @functools.wraps(call)
    def made(*arguments: P.args, **named: P.kwargs) -> Result:
        if not _interruptible():
            return call(*arguments, **named)
        return _made(_Call(lambda: call(*arguments, **named)), _ordered)

    return made


def opened_in_order(call: Callable[[], Result], discard: Callable[[Result], object]) -> Result:
    """What ``call`` opens; where the wait was interrupted, and nobody will have it, ``discard`` is called with it."""
    return _made(_Call(call, discard), _ordered) if _interruptible() else call()


def _interruptible() -> bool:
    # While the interpreter ends no other thread runs any more, and a finaliser may still close a database.
    return not sys.is_finalizing() and _thread.get_ident() == threading.main_thread().ident


class _Call(Generic[Result]):
    """A call on its way."""

    __slots__ = ("_begun", "_call", "_claimed", "_discard", "outcome")

    def __init__(self, call: Callable[[], Result], discard: Callable[[Result], object] | None = None) -> None:
        self.outcome: Outcome[Result] = Outcome()
        self._call = call
        self._discard = discard
        self._begun = threading.Lock()
        """Taken by whoever makes the call: a thread that could not be started for certain may be there all the same."""
        self._claimed = threading.Lock()
        """Taken by the end of the call or by the end of the wait, whichever comes first."""

    def make(self) -> None:
        """Make the call and tell its outcome."""
        if not self._begun.acquire(blocking=False):
            return
        outcome = self.outcome
        try:
            _running.add(self)
            result = self._call()
            if not self._claimed.acquire(blocking=False) and self._discard is not None:
                self._discard(result)
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            outcome.set_exception(error)
        else:
            outcome.set_result(result)
        finally:
            _running.discard(self)
            # Or the traceback of what was raised would hold this frame, which holds it.
            del self, outcome

    def leave(self) -> None:
        """End the wait without the result, which is discarded as soon as it is there."""
        discard = self._discard
        if discard is not None and not self._claimed.acquire(blocking=False):
            result = self.outcome.result()
            _ordered.put(_Call(lambda: discard(result)))


class _Hands:
    """A thread that takes calls from a queue for as long as the process lives, started when it is first needed."""

    def __init__(self, take: Callable[[_Call[Any]], None]) -> None:
        self._take = take
        self.forget()

    def put(self, call: _Call[Any]) -> None:
        self.queue.put(call)
        if not self._busy.locked():
            # Not ``Thread.start``, whose wait for the thread does not bear interruption.
            try:
                _thread.start_new_thread(self._serve, ())
            except RuntimeError:
                # The system has no memory for a thread. What has to be done, as closing a database has, is done all
                # the same.
                with contextlib.suppress(Empty):
                    while True:
                        self.queue.get_nowait().make()

    def finish(self) -> None:
        """Wait until all calls that are queued by now are taken."""
        if self._busy.locked():
            last: _Call[None] = _Call(lambda: None)
            self.queue.put(last)
            last.outcome.wait()

    def forget(self) -> None:
        """Begin anew, where there is no such thread."""
        self.queue: SimpleQueue[_Call[Any]] = SimpleQueue()
        self._busy = threading.Lock()
        """Held by the thread."""

    def _serve(self) -> None:
        # Where the main thread was interrupted, or was quick, there may be another by now.
        if self._busy.acquire(blocking=False):
            while True:
                call = self.queue.get()
                try:
                    self._take(call)
                except BaseException as error:  # noqa: BLE001 - without memory anything may fail, and all calls wait for this thread
                    if not call.outcome.done:
                        call.outcome.set_exception(error)
                del call


def _start(call: _Call[Any]) -> None:
    """Make a call on a thread of its own."""
    try:
        threading.Thread(target=call.make, name="vecdb-call", daemon=True).start()
    except (RuntimeError, MemoryError):
        call.make()


_ordered = _Hands(_Call.make)
_unordered = _Hands(_start)
_running: set[_Call[Any]] = set()


def _made(call: _Call[Result], hands: _Hands) -> Result:
    try:
        hands.put(call)
        return call.outcome.result()
    except BaseException:
        call.leave()
        raise
    finally:
        # Or the traceback of what it raised would hold this frame, which holds it.
        del call


def _finish() -> None:
    """Wait for the calls that nobody waits for any more; a second signal ends that."""
    _ordered.finish()
    _unordered.finish()
    for call in list(_running):
        call.outcome.wait()


def _forget() -> None:
    """A forked child has none of the threads, and their locks as the fork found them."""
    _ordered.forget()
    _unordered.forget()
    _running.clear()


atexit.register(_finish)
os.register_at_fork(after_in_child=_forget)
