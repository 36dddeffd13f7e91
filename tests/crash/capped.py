"""A process under a cap on memory that writes batches until it is told not to, and says which were acknowledged.

``python -m tests.crash.capped PROCS PATH FIRST LAST OPTIONS``: enters the group of PROCS, opens the database, says
``FOUND rows``, writes the batches from FIRST to before LAST, says ``ACK batch`` or ``REFUSED batch`` of each,
searches and closes. OPTIONS are those of the engine, as JSON. It ends itself after ``LIMIT_S`` seconds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.options import EngineOptions
from vecdb.errors import ResourceExhausted
from vecdb.types import F32Array

NAME = "docs"
DIM = 64
BATCH = 500
LIMIT_S = 120
BATCH_BYTES = BATCH * DIM * 4


def vectors(number: int) -> F32Array:
    """(BATCH, DIM) float32, those of a batch."""
    return np.random.default_rng(number).standard_normal((BATCH, DIM)).astype(np.float32)


def ids(number: int) -> range:
    """The ids of a batch."""
    return range(BATCH * number, BATCH * (number + 1))


def main(procs: str, path: str, first: str, last: str, options: str) -> None:
    signal.alarm(LIMIT_S)
    if procs:
        Path(procs).write_text(str(os.getpid()))
    opened = EngineOptions(kernels="reference", graph_rows_min=2**31, **json.loads(options))
    with EmbeddedDatabase.open(path, options=opened) as database:
        collection = database.create_collection(NAME, dim=DIM, exist_ok=True)
        print(f"FOUND {collection.count()}", flush=True)
        for number in range(int(first), int(last)):
            try:
                collection.upsert(ids(number), vectors(number), [{"batch": number}] * BATCH)
            except ResourceExhausted:
                print(f"REFUSED {number}", flush=True)
            else:
                print(f"ACK {number}", flush=True)
        if collection.count():
            nearest = collection.search(vectors(0)[7], k=1, recall="exact").ids[0]
            print(f"NEAREST {nearest}", flush=True)
    print("CLOSED", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
