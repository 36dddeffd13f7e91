"""``vecdb version``: what somebody who reads a bug report asks first."""

from __future__ import annotations

import argparse
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from vecdb.version import __version__

PACKAGES = ("numpy", "numba", "llvmlite", "lmdb", "xxhash", "lark", "protobuf", "grpcio", "wordllama")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(namespace: argparse.Namespace) -> int:
    """Print the versions."""
    facts = versions()
    if namespace.json:
        print(json.dumps(facts, indent=2))
        return 0
    from vecdb.cli.terminal import Terminal

    packages = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    Terminal().facts(
        [
            ("vecdb", f"{facts['vecdb']}, file format {facts['format']}"),
            ("python", f"{facts['python']} on {facts['platform']}"),
            ("packages", packages),
            ("kernels", facts["kernels"]),
            ("cpu features", ", ".join(facts["cpu_features"]) or "none in use"),
        ]
    )
    return 0


def versions() -> dict[str, Any]:
    """Versions of vecdb, its files, Python, the packages, and what the kernels use of the CPU."""
    from vecdb.engine.marker import FORMAT_VERSION
    from vecdb.kernels.cpu import CpuKernels
    from vecdb.kernels.cpu.target import TARGET

    present = set(TARGET.features.split(","))
    if TARGET.name == "avx512vnni":
        used = {"avx512f", "avx512bw", "avx512vl", "avx512vnni"}
    elif TARGET.name == "avxvnni":
        used = {"avx2", "avxvnni"}
    else:
        used = set()
    used |= {"fma"} if TARGET.fused else set()
    return {
        "vecdb": __version__,
        "format": FORMAT_VERSION,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: number for name in PACKAGES if (number := installed(name)) is not None},
        "kernels": CpuKernels().name,
        "cpu_features": sorted(used & present),
    }


def installed(package: str) -> str | None:
    """Version of a package, ``None`` where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
