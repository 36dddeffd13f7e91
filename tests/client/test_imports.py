"""The client stays thin: using it loads neither the engine nor what the engine is made of."""

import subprocess
import sys

import pytest

from tests.service.running import serving
from tests.service.scripted import ScriptedDatabase

HEAVY = (
    "numba",
    "llvmlite",
    "lmdb",
    "lark",
    "xxhash",
    "vecdb.engine",
    "vecdb.kernels",
    "vecdb.storage",
    "vecdb.service",
)

USE = """
import sys, vecdb
from vecdb.filter import Field
with vecdb.connect(sys.argv[1]) as database:
    docs = database.collection("docs")
    docs.upsert([1, "b"], [[1, 2], [3, 4]], [{"a": 1}, {}])
    docs.search([1, 2], where="a = :a", params={"a": 1})[0].payload
    docs.count(Field("a") == 1)
    list(docs.scroll(with_vectors=True))
"""


def loaded_by(program, *arguments):
    report = "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program + report, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.mark.parametrize("heavy", HEAVY)
def test_importing_it_loads_nothing_heavy(heavy, imported):
    assert f'"{heavy}"' not in imported


@pytest.fixture(scope="module")
def imported():
    return loaded_by("import vecdb.client")


def test_using_it_loads_nothing_heavy(loop):
    with serving(loop, ScriptedDatabase()) as server:
        modules = loaded_by(USE, server.address)
    assert '"vecdb.client.remote"' in modules
    assert [heavy for heavy in HEAVY if f'"{heavy}"' in modules] == []
