"""A session: one call that carries many searches and their answers.

What makes a call expensive, to open it, to admit it, to end it, is paid once; and while a message is on its way, what
becomes ready meanwhile goes out together with the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from vecdb.errors import Cancelled, InvalidArgument
from vecdb.v1 import vecdb_pb2

Answer: TypeAlias = Callable[[vecdb_pb2.SessionSearch], Awaitable[bytes]]
"""Gives the encoded ``SearchSessionReply`` that holds the answer to one search, be it an error."""

_MESSAGE_BYTES = 2**20
"""Answers that are ready go out in messages of about this size."""


class Session:
    """Answers the searches of one call until its caller or the server ends it.

    Parameters
    ----------
    context
        The call.
    answer
        Answers one search; never raises.
    searches_max
        Searches that may be under way or wait to be sent; while there are as many, the caller is not read from.
    """

    def __init__(self, context: grpc.aio.ServicerContext[bytes, bytes], answer: Answer, searches_max: int) -> None:
        self._context = context
        self._answer = answer
        self._room = asyncio.Semaphore(searches_max)
        self._ready: list[bytes] = []
        self._writing = False
        self._reading: asyncio.Task[None] | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._failed: BaseException | None = None

    async def run(self) -> None:
        """Return when the caller has said that there is no more, or the session was ended, and all is answered.

        Raises
        ------
        InvalidArgument
            A message is none of a session.
        Cancelled
            The caller went away.
        """
        self._reading = asyncio.create_task(self._read())
        try:
            await asyncio.wait((self._reading,))
            if self._answering:
                await asyncio.wait(self._answering)
            if self._failed is not None:
                raise Cancelled("the caller went away", field="session") from self._failed
            if not self._reading.cancelled():
                self._reading.result()
        finally:
            for task in (self._reading, *self._answering):
                task.cancel()

    def end(self) -> None:
        """Read no more searches; those that were read are answered."""
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self) -> None:
        while (data := await self._context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
            try:
                message = await _parsed(data)
            except DecodeError:
                name = vecdb_pb2.SearchSessionRequest.DESCRIPTOR.name
                raise InvalidArgument(f"the request is not an encoded {name}", field="request", limit=name) from None
            for search in message.searches:
                await self._room.acquire()
                task = asyncio.create_task(self._answered(search))
                self._answering.add(task)
                task.add_done_callback(self._left)

    async def _answered(self, search: vecdb_pb2.SessionSearch) -> None:
        self._ready.append(await self._answer(search))
        if not self._writing:
            await self._write()

    def _left(self, task: asyncio.Task[None]) -> None:
        self._answering.discard(task)
        self._room.release()
        if not task.cancelled() and task.exception() is not None:
            # Only to write can fail.
            self._failed = task.exception()
            self.end()

    async def _write(self) -> None:
        """Send what is ready, and what becomes ready meanwhile."""
        self._writing = True
        try:
            while self._ready:
                # Encoded messages one after the other are one message with the answers of all.
                size_bytes = count = 0
                while count < len(self._ready) and size_bytes < _MESSAGE_BYTES:
                    size_bytes += len(self._ready[count])
                    count += 1
                data = b"".join(self._ready[:count])
                del self._ready[:count]
                await self._context.write(data)
        finally:
            self._writing = False


async def _parsed(data: bytes) -> vecdb_pb2.SearchSessionRequest:
    if len(data) <= _MESSAGE_BYTES:
        return vecdb_pb2.SearchSessionRequest.FromString(data)
    return await asyncio.to_thread(vecdb_pb2.SearchSessionRequest.FromString, data)
