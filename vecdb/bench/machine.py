"""What a figure was measured on: processor, memory, versions, commit and load.

No host name and no path is recorded: results are meant to be published.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from vecdb.bench.dataset import private_cache

PACKAGES = (
    "vecdb", "numpy", "numba", "llvmlite", "lmdb", "grpcio", "protobuf", "hnswlib", "faiss-cpu", "usearch",
    "scalable-vs", "rabitqlib", "pyvsag", "zvec", "h5py",
)  # fmt: skip

TELLING_FLAGS = ("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_fp16", "asimd", "sve")

THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS", "TOKIO_WORKER_THREADS", "LANCE_CPU_THREADS",
)  # fmt: skip
"""Read by libraries when they are loaded, so a measuring process gets them before it starts."""


def measuring_environment(threads: int = 1) -> dict[str, str]:
    """The environment of a measuring process: this one's, with every library held to so many threads.

    Bytecode is kept, as it is of an installed package: what runs from a clone would be compiled at every start where
    that is switched off.
    """
    held = dict.fromkeys(THREAD_VARIABLES, str(threads))
    own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    if len(own) < len(os.environ):
        own["PYTHONPYCACHEPREFIX"] = str(private_cache() / "bytecode")
    return {**own, **held, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONHASHSEED": "0"}


def machine() -> dict[str, Any]:
    """Processor, cores, memory and kernel, as JSON."""
    fields = _first_processor()
    flags = fields.get("flags", fields.get("Features", "")).split()
    return {
        "cpu_model": fields.get("model name", platform.processor() or platform.machine()),
        "cpu_family_model": f"{fields.get('cpu family', '?')}/{fields.get('model', '?')}",
        "cpu_flags": [flag for flag in TELLING_FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "cores_allowed": sorted(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "transparent_hugepages": _chosen(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str | None]:
    """Versions of the packages that a figure may depend on; ``None`` where one is not installed."""
    return {name: version_of(name) for name in PACKAGES}


def version_of(package: str) -> str | None:
    """The installed version of a package, or ``None``."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> dict[str, Any] | None:
    """The commit that vecdb runs from and whether files differ from it; ``None`` for an installed package."""
    git = shutil.which("git")
    package = Path(__file__).resolve().parents[1]
    if git is None or not (package.parent / ".git").exists():
        return None
    head = _git(git, package.parent, "rev-parse", "HEAD")
    changes = _git(git, package.parent, "status", "--porcelain", "--", "vecdb")
    if head is None or changes is None:
        return None
    return {"id": head.strip(), "modified": bool(changes.strip())}


def load_average() -> list[float]:
    """Runnable processes, averaged over 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def default_core() -> int:
    """The last core that this process may use: the first one serves most interrupts."""
    return max(os.sched_getaffinity(0))


def python_command(module: str) -> list[str]:
    """The command that runs a module of this installation in a new process."""
    return [sys.executable, "-m", module]


def _git(git: str, directory: Path, *arguments: str) -> str | None:
    done = subprocess.run([git, "-C", str(directory), *arguments], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def _first_processor() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _chosen(path: Path) -> str | None:
    """The word in brackets of a kernel setting."""
    try:
        text = path.read_text(encoding="ascii")
    except OSError:
        return None
    return text.partition("[")[2].partition("]")[0] or text.strip()
