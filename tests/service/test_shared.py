"""A directory that a server owns: who else wants to write is told where to ask, and anybody may read it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import vecdb
from vecdb.errors import FailedPrecondition

READING = vecdb.EngineOptions(kernels="reference")


@contextmanager
def served(path: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process as the command line starts it, and its address."""
    command = [sys.executable, "-m", "vecdb", "serve", str(path), "--address", "127.0.0.1:0", "--no-warm-up", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert f"serves {path} on 127.0.0.1:" in line
        try:
            yield process, line.split()[-1]
        finally:
            process.kill()


def test_a_directory_that_a_server_owns_says_how_to_connect_and_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "kb"
    with served(path) as (process, address):
        with vecdb.connect(address) as client:
            docs = client.create_collection("docs", dim=2, metric="l2")
            docs.upsert([1, 2], [[1, 0], [0, 1]], [{"a": 1}, {"a": 2}])
        with pytest.raises(FailedPrecondition, match=f"process {process.pid} on .*: connect to {address}") as refused:
            vecdb.open(path)
        told = refused.value.message.rpartition("connect to ")[2]
        with vecdb.connect(told) as client, vecdb.open(path, options=READING, read_only=True) as reading:
            seen = reading.collection("docs")
            assert seen.search([1, 0], k=2).ids == [1, 2]
            client.collection("docs").upsert([3], [[1, 1]])
            assert seen.count() == 2
            seen.refresh()
            assert seen.count() == 3
            command = [sys.executable, "-m", "vecdb", "stats", str(path), "--json"]
            shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            assert json.loads(shown)["docs"]["points"] == 3
        process.kill()
        process.wait()
        vecdb.open(path, options=READING).close()


def test_a_server_can_serve_the_reads_of_what_another_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "kb"
    with vecdb.open(path, options=READING) as writer:
        docs = writer.create_collection("docs", dim=2, metric="l2")
        docs.upsert([1], [[1, 0]])
        with (
            served(path, "--read-only", "--refresh-interval-s", "0.02") as (_process, address),
            vecdb.connect(address) as client,
        ):
            seen = client.collection("docs")
            assert seen.search([1, 0], k=1).ids == [1]
            result = docs.upsert([2], [[0, 1]])
            assert seen.search([0, 1], k=1, read_after_seq=result.seq).ids == [2]
            docs.upsert([3], [[5, 5]])
            writer.create_collection("new", dim=2)
            deadline = time.monotonic() + 60
            while seen.count() < 3 or list(client.collections()) != ["docs", "new"]:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            for call in (
                lambda: seen.upsert([4], [[0, 0]]),
                lambda: seen.delete([1]),
                seen.flush,
                lambda: client.create_collection("other", dim=2),
                lambda: client.drop_collection("docs"),
            ):
                with pytest.raises(FailedPrecondition, match="read_only=True"):
                    call()
        assert docs.count() == 3


@pytest.mark.parametrize("interval", [0, -1, 1e9])
def test_a_bad_interval_names_the_limit(interval: float) -> None:
    from vecdb.service import ServeOptions

    with pytest.raises(vecdb.errors.InvalidArgument, match="refresh_interval_s"):
        ServeOptions(Path("kb"), read_only=True, refresh_interval_s=interval)
