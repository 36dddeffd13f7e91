"""The instruction set that kernels are compiled for, decided once per process from the CPU and ``VECDB_CPU``.

``VECDB_CPU`` is ``auto`` (default), ``avx512vnni``, ``avxvnni`` or ``portable``. Every choice gives the same integers;
an instruction set that this CPU, or the CPU that Numba was told to compile for, lacks is refused.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import llvmlite.binding as llvm
import numba

from vecdb.errors import InvalidArgument

VARIABLE = "VECDB_CPU"
_CHOICES = ("auto", "avx512vnni", "avxvnni", "portable")


@dataclass(frozen=True, slots=True)
class Target:
    """What the compiled code may use.

    Attributes
    ----------
    name
        "avx512vnni", "avxvnni" or "portable".
    vnni_bytes
        Width of one ``vpdpbusd``: 64, 32, or 0 for none.
    fused
        Whether float32 multiply-add may be one instruction.
    query_tile
        Queries scored against four rows at once in an exact scan: what the vector registers can hold.
    features
        Every CPU feature in effect, sorted: part of the key of the kernel cache.
    """

    name: str
    vnni_bytes: int
    fused: bool
    query_tile: int
    features: str


def _features() -> set[str]:
    """CPU features that Numba will compile for."""
    if numba.config.CPU_FEATURES:
        return {word[1:] for word in numba.config.CPU_FEATURES.split(",") if word.startswith("+")}
    if numba.config.CPU_NAME:
        return set()
    return {name for name, present in llvm.get_host_cpu_features().items() if present}


def choose(wanted: str, features: set[str]) -> Target:
    """The target for ``wanted`` (one of the values of ``VECDB_CPU``) on a CPU with ``features``.

    Raises
    ------
    InvalidArgument
        ``wanted`` is unknown, or needs what ``features`` lack.
    """
    if wanted not in _CHOICES:
        raise InvalidArgument(
            f"unknown instruction set {wanted!r}", field=VARIABLE, limit=" ".join(_CHOICES), value=wanted
        )
    wide = {"avx512vnni", "avx512bw", "avx512vl"} <= features
    narrow = "avxvnni" in features or {"avx512vnni", "avx512vl"} <= features
    fused = "fma" in features
    listed = ",".join(sorted(features))
    if wanted == "avx512vnni" or (wanted == "auto" and wide):
        if not wide:
            raise InvalidArgument("this CPU lacks AVX-512 VNNI", field=VARIABLE, limit="auto", value=wanted)
        return Target("avx512vnni", 64, fused, 4, listed)
    if wanted == "avxvnni" or (wanted == "auto" and narrow):
        if not narrow:
            raise InvalidArgument("this CPU lacks AVX VNNI", field=VARIABLE, limit="auto", value=wanted)
        return Target("avxvnni", 32, fused, 1, listed)
    return Target("portable", 0, fused and wanted == "auto", 1, listed)


TARGET = choose(os.environ.get(VARIABLE, "auto"), _features())
