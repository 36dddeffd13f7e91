"""What importing a package loads: vecdb and its client are light, seen from a fresh interpreter."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def loaded_by(module: str) -> set[str]:
    """The names in ``sys.modules`` after importing ``module`` in an interpreter of its own."""
    code = f"import sys, {module}; print('\\n'.join(sys.modules))"
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    return set(process.stdout.split())


def holds_code(package: str) -> bool:
    return any(path.stat().st_size for path in (ROOT / "vecdb" / package).rglob("*.py"))


def test_the_loaded_modules_are_seen():
    assert {"vecdb", "vecdb.storage", "lmdb"} <= loaded_by("vecdb.storage, lmdb")


def test_importing_vecdb_loads_nothing_heavy():
    assert loaded_by("vecdb").isdisjoint({"numba", "llvmlite", "lmdb", "grpc", "pyarrow", "lark"})


@pytest.mark.skipif(not holds_code("client"), reason="vecdb.client holds no code")
def test_importing_the_client_loads_neither_numba_nor_lmdb_nor_the_engine():
    loaded = loaded_by("vecdb.client")
    assert "vecdb.client" in loaded
    assert loaded.isdisjoint({"numba", "llvmlite", "lmdb", "pyarrow", "vecdb.engine", "vecdb.kernels", "vecdb.storage"})
