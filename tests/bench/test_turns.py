"""A measuring process: its answers, its failures, and that none is left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.bench.small import QUERIES, K, small_dataset
from vecdb.bench.engines import BY_NAME, missing
from vecdb.bench.machine import measuring_environment
from vecdb.bench.run import lay_out
from vecdb.bench.turns import EngineFailed, EngineProcess
from vecdb.types import Metric

pytestmark = pytest.mark.skipif(missing(BY_NAME["hnswlib"]) is not None, reason="hnswlib is not installed")


def open_arguments(tmp_path, **changed):
    return {
        "engine": "hnswlib",
        "directory": str(tmp_path / "engine"),
        "data": str(tmp_path / "data"),
        "metric": "cosine",
        "seed": 0,
        "core": max(os.sched_getaffinity(0)),
        **changed,
    }


def started(tmp_path):
    lay_out(small_dataset(Metric.COSINE, tmp_path), tmp_path / "data")
    return EngineProcess("hnswlib", tmp_path / "engine")


def opened(tmp_path):
    process = started(tmp_path)
    process.ask("open", **open_arguments(tmp_path))
    return process


def test_from_open_to_close(tmp_path):
    with opened(tmp_path) as process:
        built = process.ask("build")
        assert built["seconds"] > 0
        assert built["cpu_seconds"] > 0
        rows_to = tmp_path / "rows.npy"
        search = {"k": K, "effort": 50, "queries": QUERIES, "seconds_min": 0.0, "rows_to": str(rows_to)}
        single = process.ask("search", mode="single", **search)
        assert single["queries"] == QUERIES
        assert 0 < single["latency_us_p50"] <= single["latency_us_p95"] <= single["latency_us_p99"]
        first = np.load(rows_to)
        batch = process.ask("search", mode="batch", **search)
        assert "latency_us_p50" not in batch
        np.testing.assert_array_equal(np.load(rows_to), first)
        assert process.ask("search", mode="batch", **{**search, "seconds_min": 0.05})["queries"] > QUERIES
        assert process.ask("disk")["bytes"] > 0
        assert set(process.ask("memory")) == {"anonymous_bytes", "own_file_bytes", "process_bytes"}


def test_what_an_engine_raises_is_told_and_the_process_goes_on(tmp_path):
    with started(tmp_path) as process:
        with pytest.raises(EngineFailed, match=r"hnswlib: open: .*no engine 'nosuch'"):
            process.ask("open", **open_arguments(tmp_path, engine="nosuch"))
        process.ask("open", **open_arguments(tmp_path))
        assert process.ask("build")["seconds"] > 0


def test_a_process_that_dies_is_told(tmp_path):
    with opened(tmp_path) as process:
        pid = process.pid
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(EngineFailed, match="status -9"):
            process.ask("build")


def test_no_process_is_left_behind(tmp_path):
    with opened(tmp_path) as process:
        pid = process.pid
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_a_library_prints_does_not_break_the_protocol(tmp_path, monkeypatch):
    (tmp_path / "hnswlib.py").write_text(
        "import os; print('hello'); os.write(1, b'hello'); raise RuntimeError('enough')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with started(tmp_path) as process, pytest.raises(EngineFailed, match="RuntimeError: enough"):
        process.ask("open", **open_arguments(tmp_path))


def test_measuring_processes_keep_bytecode_outside_the_sources(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    code = "import vecdb.errors, sys; print(sys.dont_write_bytecode, vecdb.errors.__cached__)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=measuring_environment(), capture_output=True, text=True, check=True
    )
    switched_off, cached = done.stdout.split()
    assert switched_off == "False"
    assert Path(cached).is_relative_to(tmp_path)
    assert Path(cached).exists()
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE")
    assert "PYTHONPYCACHEPREFIX" not in measuring_environment()
