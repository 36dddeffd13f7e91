"""The directory of compiled kernels and the choice of instruction set."""

import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numba
import pytest

from vecdb.errors import InvalidArgument
from vecdb.kernels.cpu import cache
from vecdb.kernels.cpu.target import TARGET, choose


def _python(code, **variables):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)} | variables
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)


def test_the_directory_is_the_users_own(tmp_path):
    previous = os.umask(0)
    try:
        path = cache.private_directory(tmp_path / "new" / "root", "abc")
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_directory_that_others_may_write_to_is_not_used(tmp_path):
    path = cache.private_directory(tmp_path, "abc")
    path.chmod(0o770)
    assert cache.private_directory(tmp_path, "abc") is None


def test_a_link_is_not_used(tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "kernels-abc").symlink_to(tmp_path / "elsewhere")
    assert cache.private_directory(tmp_path, "abc") is None


def test_a_root_that_cannot_be_made_means_no_cache(tmp_path):
    (tmp_path / "file").write_text("")
    assert cache.private_directory(tmp_path / "file" / "root", "abc") is None


def test_the_digest_changes_with_every_source_and_with_the_target(tmp_path):
    files = [tmp_path / "one.py", tmp_path / "two.py"]
    for path in files:
        path.write_text("x = 1\n")
    first = cache.sources_digest(files, TARGET)
    assert first == cache.sources_digest(files, TARGET)
    assert first != cache.sources_digest(files, replace(TARGET, name="other"))
    assert first != cache.sources_digest(files, replace(TARGET, features="none"))
    files[1].write_text("x = 2\n")
    second = cache.sources_digest(files, TARGET)
    renamed = files[1].rename(tmp_path / "three.py")
    assert len({first, second, cache.sources_digest([files[0], renamed], TARGET)}) == 3


def test_a_constant_of_the_layout_of_arrays_is_part_of_the_digest(tmp_path):
    """The directory in use depends on files outside its own package too."""
    import vecdb.kernels.arrays as arrays

    assert Path(arrays.__file__) in cache._SOURCES
    assert {path.name for path in cache._SOURCES} >= {"graph.py", "links.py", "scan.py", "intrinsics.py", "target.py"}


_LOADED = """
import sys
import numpy as np
from vecdb.kernels.cpu import CpuKernels
from vecdb.kernels.cpu.quantise import encode, sketch
from vecdb.kernels.arrays import Codes

rows = np.arange(12, dtype=np.float32).reshape(3, 4)
codes = CpuKernels().encode(rows, np.zeros(4, np.float32), 1.0)
print(codes.table.sum(), sum(encode.stats.cache_hits.values()), "numba.np.linalg" in sys.modules)
for _ in range(1000):
    CpuKernels().encode(rows, np.zeros(4, np.float32), 1.0)
print(CpuKernels().sketch(codes, 4).shape, sum(sketch.stats.cache_hits.values()), "numba.np.linalg" in sys.modules)
"""


@pytest.mark.slow
def test_a_compiled_kernel_is_loaded_without_what_compiling_takes(tmp_path):
    kernels = {"VECDB_CACHE_DIR": str(tmp_path)}
    first = _python(_LOADED.partition("for _")[0], **kernels).stdout.split()
    assert first[1:] == ["0", "True"]
    # Loaded; then the other one, which is not there yet, is compiled beside it.
    second, third = _python(_LOADED, **kernels).stdout.splitlines()
    assert second.split() == [first[0], "1", "False"]
    assert third.endswith(" 0 True")
    _, third = _python(_LOADED, **kernels).stdout.splitlines()
    assert third.endswith(" 1 False")


def test_a_damaged_file_of_the_cache_is_compiled_anew(tmp_path):
    code = """
import numpy as np
from vecdb.kernels.cpu import CpuKernels
from vecdb.kernels.cpu.quantise import encode
codes = CpuKernels().encode(np.ones((1, 3), np.float32), np.zeros(3, np.float32), 1.0)
print(codes.table.sum(), sum(encode.stats.cache_hits.values()))
"""
    kernels = {"VECDB_CACHE_DIR": str(tmp_path)}
    total = _python(code, **kernels).stdout.split()[0]
    for suffix in ("nbc", "nbi"):
        for path in tmp_path.rglob(f"*encode*.{suffix}"):
            os.truncate(path, 50)
        found = _python(code, **kernels)
        assert found.stdout.split() == [total, "0"]
        assert "kernel_cache_damaged" in found.stderr
        assert _python(code, **kernels).stdout.split() == [total, "1"]


def test_numba_is_left_as_it_was():
    before = numba.config.CACHE_DIR
    cache.kernel(lambda x: x)
    assert before == numba.config.CACHE_DIR


def test_importing_kernels_compiles_nothing(tmp_path):
    code = """
import vecdb.kernels.cpu as cpu
from vecdb.kernels.cpu import links, lockstep, quantise, scan
kernels = [links.propose_links, links.accept_links, links.connect, lockstep.answer_graph, scan.scan_topk]
assert not any(kernel.signatures for kernel in kernels)
"""
    _python(code, VECDB_CACHE_DIR=str(tmp_path))
    assert list(tmp_path.rglob("*.nb?")) == []


def test_compiled_kernels_land_in_the_private_directory(tmp_path):
    code = """
import numpy as np
from vecdb.kernels.cpu import CpuKernels
CpuKernels().encode(np.ones((1, 3), np.float32), np.zeros(3, np.float32), 1.0)
"""
    _python(code, VECDB_CACHE_DIR=str(tmp_path))
    written = list(tmp_path.rglob("*.nbc"))
    assert written
    (directory,) = tmp_path.iterdir()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert all(path.is_relative_to(directory) for path in written)


@pytest.mark.parametrize(
    "module", ["vecdb.kernels.arrays", "vecdb.kernels.protocol", "vecdb.kernels.reference", "vecdb.index.hnsw"]
)
def test_importing_without_a_compiler(module):
    _python(f"import sys, {module}; assert not {{'numba', 'llvmlite'}} & sys.modules.keys(), 'compiler imported'")


def test_the_instruction_set_follows_the_cpu():
    every = {"avx512vnni", "avx512bw", "avx512vl", "fma"}
    assert choose("auto", every).vnni_bytes == 64
    assert choose("auto", {"avxvnni", "fma"}).vnni_bytes == 32
    assert choose("auto", {"avx2"}).vnni_bytes == 0
    assert choose("portable", every).vnni_bytes == 0
    assert choose("portable", every).features == choose("auto", every).features


@pytest.mark.parametrize("wanted", ["avx512vnni", "avxvnni", "sse9", ""])
def test_an_instruction_set_that_is_not_there_is_refused(wanted):
    with pytest.raises(InvalidArgument) as caught:
        choose(wanted, {"avx2"})
    assert caught.value.field == "VECDB_CPU"
