"""Generates ``vecdb/v1`` from ``proto/vecdb/v1``, into any folder.

What is written is a function of the .proto files and of the version of grpcio-tools, so that two runs can be compared
byte for byte. Only .proto files that declare a service get a ``_pb2_grpc`` module.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PROTO = Path(__file__).resolve().parent
PACKAGE = Path("vecdb") / "v1"
PATTERNS = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "__init__.py")
"""Names of generated files: whatever matches belongs to the generator, which also removes it."""

_INIT = '"""Messages and stubs generated from proto/vecdb/v1; change them there and run `make proto`."""\n'
_SERVICE = re.compile(r"^service\s+\w+", re.MULTILINE)


def sources(proto: Path = PROTO) -> list[Path]:
    """The .proto files, in order of name."""
    return sorted((proto / PACKAGE).glob("*.proto"))


def generated(root: Path) -> list[Path]:
    """The generated files under ``root``, in order of name."""
    return sorted({path for pattern in PATTERNS for path in (root / PACKAGE).glob(pattern)})


def protoc(*arguments: str) -> None:
    """Run the compiler that comes with grpcio-tools; its message, if it fails, goes to standard error."""
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", *arguments], check=True)


def generate(root: Path) -> None:
    """Write the package ``vecdb/v1`` under ``root``, which does not hold it yet."""
    root.joinpath(PACKAGE).mkdir(parents=True)
    root.joinpath(PACKAGE, "__init__.py").write_text(_INIT, encoding="utf-8")
    protos = sources()
    protoc(f"--python_out={root}", f"--pyi_out={root}", *map(str, protos))
    services = [path for path in protos if _SERVICE.search(path.read_text(encoding="utf-8"))]
    if services:
        protoc(f"--grpc_python_out={root}", *map(str, services))


def replace(root: Path) -> None:
    """Make the generated files under ``root`` what is generated now; files that are up to date are not touched."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = {path.relative_to(folder): path.read_bytes() for path in generated(Path(folder))}
    root.joinpath(PACKAGE).mkdir(parents=True, exist_ok=True)
    for path in generated(root):
        if path.relative_to(root) not in fresh:
            path.unlink()
    for name, content in fresh.items():
        target = root / name
        if not target.exists() or target.read_bytes() != content:
            target.write_bytes(content)


def main() -> int:
    """Generate into the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="the folder that holds, or will hold, vecdb/v1")
    replace(parser.parse_args().root.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
