"""Sessions for threads: searches over calls that stay open, one search at a time on each.

To open a call costs more than a small search does. A session is an economy, never a condition: whatever goes wrong with
one, the search is sent again as a call of its own, which says what is wrong if it fails as well.
"""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import grpc

from vecdb.v1 import vecdb_pb2
from vecdb.wire.errors import decode_error

IDLE_MAX = 16
"""Sessions that are kept for later; in each a thread of grpc's waits for something to send."""
REFUSED_S = 10.0
"""After a server has refused a session, none is tried for this time."""
REFUSALS = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.RESOURCE_EXHAUSTED)
_TICK_S = 0.2

OpenCall: TypeAlias = Callable[[Iterator[vecdb_pb2.SearchSessionRequest]], Any]
"""Opens a call of ``SearchSession``: the stream of its replies."""


class SessionLost(Exception):
    """A search got no answer in a session. It may be sent again: searches change nothing."""


def outcome(answer: vecdb_pb2.SessionAnswer) -> vecdb_pb2.SearchReply:
    """The reply in an answer; raises the error that it holds instead."""
    if answer.HasField("error"):
        raise decode_error(answer.error.code, answer.error.message, answer.error.details or None)
    return answer.reply


class Sessions:
    """The sessions of one connection. Safe to share between threads.

    Parameters
    ----------
    open_call
        Opens another call.
    """

    def __init__(self, open_call: OpenCall) -> None:
        self._open_call = open_call
        self._idle: list[_Session] = []
        self._refused_until = 0.0
        self._closed = False
        self._watch = _Watch()
        # For whoever forgets to close: the thread must not outlive what it watches over.
        weakref.finalize(self, self._watch.close)

    def search(self, request: vecdb_pb2.SearchRequest, timeout_s: float) -> vecdb_pb2.SearchReply:
        """The reply to a search.

        Raises
        ------
        SessionLost
            There is no session, or it ended, or the time is up.
        VecdbError
            The server's answer is an error.
        """
        session = self._session()
        self._watch.begin(session, time.monotonic() + timeout_s)
        try:
            answer = session.ask(request, timeout_s)
        except grpc.RpcError as error:
            if error.code() in REFUSALS:
                self._refused_until = time.monotonic() + REFUSED_S
            session.end()
            raise SessionLost from error
        except BaseException:
            # Also where the caller was interrupted: the answer to this search must not meet the next one.
            session.end()
            raise
        finally:
            self._watch.end(session)
        if self._closed or len(self._idle) >= IDLE_MAX:
            session.end()
        else:
            self._idle.append(session)
        return outcome(answer)

    def close(self) -> None:
        """End the sessions that nobody uses; those in use end with the connection."""
        self._closed = True
        self._watch.close()
        while self._idle:
            self._idle.pop().end()

    def _session(self) -> _Session:
        while self._idle:
            try:
                session = self._idle.pop()
            except IndexError:
                break
            if session.active:
                return session
            session.end()
        if time.monotonic() < self._refused_until:
            raise SessionLost
        try:
            return _Session(self._open_call)
        except ValueError as error:
            # What grpc raises where another thread closed the channel.
            raise SessionLost from error


class _Session:
    """One open call, for one thread at a time."""

    __slots__ = ("_number", "_replies", "_requests")

    def __init__(self, open_call: OpenCall) -> None:
        self._requests: queue.SimpleQueue[vecdb_pb2.SearchSessionRequest | None] = queue.SimpleQueue()
        self._replies = open_call(iter(self._requests.get, None))
        self._number = 0

    @property
    def active(self) -> bool:
        """Whether the call has not ended."""
        return bool(self._replies.is_active())

    def ask(self, search: vecdb_pb2.SearchRequest, timeout_s: float) -> vecdb_pb2.SessionAnswer:
        """The answer to a search; raises SessionLost or grpc.RpcError."""
        self._number += 1
        asked = vecdb_pb2.SessionSearch(number=self._number, search=search, timeout_s=timeout_s)
        self._requests.put(vecdb_pb2.SearchSessionRequest(searches=[asked]))
        reply = next(self._replies, None)
        if reply is None or len(reply.answers) != 1 or reply.answers[0].number != self._number:
            raise SessionLost
        answer: vecdb_pb2.SessionAnswer = reply.answers[0]
        return answer

    def end(self) -> None:
        """End the call, from any thread."""
        self._replies.cancel()
        self._requests.put(None)


class _Watch:
    """Ends sessions that wait for an answer beyond their time: grpc has no deadline for one message.

    The server keeps the deadline itself, to the millisecond. This is for one that is gone.
    """

    def __init__(self) -> None:
        self._deadlines: dict[_Session, float] = {}
        self._wake = threading.Event()
        self._started = threading.Lock()
        self._closed = False

    def begin(self, session: _Session, deadline: float) -> None:
        """Watch over a session until ``end``."""
        self._deadlines[session] = deadline
        if not self._wake.is_set():
            self._wake.set()
            if self._started.acquire(blocking=False):
                threading.Thread(target=self._run, name="vecdb-sessions", daemon=True).start()

    def end(self, session: _Session) -> None:
        """Watch over it no longer."""
        del self._deadlines[session]

    def close(self) -> None:
        """Let the thread end."""
        self._closed = True
        self._wake.set()

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait()
            time.sleep(_TICK_S)
            now = time.monotonic()
            for session, deadline in self._deadlines.copy().items():
                if now >= deadline:
                    session.end()
            # Idle from here on, unless a search is under way or begins.
            self._wake.clear()
            if self._deadlines or self._closed:
                self._wake.set()
