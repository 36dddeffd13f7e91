"""The load that a server carries: searches a second and their latency, over one connection and over many.

``python bench/load.py --dataset clustered-384-cosine-100k`` ingests the data set, serves it by ``vecdb serve`` in
a process of its own, and asks for the 10 nearest with payloads from this process, by threads and by asyncio. Beside
each figure stands what a bare gRPC server answers here, which returns messages of the same sizes and does nothing else,
by calls and by streams that stay open: processes that wake each other cost more on one machine than on another, and no
search is faster than its transport.
Rounds are interleaved, so that a change of the machine's speed meets all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import grpc.aio
import numpy as np

import vecdb
from vecdb.bench.machine import commit, machine, python_command, versions
from vecdb.bench.server_process import ServerProcess
from vecdb.bench.sources import source_of
from vecdb.errors import Unavailable
from vecdb.types import F32Array

K = 10
BATCH_ROWS = 1_000
WARM_UP = 50
START_TIMEOUT_S = 60.0
REQUEST_BYTES = 64
"""What a request holds beside its vector, about."""
REPLY_BYTES = 1_900
COLLECTION = "load"


@dataclass(frozen=True, slots=True)
class Load:
    """What one kind of client saw.

    Attributes
    ----------
    client
        ``threads`` or ``asyncio``, to vecdb or by bare calls or a bare stream.
    connections
        Callers at a time, each with a connection of its own.
    per_second
        Median of the rounds.
    p50_ms, p99_ms
        Over all rounds.
    """

    client: str
    connections: int
    per_second: float
    p50_ms: float
    p99_ms: float


Clients = Callable[[int, float], list[float]]
"""Connections and seconds to the latency of each call, in seconds."""


def measure(clients: dict[str, Clients], connections: Sequence[int], seconds: float, rounds: int) -> list[Load]:
    """Each client with each number of connections, in interleaved rounds."""
    found: dict[tuple[str, int], list[list[float]]] = {}
    for _ in range(rounds):
        for count in connections:
            for name, run in clients.items():
                found.setdefault((name, count), []).append(run(count, seconds))
    return [
        Load(
            name,
            count,
            float(np.median([len(each) / seconds for each in latencies])),
            1e3 * float(np.percentile(np.concatenate(latencies), 50)),
            1e3 * float(np.percentile(np.concatenate(latencies), 99)),
        )
        for (name, count), latencies in found.items()
    ]


def by_threads(connect: Callable[[], tuple[Callable[[int], object], Callable[[], None]]]) -> Clients:
    """Clients that call from threads; ``connect`` gives the call and what closes the connection."""

    def run(count: int, seconds: float) -> list[float]:
        start = threading.Barrier(count)

        def work(number: int) -> list[float]:
            latencies: list[float] = []
            call, close = connect()
            for each in range(WARM_UP):
                call(each)
            start.wait(START_TIMEOUT_S)
            end = time.perf_counter() + seconds
            at = 37 * number
            while (before := time.perf_counter()) < end:
                call(at)
                latencies.append(time.perf_counter() - before)
                at += 1
            close()
            return latencies

        with ThreadPoolExecutor(count) as pool:
            return [latency for each in pool.map(work, range(count)) for latency in each]

    return run


def by_asyncio(
    runner: asyncio.Runner,
    connect: Callable[[], Awaitable[tuple[Callable[[int], Awaitable[object]], Callable[[], Awaitable[None]]]]],
) -> Clients:
    """The same in one event loop."""

    async def run_all(count: int, seconds: float) -> list[float]:
        latencies: list[float] = []
        calls = [await connect() for _ in range(count)]

        async def work(number: int) -> None:
            call = calls[number][0]
            at = 37 * number
            while (before := time.perf_counter()) < end:
                await call(at)
                latencies.append(time.perf_counter() - before)
                at += 1

        for call, _ in calls:
            for each in range(WARM_UP):
                await call(each)
        end = time.perf_counter() + seconds
        await asyncio.gather(*map(work, range(count)))
        for _, close in calls:
            await close()
        return latencies

    return lambda count, seconds: runner.run(run_all(count, seconds))


def search_clients(runner: asyncio.Runner, address: str, queries: F32Array) -> dict[str, Clients]:
    """Clients of a vecdb server."""

    def connect() -> tuple[Callable[[int], object], Callable[[], None]]:
        database = vecdb.connect(address)
        collection = database.collection(COLLECTION)
        return lambda at: collection.search(queries[at % len(queries)], K), database.close

    async def connect_async() -> tuple[Callable[[int], Awaitable[object]], Callable[[], Awaitable[None]]]:
        database = vecdb.connect_async(address)
        collection = await database.collection(COLLECTION)
        return lambda at: collection.search(queries[at % len(queries)], K), database.close

    return {"threads": by_threads(connect), "asyncio": by_asyncio(runner, connect_async)}


def bare_clients(runner: asyncio.Runner, address: str, request_bytes: int) -> dict[str, Clients]:
    """Clients of ``serve_bare``."""
    request = bytes(request_bytes)
    options = (("grpc.use_local_subchannel_pool", 1),)

    def connect() -> tuple[Callable[[int], object], Callable[[], None]]:
        channel = grpc.insecure_channel(address, options)
        call = channel.unary_unary("/bare.Bare/Call", None, None)
        return lambda _at: call(request), channel.close

    async def connect_async() -> tuple[Callable[[int], Awaitable[object]], Callable[[], Awaitable[None]]]:
        channel = grpc.aio.insecure_channel(address, options)
        call = channel.unary_unary("/bare.Bare/Call", None, None)

        async def close() -> None:
            await channel.close(None)

        return lambda _at: call(request), close

    async def open_stream() -> tuple[Callable[[int], Awaitable[object]], Callable[[], Awaitable[None]]]:
        channel = grpc.aio.insecure_channel(address, options)
        stream = channel.stream_stream("/bare.Bare/Stream", None, None)(None)

        async def call(_at: int) -> object:
            await stream.write(request)
            reply = await stream.read()
            if reply is grpc.aio.EOF:  # type: ignore[attr-defined]
                raise Unavailable("the bare server ended the stream", field="server")
            return reply

        async def close() -> None:
            stream.cancel()
            await channel.close(None)

        return call, close

    return {
        "threads, bare calls": by_threads(connect),
        "asyncio, bare calls": by_asyncio(runner, connect_async),
        "asyncio, bare stream": by_asyncio(runner, open_stream),
    }


async def serve_bare() -> None:
    """A server that answers every message with the same bytes; it writes its address and serves until it is ended."""
    reply = bytes(REPLY_BYTES)

    async def answer(_request: bytes, _context: object) -> bytes:
        return reply

    async def answer_all(_requests: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        while await context.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
            await context.write(reply)

    server = grpc.aio.server()
    handlers = {
        "Call": grpc.unary_unary_rpc_method_handler(answer),
        "Stream": grpc.stream_stream_rpc_method_handler(answer_all),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare.Bare", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"serves on 127.0.0.1:{port}\n")
    sys.stdout.flush()
    await server.wait_for_termination()


def ingest(path: Path, vectors: F32Array, metric: str, one_segment: bool) -> None:
    """Make the collection, with a payload of about 150 bytes a point."""
    options = vecdb.EngineOptions(memtable_size_bytes=2**34) if one_segment else vecdb.EngineOptions()
    with vecdb.open(path, options=options) as database:
        collection = database.create_collection(COLLECTION, dim=vectors.shape[1], metric=metric)
        for start in range(0, len(vectors), BATCH_ROWS):
            rows = range(start, min(start + BATCH_ROWS, len(vectors)))
            payloads = [
                {"number": row, "language": "en", "text": f"some passage of text number {row} " * 4} for row in rows
            ]
            collection.upsert(rows, vectors[start : rows.stop], payloads)
        collection.wait_indexed()


def table(loads: Sequence[Load]) -> str:
    """The loads as text."""
    lines = [f"{'client':<20} {'connections':>11} {'calls/s':>9} {'p50 ms':>8} {'p99 ms':>8}"]
    lines += [
        f"{each.client:<20} {each.connections:>11} {each.per_second:>9,.0f} {each.p50_ms:>8.3f} {each.p99_ms:>8.3f}"
        for each in loads
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python bench/load.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--dataset", default="clustered-384-cosine-100k", help="as for vecdb bench")
    parser.add_argument("--connections", default="1,16", help="numbers of callers, e.g. 1,16")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round of each client")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one-segment", action="store_true", help="ingest into one segment, not as memory fills up")
    parser.add_argument("--directory", type=Path, help="keep the database here and use it again")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    chosen = parser.parse_args(arguments)
    if chosen.one_segment and chosen.directory is not None and chosen.directory.exists():
        parser.error("--one-segment is about how rows are ingested, and --directory exists")
    vectors = source_of(chosen.dataset, seed=0)
    with tempfile.TemporaryDirectory() as temporary:
        path = chosen.directory or Path(temporary) / "database"
        if not path.exists():
            ingest(path, vectors.train, vectors.metric.value, chosen.one_segment)
        with vecdb.open(path) as database:
            segments = database.collection(COLLECTION).stats().segments
        sys.stdout.write(f"{vectors.name}: {len(vectors.train):,} rows in segments: {segments}\n")
        bare = [sys.executable, __file__, "--serve-bare"]
        served = [*python_command("vecdb"), "serve", str(path), "--address", "127.0.0.1:0"]
        with asyncio.Runner() as runner, ServerProcess(*bare) as bare_address, ServerProcess(*served) as address:
            clients = {
                **search_clients(runner, address, vectors.queries),
                **bare_clients(runner, bare_address, 4 * vectors.train.shape[1] + REQUEST_BYTES),
            }
            loads = measure(
                clients, [int(each) for each in chosen.connections.split(",")], chosen.seconds, chosen.rounds
            )
    sys.stdout.write(table(loads) + "\n")
    sys.stdout.write(f"load of the machine at the end: {os.getloadavg()[0]:.1f}\n")
    if chosen.json is not None:
        document = {
            "format": "vecdb-load/1",
            "dataset": chosen.dataset,
            "rows": len(vectors.train),
            "segments": segments,
            "k": K,
            "seconds": chosen.seconds,
            "rounds": chosen.rounds,
            "commit": commit(),
            "loads": [asdict(each) for each in loads],
            "machine": machine(),
            "versions": versions(),
        }
        chosen.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve-bare"]:
        asyncio.run(serve_bare())
    else:
        raise SystemExit(main())
