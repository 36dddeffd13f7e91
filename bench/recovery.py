"""What opening takes after a kill -9, with a log of a given length that was not flushed: seconds and memory.

``python bench/recovery.py --log-mib 1024`` writes until the log is so long, in batches of each of ``--batch-rows``, is
killed, and opens the directory in a new process. Beside it: the memory that writing takes when nothing is killed. Exit
status 1 where rows are missing, or opening took longer or more memory than promise 13 allows.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import vecdb
from vecdb.api import Collection
from vecdb.engine.options import EngineOptions

NAME = "recovery"
LOG_BYTES_PER_S = 100e6
SECONDS_BASE = 1.0
MEMORY_TIMES = 2.0
DRAWN_ROWS = 10_000
NORMAL_ROWS_MAX = 200_000


@dataclass(frozen=True)
class Measured:
    """What was found for one size of batches.

    Attributes
    ----------
    seconds, seconds_allowed
        From opening the database until the collection answers, and what promise 13 allows for the log.
    memory_bytes, memory_bytes_writing
        Peak of the anonymous memory when opening, and when rows are written, at most ``NORMAL_ROWS_MAX``, and indexed.
    """

    batch_rows: int
    rows: int
    rows_found: int
    log_bytes: int
    seconds: float
    seconds_allowed: float
    memory_bytes: int
    memory_bytes_writing: int

    @property
    def kept(self) -> bool:
        """Whether the promise was."""
        return (
            self.rows == self.rows_found
            and self.seconds <= self.seconds_allowed
            and self.memory_bytes <= MEMORY_TIMES * self.memory_bytes_writing
        )


class Peak:
    """The most anonymous memory that this process was seen with, asked every 10 ms.

    Pages of mapped segments are not in it: they belong to the system, which takes them back when it needs them.
    """

    def __init__(self) -> None:
        self.size_bytes = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    self.size_bytes = max(self.size_bytes, int(line.split()[1]) * 1024)
            time.sleep(0.01)


def write(collection: Collection, dim: int, batch_rows: int, *, rows: int = 0, log_bytes: int = 0) -> int:
    """Write so many rows, or until the log is so long; how many."""
    drawn = np.random.default_rng(0).standard_normal((DRAWN_ROWS, dim)).astype(np.float32)
    first = 0
    while first < rows or collection.stats().log_bytes < log_bytes:
        for _ in range(max(1, DRAWN_ROWS // batch_rows // 10)):
            ids = range(first, first + batch_rows)
            at = first % (DRAWN_ROWS - batch_rows + 1)
            collection.upsert(ids, drawn[at : at + batch_rows], [{"title": f"row {each}", "at": each} for each in ids])
            first += batch_rows
    return first


def child_writes(path: Path, dim: int, batch_rows: int, rows: int) -> None:
    """Write with the defaults, and tell the memory that took."""
    peak = Peak()
    with vecdb.open(path) as database:
        write(database.create_collection(NAME, dim=dim), dim, batch_rows, rows=rows)
        tell(memory_bytes=peak.size_bytes)


def child_is_killed(path: Path, dim: int, batch_rows: int, log_bytes: int) -> None:
    """Write rows of which none is flushed, and be killed."""
    options = EngineOptions(memtable_size_bytes=2**40, memory_size_bytes_max=2**41)
    with vecdb.open(path, options=options) as database:
        collection = database.create_collection(NAME, dim=dim)
        rows = write(collection, dim, batch_rows, log_bytes=log_bytes)
        tell(rows=rows, log_bytes=collection.stats().log_bytes)
        os.kill(os.getpid(), signal.SIGKILL)


def child_opens(path: Path) -> None:
    """Open with the defaults."""
    peak = Peak()
    start = time.perf_counter()
    with vecdb.open(path) as database:
        rows = database.collection(NAME).count()
        tell(rows=rows, seconds=time.perf_counter() - start, memory_bytes=peak.size_bytes)
        os._exit(0)  # What the background does next is not asked for.


CHILDREN: dict[str, Callable[..., None]] = {"writes": child_writes, "is-killed": child_is_killed, "opens": child_opens}


def tell(**facts: float) -> None:
    """A line for the parent."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def told_by(child: str, path: Path, *numbers: int) -> dict[str, float]:
    """What a child process tells."""
    command = [sys.executable, __file__, "child", child, str(path), *map(str, numbers)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    wanted = -signal.SIGKILL if child == "is-killed" else 0
    if ended.returncode != wanted:
        raise SystemExit(f"the process that {child} ended with {ended.returncode}")
    facts: dict[str, float] = json.loads(ended.stdout)
    return facts


def measured(path: Path, dim: int, batch_rows: int, log_bytes: int) -> Measured:
    """Write, kill, open."""
    killed = told_by("is-killed", path / "killed", dim, batch_rows, log_bytes)
    opened = told_by("opens", path / "killed")
    rows = int(killed["rows"])
    written = told_by("writes", path / "written", dim, batch_rows, min(rows, NORMAL_ROWS_MAX))
    return Measured(
        batch_rows,
        rows,
        int(opened["rows"]),
        int(killed["log_bytes"]),
        round(opened["seconds"], 2),
        round(SECONDS_BASE + killed["log_bytes"] / LOG_BYTES_PER_S, 2),
        int(opened["memory_bytes"]),
        int(written["memory_bytes"]),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; the exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["child"]:
        CHILDREN[given[1]](Path(given[2]), *map(int, given[3:]))
        return 0
    parser = argparse.ArgumentParser(prog="python bench/recovery.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--log-mib", type=int, default=1_024, help="length of the log in MiB (default 1024)")
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--batch-rows", type=int, nargs="+", default=[1_000], help="rows of a write")
    parser.add_argument("--scratch", type=Path, help="where the databases are made and removed again")
    chosen = parser.parse_args(given)
    kept = True
    for batch_rows in chosen.batch_rows:
        with tempfile.TemporaryDirectory(dir=chosen.scratch) as path:
            found = measured(Path(path), chosen.dim, batch_rows, chosen.log_mib * 2**20)
        kept &= found.kept
        sys.stdout.write(json.dumps({**asdict(found), "kept": found.kept, "load": os.getloadavg()[0]}) + "\n")
        sys.stdout.flush()
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
