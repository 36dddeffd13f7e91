"""The gate: takes every request from its bytes to the bytes of its reply, and is the only thing that grpc calls.

In this order: admit (before anything is parsed; what authenticates a caller belongs here), parse, answer within the
deadline, turn errors into statuses, measure. A session is admitted once, and each of its searches again. Only searches
that proved short may run in the event loop; whatever may wait or compute runs in threads. An unexpected exception
becomes Internal with an id that the log explains; no caller sees more of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message

from vecdb.api import Database
from vecdb.errors import (
    Cancelled,
    Internal,
    ResourceExhausted,
    Unavailable,
    VecdbError,
)
from vecdb.service.costs import SearchCosts
from vecdb.service.deadlines import Deadline
from vecdb.service.groups import Encode, SearchGroups
from vecdb.service.measures import Measures
from vecdb.service.methods import METHODS, SERVICE, Method, Streaming, Unary, Work, parsed, search
from vecdb.service.options import ServerOptions
from vecdb.service.session import Send, Session, Unsent
from vecdb.v1 import vecdb_pb2
from vecdb.wire.errors import DETAILS_KEY, encode_error

_Result = TypeVar("_Result")
_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"

_log = logging.getLogger("vecdb.service")
_STATUS = {code.value[0]: code for code in grpc.StatusCode}
REPLY_BYTES_MAX = 64 * 2**20
"""Largest reply in one message. Only a search without the stream can have a larger one."""
_SMALL_BYTES = 64 * 1024
"""A search of at most this size is parsed in the event loop."""


class Gate:
    """Answers requests for one database.

    Parameters
    ----------
    database
        Where requests go.
    options
        The limits.

    Attributes
    ----------
    measures
        What was answered so far.
    """

    def __init__(self, database: Database, options: ServerOptions) -> None:
        self.measures = Measures(tuple(METHODS))
        self._database = database
        self._options = options
        self._costs = SearchCosts(options.short_search_s)
        self._groups = SearchGroups(database, self._costs)
        self._sessions: set[Session] = set()
        self._ending = False
        self._pools = {
            work: ThreadPoolExecutor(threads, thread_name_prefix=f"vecdb-{work.value}")
            for work, threads in (
                (Work.READ, options.read_threads),
                (Work.WRITE, options.write_threads),
                (Work.WAIT, options.wait_threads),
            )
        }

    def handlers(self) -> grpc.GenericRpcHandler[bytes, bytes]:
        """What grpc calls. No deserializer is given, so that bytes stay bytes until the gate has let them pass."""
        return grpc.method_handlers_generic_handler(
            SERVICE.full_name, {name: self._handler(name, method) for name, method in METHODS.items()}
        )

    def _handler(self, name: str, method: Method) -> grpc.RpcMethodHandler[bytes, bytes]:
        if method.session:
            return grpc.stream_stream_rpc_method_handler(functools.partial(self._session, name))
        if method.streaming:
            return grpc.unary_stream_rpc_method_handler(functools.partial(self._stream, name, method))
        return grpc.unary_unary_rpc_method_handler(functools.partial(self._unary, name, method))

    def end_sessions(self) -> None:
        """Let each session end once it has answered what it has read; open no other."""
        self._ending = True
        for session in self._sessions:
            session.end()

    def close(self) -> None:
        """Drop what waits for a thread; what runs goes on. ``join`` waits for it."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Wait for the threads."""
        for pool in self._pools.values():
            pool.shutdown(wait=True)

    async def _unary(self, name: str, method: Method, data: bytes, context: _Context) -> bytes:
        if name == "Search" and len(data) <= _SMALL_BYTES:
            return await self._pass(name, context, self._search_unary(data))
        return await self._pass(name, context, self._bounded(name, method, lambda: self._answer(method, data)))

    async def _stream(self, name: str, method: Method, data: bytes, context: _Context) -> None:
        async def write_all() -> None:
            pieces = self._pieces(method, data)
            loop = asyncio.get_running_loop()
            pool = self._pools[method.work]
            last = False
            # One deadline for the whole stream, or for each piece where the whole has none, so that a caller who does
            # not read cannot hold a place for ever.
            try:
                async with self._held(name, method):
                    while not last:
                        piece, last = await loop.run_in_executor(pool, lambda: next(pieces))
                        async with contextlib.nullcontext() if method.bounded else self._deadline().hold(name):
                            await _write(context, piece)
            finally:
                # Releases what the stream holds of the database. Of a stopped server the pool takes no work any more.
                with contextlib.suppress(RuntimeError):
                    pool.submit(_end, pieces)

        await self._pass(name, context, write_all())

    async def _session(self, name: str, _requests: object, context: _Context) -> None:
        options = self._options
        # Less than all requests that are answered at a time: one caller alone must not be refused for his own load.
        searches_max = min(options.streams_max, max(1, options.requests_max // 2))
        session = Session(context, self._session_answer, searches_max, options.deadline_s)

        async def run() -> None:
            if self._ending:
                raise Unavailable("the server is stopping", field="server")
            limit = options.sessions_max
            if len(self._sessions) >= limit:
                raise ResourceExhausted(
                    f"at most {limit} sessions are open at a time; search by single calls",
                    field="sessions",
                    limit=limit,
                )
            self._sessions.add(session)
            try:
                await session.run()
            finally:
                self._sessions.discard(session)

        await self._pass(name, context, run(), places=0)

    async def _session_answer(self, asked: vecdb_pb2.SessionSearch, send: Send) -> None:
        number = asked.number

        def encode(reply: vecdb_pb2.SearchReply) -> bytes:
            _check_reply_size(reply.ByteSize())
            answer = vecdb_pb2.SessionAnswer(number=number, reply=reply)
            return vecdb_pb2.SearchSessionReply(answers=[answer]).SerializeToString()

        async def answer() -> None:
            # Sent within the place that the search takes: answers which nobody reads count as requests under way.
            await send(await self._search(asked.search, encode, asked.timeout_s))

        try:
            await self._admitted("Search", answer())
        except Unsent:
            raise
        except VecdbError as error:
            status = encode_error(error)
            found = vecdb_pb2.SessionError(code=status.code, message=status.message, details=status.details)
            reply = vecdb_pb2.SearchSessionReply(answers=[vecdb_pb2.SessionAnswer(number=number, error=found)])
            await send(reply.SerializeToString())

    async def _pass(
        self, name: str, context: _Context, answer: Coroutine[Any, Any, _Result], places: int = 1
    ) -> _Result:
        """Await ``answer`` as ``_admitted`` does; every error ends here as a status."""
        try:
            return await self._admitted(name, answer, places)
        except VecdbError as error:
            status = encode_error(error)
            trailers = ((DETAILS_KEY, status.details),)
            try:
                await context.abort(_STATUS[status.code], status.message, trailers)
            except grpc.aio.AbortError:
                raise
            except Exception as failure:
                # No status can follow a message that its caller does not read: grpc drops the call.
                _log.info("%s: %s", name, error.message)
                raise asyncio.CancelledError from failure
            raise AssertionError("abort returned") from error

    async def _admitted(self, name: str, answer: Coroutine[Any, Any, _Result], places: int = 1) -> _Result:
        """Await ``answer`` if the request is admitted; whatever is raised leaves as a VecdbError.

        ``places`` is how many of the requests that are answered at a time it counts for: a session for none, but each
        of its searches for one. A caller ends a session by going away, which is no failure.
        """
        started = time.perf_counter()
        code: str | None = "CANCELLED" if places else None
        self.measures.running += places
        try:
            if places:
                self._admit()
            result = await answer
            code = None
            return result
        except Exception as raised:
            # No other exception may reach grpc, which would show it to the caller.
            error = _as_error(name, raised)
            code = error.code
            if error is raised:
                raise
            raise error from raised
        finally:
            answer.close()
            self.measures.running -= places
            self.measures.record(name, code, time.perf_counter() - started)

    def _admit(self) -> None:
        """Let a request pass, or raise; it is not parsed yet."""
        limit = self._options.requests_max
        if self.measures.running > limit:
            raise ResourceExhausted(
                f"the server answers at most {limit} requests at a time; try again later", field="requests", limit=limit
            )

    async def _search_unary(self, data: bytes) -> bytes:
        return await self._search(parsed(vecdb_pb2.SearchRequest, data), _encoded)

    async def _search(self, request: vecdb_pb2.SearchRequest, encode: Encode, timeout_s: float = 0.0) -> bytes:
        """The reply to a search as ``encode`` makes bytes of it; ``timeout_s`` is the caller's, where it says so."""
        deadline = self._search_deadline(timeout_s)
        if self._costs.is_short(request):
            at_once = await self._groups.answer(request, encode, deadline)
            if at_once is not None:
                self.measures.methods["Search"].short += 1
                return at_once

        def timed() -> tuple[bytes, float]:
            # The thread's own time: what it waits for other threads must not make a short search look long.
            started = time.thread_time()
            return encode(search(self._database, request)), time.thread_time() - started

        # One that waits for a write must not take the threads of those that need not wait.
        work = Work.WAIT if request.read_after_seq else Work.READ
        async with deadline.hold("Search"):
            reply, seconds = await asyncio.get_running_loop().run_in_executor(self._pools[work], timed)
        self._costs.record(request, seconds, request.query_count)
        return reply

    def _search_deadline(self, timeout_s: float) -> Deadline:
        if 0.0 < timeout_s < self._options.deadline_s:
            now = asyncio.get_running_loop().time()
            return Deadline(now + timeout_s, timeout_s, "timeout_s", "its caller's timeout")
        return self._deadline()

    def _deadline(self) -> Deadline:
        seconds = self._options.deadline_s
        return Deadline(asyncio.get_running_loop().time() + seconds, seconds)

    async def _bounded(self, name: str, method: Method, work: Callable[[], _Result]) -> _Result:
        """The result of ``work`` in a thread, within the server's deadline.

        A thread cannot be stopped: past the deadline its result is dropped, and it counts against its pool until done.
        """
        async with self._held(name, method):
            return await asyncio.get_running_loop().run_in_executor(self._pools[method.work], work)

    def _held(self, name: str, method: Method) -> AbstractAsyncContextManager[None]:
        return self._deadline().hold(name) if method.bounded else contextlib.nullcontext()

    def _answer(self, method: Method, data: bytes) -> bytes:
        answer = cast(Unary, method.answer)
        return _encoded(answer(self._database, parsed(method.request, data)))

    def _pieces(self, method: Method, data: bytes) -> Generator[tuple[bytes, bool], None, None]:
        """The encoded replies, each with whether it is the last. Nothing is done before the first is asked for."""
        answer = cast(Streaming, method.answer)
        replies = answer(self._database, parsed(method.request, data))
        held = next(replies)
        for reply in replies:
            yield held.SerializeToString(), False
            held = reply
        yield held.SerializeToString(), True


def _end(pieces: Generator[tuple[bytes, bool], None, None]) -> None:
    """End a stream that nobody reads any more."""
    # A thread that is still at the next piece is the last to know of the stream, which ends with it.
    with contextlib.suppress(ValueError):
        pieces.close()


async def _write(context: _Context, piece: bytes) -> None:
    """Send one piece; a caller that went away is no failure of the server."""
    try:
        await context.write(piece)
    except Exception as error:
        raise Cancelled("the caller went away", field="stream") from error


def _encoded(reply: Message) -> bytes:
    data = reply.SerializeToString()
    _check_reply_size(len(data))
    return data


def _check_reply_size(size_bytes: int) -> None:
    """Raise ResourceExhausted for a reply that is too large for one message."""
    if size_bytes > REPLY_BYTES_MAX:
        raise ResourceExhausted(
            f"the reply has {size_bytes} bytes; one message holds at most {REPLY_BYTES_MAX}: use SearchStream",
            field="k",
            limit=f"{REPLY_BYTES_MAX} bytes",
            value=size_bytes,
        )


def _as_error(name: str, raised: Exception) -> VecdbError:
    if isinstance(raised, Internal) or not isinstance(raised, VecdbError | MemoryError):
        found = secrets.token_hex(4)
        _log.error("%s failed, error %s", name, found, exc_info=raised)
        return Internal(f"the server failed on this request; its log explains error {found}", value=found)
    if isinstance(raised, MemoryError):
        _log.error("%s ran out of memory", name, exc_info=raised)
        return ResourceExhausted("the server has no memory for this request", field="memory")
    return raised
