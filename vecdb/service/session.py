"""A session: one call that carries many searches and their answers.

What makes a call expensive, to open it, to admit it, to end it, is paid once; and while a message is on its way, what
becomes ready meanwhile goes out together with the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias

import grpc
import grpc.aio

from vecdb.errors import Cancelled, InvalidArgument, ResourceExhausted
from vecdb.service.methods import parsed
from vecdb.v1 import vecdb_pb2

Send: TypeAlias = Callable[[bytes], Awaitable[None]]
"""Sends an encoded ``SearchSessionReply`` that holds one answer; returns when it is on its way, or raises Unsent."""

Answer: TypeAlias = Callable[[vecdb_pb2.SessionSearch, Send], Coroutine[Any, Any, None]]
"""Answers one search, be it with an error; raises only what ``Send`` raises."""

MESSAGE_BYTES_MAX = 2 * 2**20
"""Largest message of a session: it is parsed in the event loop, and before its searches are admitted."""
MESSAGE_SEARCHES_MAX = 1_024
_REPLY_BYTES = 2**20
"""Answers that wait go out in messages of about this size."""


class Unsent(Cancelled):
    """An answer could not be sent: its caller went away, or does not read."""


class Session:
    """Answers the searches of one call until its caller or the server ends it.

    Parameters
    ----------
    context
        The call.
    answer
        Answers one search.
    searches_max
        Searches that may be under way or wait to be sent; while there are as many, the caller is not read from.
    write_s
        Seconds that one message of answers may take: a caller who does not read must not hold its answers for ever.
    """

    def __init__(
        self, context: grpc.aio.ServicerContext[bytes, bytes], answer: Answer, searches_max: int, write_s: float
    ) -> None:
        self._context = context
        self._answer = answer
        self._room = asyncio.Semaphore(searches_max)
        self._write_s = write_s
        self._ready: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writing = False
        self._reading: asyncio.Task[None] | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._failed: BaseException | None = None

    async def run(self) -> None:
        """Return when the caller has said that there is no more, or the session was ended, and all is answered.

        Raises
        ------
        InvalidArgument, ResourceExhausted
            A message is none of a session, or too large.
        Unsent
            The caller went away, or did not read.
        """
        self._reading = asyncio.create_task(self._read())
        try:
            await asyncio.wait((self._reading,))
            if self._answering and self._failed is None:
                await asyncio.wait(self._answering)
            if self._failed is not None:
                raise self._failed
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
            for search in _parsed(data).searches:
                await self._room.acquire()
                task = asyncio.create_task(self._answer(search, self._send))
                self._answering.add(task)
                task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._answering.discard(task)
        self._room.release()
        if not task.cancelled() and task.exception() is not None:
            # Only to send can fail.
            self._failed = task.exception()
            self.end()

    async def _send(self, data: bytes) -> None:
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ready.append((data, sent))
        try:
            if not self._writing:
                await self._write()
            await sent
        except Exception as error:
            raise Unsent("the caller went away, or does not read", field="session") from error

    async def _write(self) -> None:
        """Send what is ready, and what becomes ready meanwhile."""
        self._writing = True
        try:
            while self._ready:
                # Encoded messages one after the other are one message with the answers of all.
                size_bytes = count = 0
                while count < len(self._ready) and size_bytes < _REPLY_BYTES:
                    size_bytes += len(self._ready[count][0])
                    count += 1
                some, self._ready = self._ready[:count], self._ready[count:]
                async with asyncio.timeout(self._write_s):
                    await self._context.write(b"".join([data for data, _ in some]))
                for _, sent in some:
                    if not sent.done():
                        sent.set_result(None)
        finally:
            self._writing = False


def _parsed(data: bytes) -> vecdb_pb2.SearchSessionRequest:
    if len(data) > MESSAGE_BYTES_MAX:
        raise ResourceExhausted(
            f"a message of a session has at most {MESSAGE_BYTES_MAX} bytes, got {len(data)}",
            field="request",
            limit=f"{MESSAGE_BYTES_MAX} bytes",
            value=len(data),
        )
    message = parsed(vecdb_pb2.SearchSessionRequest, data)
    if len(message.searches) > MESSAGE_SEARCHES_MAX:
        raise InvalidArgument(
            f"a message of a session holds at most {MESSAGE_SEARCHES_MAX} searches, got {len(message.searches)}",
            field="searches",
            limit=MESSAGE_SEARCHES_MAX,
            value=len(message.searches),
        )
    return message
