"""Kernels compiled for the CPU by Numba; importing this package imports Numba, but compiles nothing."""

from vecdb.kernels.cpu.host import CpuKernels

__all__ = ["CpuKernels"]
