"""Tests in several processes at once (pytest-xdist): how many, and the kernels compiled before the first starts.

Each worker would compile the same kernels for itself at the same time. So they are compiled by the process that starts
the workers, for both instruction sets that the tests run, side by side; the workers find them in the cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKERS_MAX = 2
INSTRUCTION_SETS = ("auto", "portable")

ROOT = Path(__file__).parent.parent


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """``-n auto``: two, where this process may use two cores; otherwise none, and the tests run in this process."""
    cores = len(os.sched_getaffinity(0))
    return min(cores, WORKERS_MAX) if cores > 1 else 0


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile what is not compiled yet before workers are started; nothing in a worker, or where there are none."""
    if os.environ.get("PYTEST_XDIST_WORKER") or not session.config.getoption("numprocesses", None):
        return
    # The workers and their children use the cores already; each process would start as many threads as there are cores.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    compiling = [
        subprocess.Popen(
            [sys.executable, "-m", "vecdb", "warmup"],
            cwd=ROOT,
            env=os.environ | {"VECDB_CPU": each},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for each in INSTRUCTION_SETS
    ]
    # What cannot be compiled is told by the tests that need it.
    for each in compiling:
        each.wait()
