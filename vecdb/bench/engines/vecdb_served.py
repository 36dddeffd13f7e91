"""vecdb over gRPC: a server in a process of its own, one connection on the loopback interface.

``python -m vecdb.bench.engines.vecdb_served <directory>`` is that server. It inherits the core that its parent is
pinned to: client and server share it, so that the figure is of one core in all.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vecdb.bench.engines.protocol import BenchVectors, Bound, Engine
from vecdb.bench.engines.vecdb_embedded import BATCH_ROWS, COLLECTION, INDEX_TIMEOUT_S, bound_calls, index_spec, ingest
from vecdb.bench.machine import python_command
from vecdb.bench.memory import allocated_bytes
from vecdb.bench.server_process import ServerProcess


class VecdbServed(Engine):
    """``vecdb.connect`` to a server that was started for the run."""

    def prepare(self, vectors: BenchVectors) -> None:
        """Start the server on a free port, wait until it has loaded its kernels, connect."""
        from vecdb.client import connect

        self.vectors = vectors
        self.server = ServerProcess(
            *python_command("vecdb.bench.engines.vecdb_served"), str(self.directory / "database")
        )
        self.database = connect(self.server.address)

    def build(self) -> None:
        """As embedded, over the wire."""
        self.collection = self.database.create_collection(
            COLLECTION, self.vectors.dim, self.vectors.metric, index_spec(self.seed)
        )
        ingest(self.collection.upsert, self.vectors.train)
        self.collection.wait_indexed(INDEX_TIMEOUT_S)

    def bind(self, k: int, effort: int) -> Bound:
        """``search`` and ``search_batch`` of the client."""
        return bound_calls(self.collection, self.vectors.queries, k, effort)

    def disk_bytes(self) -> int:
        """The server's directory."""
        return allocated_bytes(self.directory)

    def parameters(self) -> Mapping[str, Any]:
        """The index."""
        spec = index_spec(self.seed)
        return {"M": spec.m, "ef_construction": spec.ef_construction, "seed": spec.seed, "batch_rows": BATCH_ROWS}

    def facts(self) -> Mapping[str, Any]:
        """Segments, and rows without an index."""
        stats = self.collection.stats()
        return {"segments": stats.segments, "unindexed_rows": stats.unindexed_rows}

    def processes(self) -> Sequence[int]:
        """The server: the client's memory belongs to its user."""
        return (self.server.pid,)

    def close(self) -> None:
        """Hang up, stop the server."""
        self.database.close()
        self.server.stop()


def main(arguments: Sequence[str]) -> int:
    """Serve the database in the directory named until told to stop."""
    from vecdb.service import ServeOptions, ServerOptions, run_server

    return run_server(ServeOptions(Path(arguments[0]), ServerOptions(address="127.0.0.1:0")))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
