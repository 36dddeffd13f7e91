"""A process that searches a database under a budget and measures itself, by what the system says of its mappings.

Run as ``python -m tests.engine.budgeted PATH BUDGET KERNELS WARMED``; it prints one JSON object.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vecdb.api import Collection
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.options import EngineOptions

_FILE = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ +(/.*)\n(?:[A-Z].*\n){0,6}?Rss: +(\d+) kB$", re.MULTILINE)
_ANONYMOUS = re.compile(r"^RssAnon:\s+(\d+) kB$", re.MULTILINE)
SEED = 7


class Peak:
    """The most that was seen of this process's memory, in bytes, beyond what it had at first."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._first = self._anonymous()
        self.mapped = self.anonymous = self.both = 0

    def look(self) -> None:
        mappings = Path("/proc/self/smaps").read_text()
        mapped = 1024 * sum(int(size) for name, size in _FILE.findall(mappings) if name.startswith(self._path))
        anonymous = self._anonymous() - self._first
        self.mapped = max(self.mapped, mapped)
        self.anonymous = max(self.anonymous, anonymous)
        self.both = max(self.both, mapped + anonymous)

    def _anonymous(self) -> int:
        found = _ANONYMOUS.search(Path("/proc/self/status").read_text())
        assert found is not None
        return 1024 * int(found[1])


def queries(dim: int) -> np.ndarray:
    return np.random.default_rng(SEED).standard_normal((8, dim)).astype(np.float32)


def everything(collection: Collection, look: Callable[[], None]) -> list[list[object]]:
    """Every way of reading all of a collection; the ids that exact searches found."""
    asked = queries(collection.schema.vectors[0].dim)
    found: list[list[object]] = []
    for query in asked:
        found.append([*collection.search(query, recall="exact").ids])
        look()
        collection.search(query, k=20, with_vectors=True)
        look()
    for hits in collection.search_batch(asked, recall="exact"):
        found.append([*hits.ids])
    look()
    collection.search_batch(asked, k=50)
    look()
    for part in range(4):
        found.append([*collection.search(asked[0], where=f"part = {part}", recall="exact").ids])
        look()
    count = collection.count()
    chosen = np.random.default_rng(SEED).integers(0, count, 300).tolist()
    assert len(collection.get(chosen, with_vectors=True)) == 300
    look()
    page = collection.scroll_page(500, with_vectors=True)
    assert len(page.points) == 500
    look()
    return found


def main(path: str, budget: int, kernels: str, warmed: str) -> None:
    small = EmbeddedDatabase.open(Path(warmed), options=EngineOptions(kernels=kernels))
    collection = small.create_collection("c", 8)
    collection.upsert(range(600), np.random.default_rng(0).standard_normal((600, 8)), [{"part": 1}] * 600)
    collection.flush()
    collection.warm(with_vectors=True)
    everything(collection, lambda: None)
    small.close()
    peak = Peak(path)
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            peak.look()

    watching = threading.Thread(target=watch)
    options = EngineOptions(kernels=kernels, memory_budget_bytes=budget or None)
    with EmbeddedDatabase.open(path, options=options) as database:
        watching.start()
        collection = database.collection("c")
        report = collection.warm(with_vectors=True)
        peak.look()
        found = everything(collection, peak.look)
        stats = collection.stats()
        stop.set()
        watching.join()
    told = {
        "mapped": peak.mapped,
        "anonymous": peak.anonymous,
        "both": peak.both,
        "left_out": report.left_out_bytes,
        "resident": stats.memory.resident_bytes,
        "budget": stats.memory.budget_bytes,
        "releases": stats.memory.releases,
        "found": found,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
