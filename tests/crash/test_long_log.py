"""Recovery of a long log: killed again and again it arrives all the same, and needs no more memory than writing does.

Beside it: what a cap on memory and a device that fails for real do to a process, seen from outside.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash.forks import ROOT, Forks
from tests.crash.history import SCHEMA, State, applied, batch
from tests.crash.observe import differences, observe
from tests.crash.workload import NAME, OPTIONS, hand_over
from vecdb.engine.database import EmbeddedDatabase, choose_kernels

SEED = 52
BATCHES = 120


@pytest.fixture
def long_log(quick_directory: Path) -> tuple[Path, State]:
    """What a killed process leaves whose rows were all in memory, and the model of it."""
    state: State = {}
    roomy = replace(OPTIONS, memtable_size_bytes=2**24)
    kernels = choose_kernels("reference")
    with EmbeddedDatabase.open(quick_directory / "running", options=roomy, kernels=kernels) as database:
        collection = database.create_collection(NAME, schema=SCHEMA)
        for number in range(BATCHES):
            hand_over(collection, batch(SEED, 0, number))
            state = applied(state, batch(SEED, 0, number))
        shutil.copytree(quick_directory / "running", quick_directory / "db")
    return quick_directory / "db", state


def test_a_recovery_that_is_killed_again_and_again_loses_nothing(
    servers: Forks, long_log: tuple[Path, State], quick_directory: Path
) -> None:
    path, state = long_log
    shutil.copytree(path, quick_directory / "counted")
    calls = servers.map(
        lambda server, place: server.call("recover_log_until_killed", str(place), 10**9), [quick_directory / "counted"]
    )[0].result
    assert calls > 150
    for start in (2, 17, 40):
        shutil.copytree(path, quick_directory / f"killed-{start}")
        here = quick_directory / f"killed-{start}"
        for turn in range(5):
            ended = servers.map(
                lambda server, kill_at, here=here: server.call("recover_log_until_killed", str(here), kill_at),
                [start + 13 * turn],
            )[0]
            assert ended.status == -9, ended
        with EmbeddedDatabase.open(here, options=OPTIONS, kernels=choose_kernels("reference")) as database:
            collection = database.collection(NAME)
            found = differences(observe(collection, [0]), state)
            assert not found, (start, found)
            assert collection.stats().last_seq == len([n for n in range(BATCHES) if changed(n)])


def changed(number: int) -> bool:
    """Whether a batch of the history changes anything."""
    return number in _CHANGING


def _changing() -> set[int]:
    state: State = {}
    found = set()
    for number in range(BATCHES):
        each = batch(SEED, 0, number)
        after = applied(state, each)
        if each.points or after.keys() != state.keys():
            found.add(number)
        state = after
    return found


_CHANGING = _changing()

CHILD = """
import json, resource, sys
import numpy as np
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.options import EngineOptions
from vecdb.errors import VecdbError

path, cap_bytes, rows, options = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
told = {"acknowledged": 0, "errors": []}
vectors = np.random.default_rng(3).standard_normal((500, 64)).astype(np.float32)

def used():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()

def tell():
    print(json.dumps(told), flush=True)

database = EmbeddedDatabase.open(path, options=EngineOptions(kernels="reference", **options))
if cap_bytes:
    limit = used() + cap_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
collection = database.create_collection("docs", 64, exist_ok=True)
told["found"] = collection.count()
for start in range(0, rows, 500):
    try:
        collection.upsert(range(start, start + 500), vectors, [{"n": start}] * 500)
    except VecdbError as error:
        told["errors"].append(type(error).__name__)
        if len(told["errors"]) > 3:
            break
    else:
        told["acknowledged"] = start + 500
try:
    told["searched"] = len(collection.search(vectors[0], k=5))
except VecdbError as error:
    told["searched"] = type(error).__name__
told["counted"] = collection.count()
told["events"] = dict(collection.stats().events)
tell()
database.close()
"""


def in_child(
    path: Path, *, cap_bytes: int = 0, rows: int = 0, prefix: Sequence[str] = (), check: bool = True, **options: int
) -> dict[str, object]:
    """Run the child above; what it told."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "PYTHONPATH": str(ROOT)}
    arguments = [str(path), str(cap_bytes), str(rows), json.dumps(options)]
    ended = subprocess.run(
        [*prefix, sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, env=environment, timeout=120
    )
    assert ended.stdout, ended.stderr
    assert not check or ended.returncode == 0, ended.stderr
    told: dict[str, object] = json.loads(ended.stdout.splitlines()[0])
    return told


def test_under_a_cap_on_memory_writes_are_refused_and_nothing_dies(quick_directory: Path) -> None:
    # All rows stay in memory, of which the system gives only so much.
    told = in_child(quick_directory / "db", cap_bytes=220 * 2**20, rows=300_000, memtable_size_bytes=2**30)
    assert set(told["errors"]) == {"ResourceExhausted"}, told
    assert told["counted"] == told["acknowledged"] > 10_000
    assert told["searched"] in (5, "ResourceExhausted")
    events = told["events"]
    assert events["write_refused_memory"] >= 1
    assert "writer_stopped" not in events
    # A cap far below what the rows took: recovery writes them out on the way.
    reopened = in_child(quick_directory / "db", cap_bytes=160 * 2**20, memtable_size_bytes=2**20)
    assert reopened["found"] == told["acknowledged"]
    assert reopened["events"]["flushes"] >= 5


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("at", [6, 9, 14])
def test_a_sync_that_fails_in_the_system_is_not_acknowledged(tmp_path: Path, at: int) -> None:
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject=fdatasync:error=EIO:when={at}"]
    probe = subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"strace cannot trace here: {probe.stderr.strip()}")
    told = in_child(tmp_path / "db", rows=10_000, prefix=strace, check=False)
    assert told["acknowledged"] < 10_000
    assert set(told["errors"]) == {"Unavailable"}, told
    assert told["counted"] == told["acknowledged"]
    assert told["events"]["writer_stopped"] == 1
    reopened = in_child(tmp_path / "db")
    # What was in flight is there or not.
    assert reopened["found"] in (told["acknowledged"], told["acknowledged"] + 500)
