"""All of storage together: kill -9 and a loss of power at the calls of a workload lose nothing acknowledged."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.storage import crash_workload
from tests.storage.faults import CountingFileSystem
from tests.storage.forgetful import ForgetfulFileSystem, PowerLoss, UnsyncedFileSystem
from vecdb.errors import VecdbError
from vecdb.storage import lmdb_store
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem


def wrong(root: Path, acknowledged: int) -> str | None:
    """What is wrong with a database of which ``acknowledged`` batches must be there, and the next one may be."""
    if not root.exists():
        return "no directory" if acknowledged else None
    try:
        store, log, batches = crash_workload.opened(MmapDirectory(root, FileSystem()))
    except VecdbError as error:
        return f"{type(error).__name__}: {error}"
    log.close()
    store.close()
    if len(batches) not in (acknowledged, acknowledged + 1):
        return f"{len(batches)} batches, {acknowledged} were acknowledged"
    if batches != {seq: crash_workload.content(seq) for seq in range(1, len(batches) + 1)}:
        return "other batches than were written"
    return None


def calls_of_the_workload(path: Path) -> int:
    fs = CountingFileSystem()
    crash_workload.run(path, fs, lambda _seq: None)
    return fs.total


def after_power_loss(tmp_path: Path, points: range, left_out: tuple[str, ...] = ()) -> list[str]:
    findings = []
    for n in points:
        root = tmp_path / f"run{n}"
        root.mkdir()
        fs = UnsyncedFileSystem(root, left_out=left_out, lose_at=n)
        acknowledged: list[int] = []
        try:
            crash_workload.run(root / "db", fs, acknowledged.append)
        except PowerLoss:
            pass
        except VecdbError as error:
            findings.append(f"{n}: {error}")
        finally:
            for environment in list(lmdb_store._registry.values()):
                while environment.handles:
                    environment.give_back()
        seed = None if n % 2 else n
        fs.materialise(tmp_path / f"left{n}", seed=seed)
        found = wrong(tmp_path / f"left{n}" / "db", len(acknowledged))
        if found:
            findings.append(f"call {n}, seed {seed}: {found}")
    return findings


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_loss_of_power_at_any_call_loses_no_acknowledged_batch(tmp_path: Path, step: int) -> None:
    calls = calls_of_the_workload(tmp_path / "counted")
    assert calls > 100
    assert after_power_loss(tmp_path, range(step, calls + 2, step)) == []


@pytest.mark.parametrize("left_out", ["fsync", "fdatasync", "fsync_directory"])
def test_leaving_a_sync_out_is_noticed(tmp_path: Path, left_out: str) -> None:
    assert after_power_loss(tmp_path, range(9, 90, 8), (left_out,)) != []


@pytest.mark.parametrize("points", [8, pytest.param(60, marks=pytest.mark.slow)])
def test_a_kill_at_any_call_loses_no_acknowledged_batch(tmp_path: Path, points: int) -> None:
    calls = calls_of_the_workload(tmp_path / "counted")
    surroundings = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    findings = []
    for n in range(1, calls, calls // points):
        root = tmp_path / str(n)
        command = [sys.executable, "-m", "tests.storage.crash_workload", str(root), str(n)]
        child = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False, timeout=60)
        assert child.returncode == -9, child.stderr
        found = wrong(root, len(child.stdout.split()))
        if found:
            findings.append(f"call {n}: {found}")
    assert findings == []


def test_the_double_keeps_what_was_synced_and_nothing_else(tmp_path: Path) -> None:
    fs = ForgetfulFileSystem(tmp_path)
    directory = MmapDirectory.open(tmp_path / "db", fs, create=True)
    directory.write_file("unsynced_name", b"x")
    fs.materialise(tmp_path / "one")
    assert list((tmp_path / "one" / "db").iterdir()) == []
    directory.sync()
    fd = fs.create(directory.path / "unsynced_content")
    fs.write(fd, [b"abc"], 0)
    fs.fsync_directory(directory.path)
    fs.materialise(tmp_path / "two")
    left = {path.name: path.read_bytes() for path in (tmp_path / "two" / "db").iterdir()}
    assert left == {"unsynced_name": b"x", "unsynced_content": b""}
    fs.fdatasync(fd)
    fs.close(fd)
    directory.unlink("unsynced_name")
    fs.materialise(tmp_path / "three")
    left = {path.name: path.read_bytes() for path in (tmp_path / "three" / "db").iterdir()}
    assert left == {"unsynced_name": b"x", "unsynced_content": b"abc"}
