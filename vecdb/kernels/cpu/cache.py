"""The private directory of compiled kernels, and the two decorators that compile them.

A compiled kernel is code that gets executed, so the directory belongs to the user alone (mode 0700; one that others may
write to is not used). Its name carries a digest of every kernel source, the compiler's versions and the CPU features,
because Numba alone would serve a stale caller after a callee in another file changed. Nothing compiles at import.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.caching import FunctionCache
from numba.core.runtime import rtsys

from vecdb.kernels.cpu.target import TARGET, Target

logger = logging.getLogger(__name__)

VARIABLE = "VECDB_CACHE_DIR"
_FASTMATH = {"contract", "reassoc"}
_SOURCES = (*sorted(Path(__file__).parent.glob("*.py")), Path(__file__).parent.parent / "arrays.py")
"""Every file whose text a kernel is compiled from: the layout of arrays has constants that are compiled in."""


def sources_digest(sources: Iterable[Path], target: Target) -> str:
    """Digest (32 hex digits) of the given files, the compiler and the target."""
    digest = hashlib.sha256()
    for source in sources:
        content = source.read_bytes()
        digest.update(f"{source.name}\0{len(content)}\0".encode())
        digest.update(content)
    facts = (numba.__version__, llvmlite.__version__, target.name, target.features, str(numba.config.OPT))
    digest.update("\0".join(facts).encode())
    return digest.hexdigest()[:32]


def default_root() -> Path:
    """``VECDB_CACHE_DIR``, or ``vecdb`` under the user's cache directory."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "vecdb"


def private_directory(root: Path, digest: str) -> Path | None:
    """``root/kernels-<digest>``, mode 0700, made if missing; None where it cannot be made or is not the user's own."""
    path = root / f"kernels-{digest}"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError:
        return None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        return None
    return path


try:
    DIRECTORY = private_directory(default_root(), sources_digest(_SOURCES, TARGET))
except RuntimeError:  # no home directory to be found
    DIRECTORY = None


def kernel(function: Callable[..., Any]) -> Any:
    """Compile on first call, without the GIL, and keep the result in the private directory where there is one."""
    return _compiled(function, _FASTMATH)


def exact_kernel(function: Callable[..., Any]) -> Any:
    """As ``kernel``, with float arithmetic operation by operation as it is written: what it gives is stored."""
    return _compiled(function, set())


def _compiled(function: Callable[..., Any], fastmath: set[str]) -> Any:
    compiled = numba.njit(nogil=True, fastmath=fastmath, error_model="numpy")(function)
    if DIRECTORY is None:
        return compiled
    # Numba reads the setting when a cache is made; other users of Numba in the process must not see it changed.
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(DIRECTORY)
    try:
        compiled._cache = LoadedKernels(function)  # noqa: SLF001 - Numba's own way makes a cache of its own
    finally:
        numba.config.CACHE_DIR = before
    return compiled


class LoadedKernels(FunctionCache):  # type: ignore[misc]
    """Numba's cache of one kernel, which loads what is compiled without all that compiling would take.

    Before it loads anything Numba makes ready for compiling, with modules for all of Python and NumPy, in a quarter of
    a second. To take arrays a kernel needs the memory runtime only; where one has to be compiled, the compiler does it.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled kernel for a signature; ``None`` where there is none that can be read."""
        try:
            if not _LOADS_AS_KNOWN:
                return super().load_overload(sig, target_context)
            rtsys.initialize(target_context)
            with self._guard_against_spurious_io_errors():
                return self._load_overload(sig, target_context)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - told, and compiled anew
            # A file cut off by a power loss can be wrong in any way.
            logger.warning("kernel_cache_damaged kernel=%s error=%r", self._name, error)
            self.flush()
            return None


_LOADS_AS_KNOWN = all(hasattr(LoadedKernels, name) for name in ("_guard_against_spurious_io_errors", "_load_overload"))
"""These are Numba's own affair: where a version names them otherwise, kernels are loaded its way."""


def inlined(function: Callable[..., Any]) -> Any:
    """As ``part``, always compiled into its caller: for parts that run so often that handing arrays to them counts."""
    return numba.njit(nogil=True, fastmath=_FASTMATH, error_model="numpy", forceinline=True)(function)


def exact_part(function: Callable[..., Any]) -> Any:
    """As ``part``, with float arithmetic as ``exact_kernel`` has it, whichever kernel calls it."""
    # Said, because what is not said is taken over from the kernel that it is compiled into.
    return numba.njit(nogil=True, fastmath=False, error_model="numpy")(function)


def part(function: Callable[..., Any]) -> Any:
    """Compile as a part of the kernels that call it; never called from Python, so never cached by itself."""
    return numba.njit(nogil=True, fastmath=_FASTMATH, error_model="numpy")(function)
