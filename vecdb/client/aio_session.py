"""The session of an event loop: all its searches over one call that stays open, answered in any order.

What is to be sent while a message is on its way goes out together in the next. As in ``vecdb.client.sessions``, a
search that gets no answer here is sent again as a call of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from vecdb.client.sessions import REFUSALS, REFUSED_S, SessionLost, outcome
from vecdb.v1 import vecdb_pb2

_log = logging.getLogger("vecdb.client")
_MESSAGE_SEARCHES = 64


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
        self._open()
        number = next(self._numbers)
        answer: asyncio.Future[vecdb_pb2.SessionAnswer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._pending.append(vecdb_pb2.SessionSearch(number=number, search=request, timeout_s=timeout_s))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(self._stream))
        try:
            async with asyncio.timeout(timeout_s):
                return outcome(await answer)
        except TimeoutError as error:
            raise SessionLost from error
        finally:
            self._waiting.pop(number, None)

    def close(self) -> None:
        """End the call; what waits is lost."""
        if self._stream is not None:
            self._lose(self._stream)

    def _open(self) -> None:
        if self._stream is not None:
            return
        if time.monotonic() < self._refused_until:
            raise SessionLost
        try:
            self._stream = self._open_call()
        except grpc.aio.UsageError as error:
            # What grpc raises where another task closed the channel.
            raise SessionLost from error
        self._reading = asyncio.create_task(self._read(self._stream))

    async def _write(self, stream: Any) -> None:
        try:
            while self._pending and stream is self._stream:
                some = self._pending[:_MESSAGE_SEARCHES]
                del self._pending[:_MESSAGE_SEARCHES]
                await stream.write(vecdb_pb2.SearchSessionRequest(searches=some))
        except (grpc.RpcError, asyncio.InvalidStateError) as error:
            # The call has ended: whoever reads from it learns why, and gives up every search.
            _log.debug("a session ended: %s", error)
        finally:
            if stream is self._stream:
                self._writing = None

    async def _read(self, stream: Any) -> None:
        try:
            while (reply := await stream.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
                for answer in reply.answers:
                    waiting = self._waiting.pop(answer.number, None)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(answer)
        except grpc.RpcError as error:
            if isinstance(error, grpc.aio.AioRpcError) and error.code() in REFUSALS:
                self._refused_until = time.monotonic() + REFUSED_S
        finally:
            self._lose(stream)

    def _lose(self, stream: Any) -> None:
        """Give up a call that ended, and every search in it."""
        if stream is not self._stream:
            return
        self._stream = None
        self._writing = None
        stream.cancel()
        self._pending.clear()
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            if not each.done():
                each.set_exception(SessionLost())
