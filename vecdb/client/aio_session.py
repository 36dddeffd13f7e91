"""The session of an event loop: all its searches over one call that stays open, answered in any order.

What is to be sent while a message is on its way goes out together in the next. As in ``vecdb.client.sessions``, a
search that gets no answer here is sent again as a call of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
import weakref
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from vecdb.client.sessions import REFUSALS, REFUSED_S, SessionLost, outcome
from vecdb.v1 import vecdb_pb2

_log = logging.getLogger("vecdb.client")
_MESSAGE_SEARCHES = 64
_MESSAGE_BYTES = 2**20
"""A message holds so many searches, or bytes and one search more, at most."""


class AsyncSession:
    """At most one open call of ``SearchSession``, opened when it is needed.

    Parameters
    ----------
    open_call
        Opens another one.
    """

    def __init__(self, open_call: Callable[[], Any]) -> None:
        self._open_call = open_call
        self._stream: Any = None
        self._hang_up: weakref.finalize[[Any, asyncio.AbstractEventLoop], AsyncSession] | None = None
        self._received = 0
        self._waiting: dict[int, asyncio.Future[vecdb_pb2.SessionAnswer]] = {}
        self._pending: list[vecdb_pb2.SessionSearch] = []
        self._numbers = itertools.count(1)
        self._refused_until = 0.0
        self._writing: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None

    async def search(self, request: vecdb_pb2.SearchRequest, timeout_s: float) -> vecdb_pb2.SearchReply:
        """The reply to a search.

        Raises
        ------
        SessionLost
            There is no session, or it ended, or the time is up.
        VecdbError
            The server's answer is an error.
        """
        stream = self._opened()
        received = self._received
        number = next(self._numbers)
        answer: asyncio.Future[vecdb_pb2.SessionAnswer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._pending.append(vecdb_pb2.SessionSearch(number=number, search=request, timeout_s=timeout_s))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(stream))
        try:
            async with asyncio.timeout(timeout_s):
                return outcome(await answer)
        except TimeoutError as error:
            if stream is self._stream and received == self._received:
                # Not a word since: what is at the other end may be gone, while the connection lives.
                self._refuse(unless_answered=True)
                self._lose(stream)
            raise SessionLost from error
        finally:
            self._waiting.pop(number, None)

    def close(self) -> None:
        """End the call; what waits is lost."""
        if self._stream is not None:
            self._lose(self._stream)

    def _opened(self) -> Any:
        if self._stream is None:
            if time.monotonic() < self._refused_until:
                raise SessionLost
            try:
                stream = self._open_call()
            except grpc.aio.UsageError as error:
                # What grpc raises where another task closed the channel.
                raise SessionLost from error
            self._stream = stream
            self._received = 0
            # The reader knows its session weakly, so that a connection which nobody closed can be collected.
            self._reading = asyncio.create_task(_read(stream, weakref.ref(self)))
            self._hang_up = weakref.finalize(self, _hang_up, stream, asyncio.get_running_loop())
            self._hang_up.atexit = False
        return self._stream

    async def _write(self, stream: Any) -> None:
        try:
            while self._pending and stream is self._stream:
                size_bytes = count = 0
                while count < min(len(self._pending), _MESSAGE_SEARCHES) and size_bytes < _MESSAGE_BYTES:
                    size_bytes += self._pending[count].ByteSize()
                    count += 1
                some, self._pending = self._pending[:count], self._pending[count:]
                await stream.write(vecdb_pb2.SearchSessionRequest(searches=some))
        except (grpc.RpcError, asyncio.InvalidStateError) as error:
            # The call has ended: whoever reads from it learns why, and gives up every search.
            _log.debug("a session ended: %s", error)
        finally:
            if stream is self._stream:
                self._writing = None

    def deliver(self, reply: vecdb_pb2.SearchSessionReply) -> None:
        """Hand answers to those who wait for them."""
        self._received += 1
        for answer in reply.answers:
            waiting = self._waiting.pop(answer.number, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)

    def ended(self, stream: Any, status: grpc.StatusCode | None) -> None:
        """Note that a call is over, with an error's status or without."""
        if status in REFUSALS and stream is self._stream:
            self._refuse(unless_answered=False)
        self._lose(stream)

    def _refuse(self, *, unless_answered: bool) -> None:
        if not (unless_answered and self._received):
            self._refused_until = time.monotonic() + REFUSED_S

    def _lose(self, stream: Any) -> None:
        """Give up a call that ended, and every search in it."""
        if stream is not self._stream:
            return
        self._stream = None
        self._writing = None
        if self._hang_up is not None:
            self._hang_up.detach()
        stream.cancel()
        self._pending = []
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            if not each.done():
                each.set_exception(SessionLost())


async def _read(stream: Any, session_of: weakref.ref[AsyncSession]) -> None:
    """Deliver what comes until the call ends."""
    status = None
    try:
        while (reply := await stream.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
            session = session_of()
            if session is None:
                return
            session.deliver(reply)
            del session
    except grpc.aio.AioRpcError as error:
        status = error.code()
    finally:
        session = session_of()
        if session is not None:
            session.ended(stream, status)


def _hang_up(stream: Any, loop: asyncio.AbstractEventLoop) -> None:
    """End the call of a session that nobody can use any more, from whatever thread notices."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(stream.cancel)
