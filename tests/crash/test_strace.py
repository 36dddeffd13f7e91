"""Faults that the kernel returns: a process under strace whose n-th system call of a kind fails, or kills it.

Here nothing of vecdb is replaced: what fails is the call itself, LMDB's own calls included. strace counts for each
thread by itself.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.acknowledging import NAME, OPTIONS, ROWS, rows_in
from tests.crash.forks import ROOT
from tests.trust import Trust
from vecdb.engine.check import check_database
from vecdb.engine.database import EmbeddedDatabase

WRITE = "pwritev,pwritev2"
"""Which of them is called is the C library's choice."""
CASES = [
    *(("P6", f"fdatasync:error=EIO:when={n}") for n in (3, 4, 9, 60, 150)),
    *(("P6", f"fsync:error=EIO:when={n}") for n in (5, 9)),
    *(("P1", f"fdatasync:signal=KILL:when={n}") for n in (4, 77)),
    *(("P1", f"{call}:signal=KILL:when={n}") for call, n in (("rename", 8), (WRITE, 55))),
]


@functools.cache
def unavailable() -> str:
    """Why nothing can be traced here; empty where it can."""
    strace = shutil.which("strace")
    if strace is None:
        return "strace is missing"
    tried = subprocess.run([strace, "-f", "true"], capture_output=True, text=True, check=False, timeout=60)
    return "" if tried.returncode == 0 else f"strace fails: {tried.stderr.strip()[-200:]}"


def under(injected: str, kind: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run a process that acknowledges rows under a fault."""
    call = injected.partition(":")[0]
    return subprocess.run(
        [
            # The filter makes every other call quick; signals are not delivered with it.
            *("strace", "-f", *(() if "signal" in injected else ("--seccomp-bpf",)), "-o", os.devnull),
            *("-e", f"trace={call}", "-e", f"inject={injected}"),
            *("timeout", "-s", "KILL", "30", sys.executable, "-m", "tests.crash.acknowledging", kind, str(path)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
    )


def acknowledged(path: Path, injected: str) -> tuple[list[int], str]:
    """The seqs that were acknowledged under the fault, and everything that was said."""
    done = under(injected, "once", path)
    seqs = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("ACK ")]
    assert seqs == list(range(1, len(seqs) + 1))
    return seqs, done.stdout + done.stderr


@pytest.mark.skipif(bool(unavailable()), reason=f"nothing can be traced here: {unavailable()}")
@pytest.mark.parametrize(("promise", "injected"), CASES, ids=[injected for _, injected in CASES])
def test_a_fault_of_the_kernel_loses_nothing(quick_directory: Path, trust: Trust, promise: str, injected: str) -> None:
    trust.points(promise, 1, told="under strace")
    path = quick_directory / "db"
    seqs, said = acknowledged(path, injected)
    # A sync of LMDB that fails stops the flushes; rows are still taken for as long as there is memory.
    assert len(seqs) < ROWS if "KILL" in injected else "Unavailable" in said, said
    with EmbeddedDatabase.open(path, options=OPTIONS) as database:
        found = rows_in(database) if NAME in database.collections() else set()
    assert found in (set(range(len(seqs))), set(range(len(seqs) + 1)))
    report = check_database(path)
    assert report.ok, report.problems


@pytest.mark.skipif(bool(unavailable()), reason=f"nothing can be traced here: {unavailable()}")
@pytest.mark.parametrize(
    "injected",
    [
        f"{WRITE}:error=ENOSPC:when=20+3",
        "fallocate:error=ENOSPC:when=2+",
        *(
            pytest.param(f"{call}:error=ENOSPC:when={when}", marks=pytest.mark.slow)
            for call, when in itertools.product(
                (WRITE, "fallocate", "ftruncate", "rename", "pwrite64", "mkdir"),
                ("1", "2", "3", "7", "40", "2+2", "3+3", "5+5", "1+", "3+", "4+", "6+", "9+", "50+"),
            )
        ),
    ],
)
def test_a_disk_that_is_full_once_again_and_again_or_for_ever_ends_nothing_late(
    quick_directory: Path, trust: Trust, injected: str
) -> None:
    """What was acknowledged is there, what was refused is not, and the process comes to its end."""
    trust.points("P5", 1, told="under strace")
    path = quick_directory / "db"
    done = under(injected, "refused", path)
    said = [line.split() for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert said[-1] == ["END"]
    told = {kind: {int(each[-1]) for each in said if each[0] == kind} for kind in ("ACK", "REFUSED", "UNKNOWN")}
    assert len(told["UNKNOWN"]) <= 1
    with EmbeddedDatabase.open(path, options=OPTIONS) as database:
        found = rows_in(database) if NAME in database.collections() else set()
    assert found - told["UNKNOWN"] == told["ACK"], (told, done.stderr)
    report = check_database(path)
    assert report.ok, report.problems
