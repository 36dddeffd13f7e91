"""Two states of the source beside each other: what a change costs or gains in writing and searching.

``python bench/against.py HEAD~20`` checks that commit out into a directory of its own, runs the same work with either
source in processes that take turns, and prints the medians and their ratio. The work uses only what both have.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
BATCH_ROWS = 1_000
SINGLE_WRITES = 3_000
DELETED_ROWS = 10_000
SEARCH_ROUNDS = 5
IDLE_S = 1.0
K = 10


def work(path: Path, data: Path, metric: str) -> dict[str, float]:
    """What one process measures, with the vecdb that it imports."""
    import vecdb

    vectors, queries = np.load(data / "vectors.npy"), np.load(data / "queries.npy")
    found: dict[str, float] = {}
    with vecdb.open(path) as database:
        database.kernels.warm_up()
        collection = database.create_collection("work", dim=vectors.shape[1], metric=metric)

        start = time.perf_counter()
        for at in range(0, len(vectors), BATCH_ROWS):
            part = vectors[at : at + BATCH_ROWS]
            ids = range(at, at + len(part))
            collection.upsert(ids, part, [{"title": f"row {each}", "at": each} for each in ids])
        found["upserts/s, batches of 1,000"] = len(vectors) / (time.perf_counter() - start)
        collection.wait_indexed()
        found["rows/s to fully indexed"] = len(vectors) / (time.perf_counter() - start)

        start = time.perf_counter()
        for each in range(SINGLE_WRITES):
            collection.upsert([each], vectors[each : each + 1], [{"title": f"row {each}", "at": each}])
        found["upserts/s, one by one"] = SINGLE_WRITES / (time.perf_counter() - start)

        start = time.perf_counter()
        for at in range(0, DELETED_ROWS, 10):
            collection.delete(range(at, at + 10))
        found["deletes/s, by ten"] = DELETED_ROWS / (time.perf_counter() - start)

        collection.flush()
        collection.wait_indexed()
        settle()
        found["segments"] = collection.stats().segments
        for name, ef in (("default", None), ("ef=64", 64)):
            answers = [collection.search(query, k=K, ef=ef) for query in queries]
            rounds = []
            for _ in range(SEARCH_ROUNDS):
                start = time.perf_counter()
                for query in queries:
                    collection.search(query, k=K, ef=ef)
                rounds.append(len(queries) / (time.perf_counter() - start))
            found[f"searches/s, {name}"] = statistics.median(rounds)
            exact = collection.search_batch(queries, k=K, recall="exact")
            same = [len(set(a.ids) & set(b.ids)) for a, b in zip(answers, exact, strict=True)]
            found[f"recall@10, {name}"] = float(np.mean(same)) / K
    start = time.perf_counter()
    with vecdb.open(path) as database:
        database.collection("work").search(queries[0], k=K)
        found["opened and answered, ms"] = (time.perf_counter() - start) * 1e3
    return found


def settle() -> None:
    """Return when the background has nothing left to do: this process uses no processor any more."""
    while True:
        start = time.process_time()
        time.sleep(IDLE_S)
        if time.process_time() - start < 0.05 * IDLE_S:
            return


def in_process(source: Path, *arguments: str) -> dict[str, float]:
    """``work`` in a process that imports vecdb from ``source``."""
    environment = os.environ | {"PYTHONPATH": str(source)}
    command = [sys.executable, __file__, "work", *arguments]
    ended = subprocess.run(command, env=environment, cwd=source, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(ended.stdout)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["work"]:
        sys.stdout.write(json.dumps(work(Path(given[1]), Path(given[2]), given[3])))
        return 0
    parser = argparse.ArgumentParser(prog="python bench/against.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("commit", help="what the present source is compared with, as git names it")
    parser.add_argument("--dataset", default="clustered-384-cosine-100k", help="as for vecdb bench")
    parser.add_argument("--rows", type=int, help="only the first rows of the data set")
    parser.add_argument("--turns", type=int, default=3, help="how often each is measured (default 3)")
    chosen = parser.parse_args(given)

    from vecdb.bench.sources import source_of

    source = source_of(chosen.dataset, seed=0)
    found: dict[str, list[dict[str, float]]] = {"before": [], "now": []}
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        np.save(scratch / "vectors.npy", source.train[: chosen.rows])
        np.save(scratch / "queries.npy", source.queries[:1_000])
        (scratch / "before").mkdir()
        git = shutil.which("git")
        assert git is not None, "git is missing"
        packed = subprocess.run([git, "archive", chosen.commit], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(scratch / "before", filter="data")
        sources = {"before": scratch / "before", "now": ROOT}
        for turn in range(chosen.turns):
            # Who goes first changes, as what runs second finds a warmer machine.
            for name in sorted(sources, reverse=bool(turn % 2)):
                with tempfile.TemporaryDirectory(dir=scratch) as path:
                    found[name].append(in_process(sources[name], path, temporary, source.metric.value))
    sys.stdout.write(f"{'':30} {'before':>12} {'now':>12} {'now/before':>11}\n")
    for what in found["now"][0]:
        medians = {name: statistics.median(each[what] for each in runs) for name, runs in found.items()}
        ratio = statistics.median(
            now[what] / before[what] for before, now in zip(found["before"], found["now"], strict=True)
        )
        sys.stdout.write(f"{what:30} {medians['before']:12,.3f} {medians['now']:12,.3f} {ratio:11.3f}\n")
    sys.stdout.write(f"load of the machine at the end {os.getloadavg()[0]:.1f}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
