"""Every kernel on every instruction set gives what the reference gives."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vecdb.kernels.cpu import CpuKernels
from vecdb.kernels.reference import ReferenceKernels

SCRIPT = Path(__file__).with_name("cases.py")


def _cases():
    spec = importlib.util.spec_from_file_location("parity_cases", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def expected():
    return _cases().run(ReferenceKernels())


def _in_a_process(choice, path):
    environment = os.environ | {"VECDB_CPU": choice, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, SCRIPT, path], env=environment, capture_output=True, text=True, check=False)
    if "lacks AVX" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    with np.load(path) as stored:
        return dict(stored)


@pytest.mark.parametrize(
    "device", ["native", "portable", pytest.param("avxvnni", marks=pytest.mark.slow), "reference again"]
)
def test_every_kernel_agrees_with_the_reference(device, expected, tmp_path):
    if device == "native":
        found = _cases().run(CpuKernels())
    elif device == "reference again":
        found = _cases().run(ReferenceKernels())
    else:
        found = _in_a_process(device, tmp_path / "found.npz")
    assert found.keys() == expected.keys()
    wrong = []
    for name, right in expected.items():
        if name.endswith(".f32"):
            largest = np.abs(right[np.isfinite(right)]).max(initial=1.0)
            agree = np.allclose(found[name], right, rtol=2e-5, atol=2e-6 * largest)
        elif name.rsplit("/", 2)[-2:][0] in {"scan", "rerank"} or "/scan/" in name or name.endswith("/rerank"):
            # Which of two rows comes first may hang on rounding; the distances themselves were compared.
            agree = found[name].shape == right.shape and np.array_equal(found[name] >= 0, right >= 0)
        else:
            agree = np.array_equal(found[name], right)
        if not agree:
            wrong.append(name)
    assert wrong == []
