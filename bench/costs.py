"""What it costs to write, to open again, to import, and to have many collections, embedded and durable.

``python bench/costs.py --dataset clustered-384-cosine-100k`` prints a line for each. A figure that contains the start
of a process is the median of several processes; kernels are compiled before anything is measured.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import vecdb
from vecdb.bench.memory import allocated_bytes
from vecdb.bench.sources import source_of
from vecdb.types import F32Array

BATCH_ROWS = 1_000
PROCESSES = 5
COLLECTIONS = 1_000
COLLECTION = "costs"

FIRST_ANSWER = """
import sys, time
start = time.perf_counter()
import numpy, vecdb
query = numpy.load(sys.argv[2])
with vecdb.open(sys.argv[1]) as database:
    collection = database.collection("costs")
    hits = collection.search(query)
    answered = time.perf_counter()
    assert len(hits) == 10 and collection.stats().events.get("graphs_built", 0) == 0
print(answered - start)
"""


def written(path: Path, vectors: F32Array, metric: str) -> tuple[float, float]:
    """Rows a second acknowledged as durable, and indexed as well."""
    with vecdb.open(path) as database:
        database.kernels.warm_up()
        collection = database.create_collection(COLLECTION, dim=vectors.shape[1], metric=metric)
        payloads = [{"title": f"row {row}", "number": row, "language": "en"} for row in range(len(vectors))]
        start = time.perf_counter()
        for at in range(0, len(vectors), BATCH_ROWS):
            rows = range(at, min(at + BATCH_ROWS, len(vectors)))
            result = collection.upsert(rows, vectors[at : rows.stop], payloads[at : rows.stop])
            assert result.durable_seq >= result.seq
        written_s = time.perf_counter() - start
        collection.wait_indexed()
        indexed_s = time.perf_counter() - start
    return len(vectors) / written_s, len(vectors) / indexed_s


def median_of(measure: Callable[[], float]) -> float:
    """The median of ``PROCESSES`` measurements."""
    return statistics.median(measure() for _ in range(PROCESSES))


def process_s(*command: str) -> float:
    """Seconds from starting a command to its end."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def first_answer_s(path: Path, query: Path) -> float:
    """Seconds from the first import to the first answer, in a new process that rebuilds nothing."""
    command = [sys.executable, "-c", FIRST_ANSWER, str(path), str(query)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)


def many_collections(path: Path) -> tuple[float, int, int]:
    """Seconds to open and count ``COLLECTIONS`` of 3 rows, descriptors in use at most, bytes of disk."""
    with vecdb.open(path) as database:
        for number in range(COLLECTIONS):
            collection = database.create_collection(f"c{number:04d}", dim=64)
            collection.upsert([1, 2, 3], np.eye(3, 64, dtype=np.float32), [{"a": 1}] * 3)
    descriptors = 0
    start = time.perf_counter()
    with vecdb.open(path) as database:
        for name in database.collections():
            assert database.collection(name).count() == 3
            descriptors = max(descriptors, sum(1 for _ in Path("/proc/self/fd").iterdir()))
        opened_s = time.perf_counter() - start
    return opened_s, descriptors, allocated_bytes(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python bench/costs.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--dataset", default="clustered-384-cosine-100k", help="as for vecdb bench")
    parser.add_argument("--scratch", type=Path, help="where the databases are made and removed again")
    chosen = parser.parse_args(arguments)
    vectors = source_of(chosen.dataset, seed=0)

    def say(what: str, figure: str) -> None:
        sys.stdout.write(f"{what:<58} {figure}\n")
        sys.stdout.flush()

    with tempfile.TemporaryDirectory(dir=chosen.scratch) as temporary:
        path, query = Path(temporary) / "database", Path(temporary) / "query.npy"
        np.save(query, vectors.queries[0])
        rows, dim = vectors.train.shape
        durable, indexed = written(path, vectors.train, vectors.metric.value)
        say(f"{rows:,} x {dim}, batches of {BATCH_ROWS:,}, durable", f"{durable:,.0f} rows/s")
        say("the same to fully indexed", f"{indexed:,.0f} rows/s")
        say(
            "new process to its first answer, nothing rebuilt",
            f"{median_of(lambda: first_answer_s(path, query)):.2f} s",
        )
        bare_s = median_of(lambda: process_s(sys.executable, "-c", ""))
        import_s = median_of(lambda: process_s(sys.executable, "-c", "import vecdb"))
        help_s = median_of(lambda: process_s(sys.executable, "-m", "vecdb", "--help"))
        say("import vecdb, above an empty process", f"{import_s - bare_s:.3f} s")
        say("vecdb --help, the whole process", f"{help_s:.3f} s")
        opened_s, descriptors, disk_bytes = many_collections(Path(temporary) / "many")
        say(f"{COLLECTIONS:,} collections opened and counted", f"{opened_s:.2f} s")
        say("descriptors, at most; disk", f"{descriptors}; {disk_bytes / 2**20:.0f} MiB")
    say("load of the machine at the end", f"{os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
