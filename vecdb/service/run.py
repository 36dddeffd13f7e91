"""A server as a process: open a database, serve it until told to stop, close it.

It says that it is ready only when it is: the database is recovered, the kernels are compiled, the port listens.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from vecdb.service.options import ServeOptions
from vecdb.service.server import Server
from vecdb.version import __version__

if TYPE_CHECKING:
    from vecdb.engine.database import EmbeddedDatabase
    from vecdb.engine.reading import ReadOnlyDatabase

_log = logging.getLogger("vecdb.service")


def run_server(options: ServeOptions) -> int:
    """Serve the database at ``options.path`` until SIGTERM or SIGINT, then finish, flush and close.

    A second signal ends the grace of running requests.

    Returns
    -------
    int
        0, after a clean stop.

    Raises
    ------
    VecdbError
        The database cannot be opened, or the address not be listened on.
    """
    with _opened(options) as database:
        if options.warm_up:
            for warmed in database.kernels.warm_up():
                _log.info("kernel %s: %.2f s%s", warmed.name, warmed.seconds, " (cached)" if warmed.cached else "")
        asyncio.run(_serve(database, options))
    return 0


def _opened(options: ServeOptions) -> EmbeddedDatabase | ReadOnlyDatabase:
    from vecdb.engine.opening import open  # heavy: only a process that serves needs the engine
    from vecdb.engine.options import EngineOptions

    if options.read_only:
        reading = EngineOptions(
            refresh_interval_s=options.refresh_interval_s, memory_budget_bytes=options.memory_budget_bytes
        )
        return open(options.path, options=reading, read_only=True)
    writing = EngineOptions(log_archive=options.log_archive, memory_budget_bytes=options.memory_budget_bytes)
    if options.build_threads is not None:
        writing = replace(writing, build_threads=options.build_threads)
    return open(options.path, options=writing)


async def _serve(database: EmbeddedDatabase | ReadOnlyDatabase, serve: ServeOptions) -> None:
    server = Server(database, serve.server)
    stops: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stops.put_nowait, number)
    address = await server.start()
    database.announce(address)
    sys.stdout.write(f"vecdb {__version__} serves {database.path} on {address}\n")
    sys.stdout.flush()
    first = await stops.get()
    _log.info("%s: stopping", first.name)
    stopping = asyncio.create_task(server.stop())
    second = asyncio.create_task(stops.get())
    await asyncio.wait((stopping, second), return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        await server.stop(grace_s=0.0)
    second.cancel()
    await stopping
    # Whatever waits in the engine gives up, so that the threads end while the loop that they answer to still runs.
    await asyncio.get_running_loop().run_in_executor(None, database.close)
    await server.join()
