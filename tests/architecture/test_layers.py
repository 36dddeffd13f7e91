"""The layers hold, and a planted violation of each contract is caught under the contract's name.

The contracts are those of pyproject.toml. A violation is planted in a copy of the package, in modules of its own, so
that the tests do not depend on what the real modules import.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")

LAYERS = "One way down: every package has a layer, and imports point down"
ACYCLIC = "No cycles inside a package"
CUPY = "cupy only in vecdb.kernels.gpu"
LMDB = "lmdb only in vecdb.storage.lmdb_*"
GRPC = "grpc only in vecdb.service and vecdb.client"
GRPC_BELOW = "The engine and all below it reach grpc by no path"
THIN_CLIENT = "The client is thin: no path to numba, lmdb or the engine"
CONTRACTS = {LAYERS, ACYCLIC, CUPY, LMDB, GRPC, GRPC_BELOW, THIN_CLIENT}


def verdicts(root: Path) -> tuple[dict[str, bool], str]:
    """Whether each contract is kept in the tree at ``root``, and all that import-linter printed."""
    process = subprocess.run(
        [LINT_IMPORTS, "--no-cache"],
        cwd=root,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    text = process.stdout + process.stderr
    found = {}
    for line in text.splitlines():
        for name in CONTRACTS:
            for verdict in ("KEPT", "BROKEN"):
                if line.startswith(f"{name} {verdict}"):
                    found[name] = verdict == "KEPT"
    assert (process.returncode == 0) == all(found.values()), text
    return found, text


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package and of its contracts."""
    shutil.copytree(ROOT / "vecdb", tmp_path / "vecdb", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def plant(root: Path, modules: dict[str, str]) -> None:
    """Write each module, named by its path inside the package."""
    for name, code in modules.items():
        path = root / "vecdb" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'"""Planted."""\n{code}\n', encoding="utf-8")


def test_the_contracts_are_kept():
    found, text = verdicts(ROOT)
    assert found == dict.fromkeys(CONTRACTS, True), text


VIOLATIONS = {
    "storage imports engine": (
        {"storage/planted.py": "import vecdb.engine"},
        {LAYERS},
        "vecdb.storage.planted -> vecdb.engine",
    ),
    "storage imports engine inside a function": (
        {"storage/planted.py": "def f():\n    from vecdb import engine"},
        {LAYERS},
        "vecdb.storage.planted -> vecdb.engine",
    ),
    "kernels imports storage": (
        {"kernels/planted.py": "import vecdb.storage"},
        {LAYERS},
        "vecdb.kernels.planted -> vecdb.storage",
    ),
    "service imports client": (
        {"service/planted.py": "import vecdb.client"},
        {LAYERS},
        "vecdb.service.planted -> vecdb.client",
    ),
    "types imports filter, for types only": (
        {"filter.py": "", "types.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import vecdb.filter"},
        {LAYERS},
        "vecdb.types -> vecdb.filter",
    ),
    "a package that nobody placed": (
        {"planted/__init__.py": ""},
        {LAYERS},
        "vecdb.planted",
    ),
    "two modules that import each other": (
        {
            "storage/planted_a.py": "import vecdb.storage.planted_b",
            "storage/planted_b.py": "import vecdb.storage.planted_a",
        },
        {ACYCLIC},
        "planted_a",
    ),
    "index imports cupy": (
        {"index/planted.py": "import cupy"},
        {CUPY},
        "vecdb.index.planted -> cupy",
    ),
    "cpu kernels import cupy": (
        {"kernels/cpu/planted.py": "from cupy import cuda"},
        {CUPY},
        "vecdb.kernels.cpu.planted -> cupy",
    ),
    "engine imports lmdb": (
        {"engine/planted.py": "import lmdb"},
        {LMDB},
        "vecdb.engine.planted -> lmdb",
    ),
    "another module of storage imports lmdb": (
        {"storage/planted.py": "import lmdb"},
        {LMDB},
        "vecdb.storage.planted -> lmdb",
    ),
    "query imports grpc": (
        {"query/planted.py": "import grpc"},
        {GRPC, GRPC_BELOW},
        "vecdb.query.planted -> grpc",
    ),
    "cli imports a standard service of grpc": (
        {"cli/planted.py": "from grpc_health.v1 import health"},
        {GRPC},
        "vecdb.cli.planted -> grpc_health",
    ),
    "wire uses the generated stubs": (
        {"v1/planted_pb2_grpc.py": "import grpc", "wire/planted.py": "from vecdb.v1 import planted_pb2_grpc"},
        {GRPC_BELOW},
        "vecdb.wire.planted -> vecdb.v1.planted_pb2_grpc",
    ),
    "client reaches numba by way of wire": (
        {"client/planted.py": "import vecdb.wire.planted", "wire/planted.py": "import numba"},
        {THIN_CLIENT},
        "vecdb.wire.planted -> numba",
    ),
    "client imports lmdb": (
        {"client/planted.py": "import lmdb"},
        {LMDB, THIN_CLIENT},
        "vecdb.client.planted -> lmdb",
    ),
    "client imports engine inside a function": (
        {"client/planted.py": "def f():\n    import vecdb.engine"},
        {THIN_CLIENT},
        "vecdb.client.planted -> vecdb.engine",
    ),
}


@pytest.mark.parametrize(("modules", "broken", "named"), VIOLATIONS.values(), ids=VIOLATIONS.keys())
def test_a_planted_violation_is_caught_by_name(copy: Path, modules: dict[str, str], broken: set[str], named: str):
    plant(copy, modules)
    found, text = verdicts(copy)
    assert {name for name, kept in found.items() if not kept} == broken, text
    assert named in text


def test_what_the_layers_allow_passes(copy: Path):
    plant(
        copy,
        {
            "kernels/gpu/planted.py": "import cupy",
            "storage/lmdb_store.py": "import lmdb",
            "v1/planted_pb2_grpc.py": "import grpc",
            "service/planted.py": "import grpc_status\nimport vecdb.engine\nimport vecdb.v1.planted_pb2_grpc",
            "client/planted.py": "import grpc\nimport vecdb.wire\nimport vecdb.v1.planted_pb2_grpc",
            "engine/planted.py": "import vecdb.storage\nimport vecdb.kernels\nimport vecdb.query",
            "cli/planted.py": "import vecdb\nimport vecdb.engine\nimport vecdb.bench",
        },
    )
    found, text = verdicts(copy)
    assert found == dict.fromkeys(CONTRACTS, True), text
