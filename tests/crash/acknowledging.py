"""Processes that acknowledge rows until they are killed: programs that embed the engine, and a server.

``python -m tests.crash.acknowledging KIND PATH [SURVIVORS]``. ``embedded`` writes ``ACK seq`` for each row and waits;
``once`` ends after it; ``served`` serves and says where. ``refused`` goes on after rows that are refused, says which
(``ACK seq row``, ``REFUSED row``, ``UNKNOWN row``), and ends.
With SURVIVORS the file system forgets: at SIGUSR1 the power is lost, and what is left of it is written to
SURVIVORS/NAME for each of ``LEFT``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

import numpy as np

from tests.crash.power import PowerLossFileSystem
from tests.storage.forgetful import NAMES
from vecdb.api import Collection, Database
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.options import EngineOptions
from vecdb.errors import ResourceExhausted, Unavailable
from vecdb.storage.io import FileSystem
from vecdb.types import F32Array

ROWS = 200
DIM = 8
NAME = "docs"
OPTIONS = EngineOptions(
    memtable_size_bytes=64 * 300, graph_rows_min=20, log_file_bytes_first=8_192, kernels="reference"
)
LEFT = {"without-journal": None, "with-journal": NAMES, "pieces": 1}
"""Names of what may be left, and what ``materialise`` takes for each."""


def vector(number: int) -> F32Array:
    return np.random.default_rng(number).standard_normal(DIM).astype(np.float32)


def write(collection: Collection, number: int) -> int:
    """Write row ``number`` in a batch of its own; its seq."""
    return collection.upsert([number], [vector(number)], [{"number": number}]).seq


def rows_in(database: Database) -> set[int]:
    """The rows that are there, each compared with what was written."""
    points = list(database.collection(NAME).scroll(with_vectors=True))
    for each in points:
        assert each.payload == {"number": each.id}
        np.testing.assert_allclose(each.vectors[""], vector(int(each.id)), rtol=1e-5)
    return {int(each.id) for each in points}


def _forgetful(path: Path, survivors: Path) -> FileSystem:
    file_system = PowerLossFileSystem(path.parent)

    def lose(_number: int, _frame: FrameType | None) -> None:
        file_system.lose()
        for name, seed in LEFT.items():
            file_system.materialise(survivors / name, seed=seed)
        os.kill(os.getpid(), signal.SIGKILL)

    signal.signal(signal.SIGUSR1, lose)
    return file_system


def _embedded(database: EmbeddedDatabase) -> None:
    collection = database.create_collection(NAME, dim=DIM)
    for number in range(ROWS):
        print(f"ACK {write(collection, number)}", flush=True)


def _refused(path: str) -> None:
    with (
        suppress(ResourceExhausted, Unavailable),
        EmbeddedDatabase.open(path, options=OPTIONS) as database,
    ):
        collection = database.create_collection(NAME, dim=DIM)
        for number in range(ROWS):
            try:
                print(f"ACK {write(collection, number)} {number}", flush=True)
            except ResourceExhausted:
                print(f"REFUSED {number}", flush=True)
            except Unavailable:
                print(f"UNKNOWN {number}", flush=True)
                raise
        collection.flush()
    print("END", flush=True)


async def _serve(database: EmbeddedDatabase) -> None:
    from vecdb.service import Server, ServerOptions

    server = Server(database, ServerOptions(address="127.0.0.1:0"))
    print(await server.start(), flush=True)
    await server.wait()


def main(kind: str, path: str, survivors: str = "") -> None:
    if kind == "refused":
        _refused(path)
        return
    file_system = _forgetful(Path(path), Path(survivors)) if survivors else FileSystem()
    with EmbeddedDatabase.open(path, options=OPTIONS, file_system=file_system) as database:
        if kind != "served":
            _embedded(database)
            if kind == "embedded":
                # Not ``signal.pause``: a signal that comes just before it would never be handled.
                while True:
                    time.sleep(0.05)
            database.collection(NAME).flush()
        else:
            asyncio.run(_serve(database))


if __name__ == "__main__":
    main(*sys.argv[1:])
