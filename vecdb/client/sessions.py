"""Sessions for threads: searches over calls that stay open, one search at a time on each.

To open a call costs about as much as a small search does. A session is an economy, never a condition: whatever goes
wrong with one, the search is sent again as a call of its own, which says what is wrong if it fails as well.
"""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import grpc

from vecdb.errors import DeadlineExceeded
from vecdb.v1 import vecdb_pb2
from vecdb.wire.errors import decode_error

SESSIONS_MAX = 16
"""Sessions of a connection; a server lets it hold so many beside its requests. In each a thread of grpc's waits."""
REFUSED_S = 10.0
"""After a server has refused a session, or something on the way has swallowed one, none is tried for this time."""
REFUSALS = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.RESOURCE_EXHAUSTED)
_TICK_S = 0.2

OpenCall: TypeAlias = Callable[[Iterator[vecdb_pb2.SearchSessionRequest]], Any]
"""Opens a call of ``SearchSession``: the stream of its replies."""


class SessionLost(Exception):
    """A search got no answer in a session. It may be sent again: searches change nothing."""


def outcome(answer: vecdb_pb2.SessionAnswer) -> vecdb_pb2.SearchReply:
    """The reply in an answer; raises the error that it holds instead."""
    if answer.HasField("error"):
        error = decode_error(answer.error.code, answer.error.message, answer.error.details or None)
        if isinstance(error, DeadlineExceeded) and error.field == "timeout_s":
            # The caller's own time is up: the client says so in the words that it has for every call.
            raise SessionLost
        raise error
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
        # For whoever forgets to close: no thread may outlive the connection.
        weakref.finalize(self, _end_all, self._watch, self._idle)

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
        try:
            self._watch.begin(session, time.monotonic() + timeout_s)
            answer = session.ask(request, timeout_s)
        except BaseException as error:
            # Also where the caller was interrupted: the answer to this search must not meet the next one.
            session.end()
            if isinstance(error, grpc.RpcError):
                swallowed = error.code() is grpc.StatusCode.CANCELLED and not session.answered
                if error.code() in REFUSALS or swallowed:
                    self._refused_until = time.monotonic() + REFUSED_S
                raise SessionLost from error
            if isinstance(error, RuntimeError):
                raise SessionLost from error
            raise
        finally:
            self._watch.end(session)
        self._idle.append(session)
        if self._closed:
            _end_all(self._watch, self._idle)
        return outcome(answer)

    def close(self) -> None:
        """End the sessions that nobody uses; those in use end with the connection."""
        self._closed = True
        _end_all(self._watch, self._idle)

    def _session(self) -> _Session:
        while self._idle:
            try:
                session = self._idle.pop()
            except IndexError:
                break
            if session.active:
                return session
            session.end()
        # Threads may pass the limit by a few together; the server's room for requests bears that.
        if len(self._idle) + self._watch.watched >= SESSIONS_MAX or time.monotonic() < self._refused_until:
            raise SessionLost
        try:
            # A session needs threads of grpc's, which does not recover where one cannot be started.
            threading.Thread(target=_nothing, name="vecdb-sessions", daemon=True).start()
            return _Session(self._open_call)
        except (ValueError, RuntimeError) as error:
            # Another thread closed the channel, or there can be no more threads: a call of its own needs none.
            self._refused_until = time.monotonic() + REFUSED_S
            raise SessionLost from error


def _nothing() -> None:
    return None


def _end_all(watch: _Watch, idle: list[_Session]) -> None:
    watch.close()
    while idle:
        idle.pop().end()


class _Session:
    """One open call, for one thread at a time."""

    __slots__ = ("_number", "_replies", "_requests", "answered")

    def __init__(self, open_call: OpenCall) -> None:
        self._requests: queue.SimpleQueue[vecdb_pb2.SearchSessionRequest | None] = queue.SimpleQueue()
        self._replies = open_call(iter(self._requests.get, None))
        self._number = 0
        self.answered = False

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
        self.answered = True
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
        self._starting = threading.Lock()
        self._started = False
        self._closed = False

    @property
    def watched(self) -> int:
        """Sessions that wait for an answer."""
        return len(self._deadlines)

    def begin(self, session: _Session, deadline: float) -> None:
        """Watch over a session until ``end``; raises RuntimeError where no thread can be started."""
        self._deadlines[session] = deadline
        if self._wake.is_set():
            return
        with self._starting:
            if not self._started:
                threading.Thread(target=self._run, name="vecdb-sessions", daemon=True).start()
                self._started = True
        self._wake.set()

    def end(self, session: _Session) -> None:
        """Watch over it no longer."""
        self._deadlines.pop(session, None)

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
