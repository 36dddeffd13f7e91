"""The tree keeps the rules of style, and each rule finds what it is there to find."""

from pathlib import Path

import pytest

from tests.architecture import style

ROOT = Path(__file__).resolve().parents[2]
DOCSTRING = '"""What it is."""\n'
HOME = "/" + "home/ada/vecdb"
UNFINISHED = "TO" + "DO"


def rules_broken(path: str, text: str) -> set[str]:
    return {finding.rule for finding in style.check([style.Source.of(path, text)]) if not finding.note}


def test_the_tree_keeps_the_rules():
    findings = style.check(style.sources(ROOT))
    assert [str(finding) for finding in findings if not finding.note] == []


def test_the_tree_is_seen():
    paths = {source.path for source in style.sources(ROOT)}
    assert {"vecdb/errors.py", "tests/architecture/style.py", "proto/check.py", "pyproject.toml", ".ci/run"} <= paths
    assert not any(path.startswith("vecdb/v1/") for path in paths)


@pytest.mark.parametrize(
    "code",
    [
        "open('x')",
        "import io\nio.open('x')",
        "import os\nos.write(1, b'')",
        "import os\nos.open('x', 0)",
        "import os as system\nsystem.rename('a', 'b')",
        "from os import replace\nreplace('a', 'b')",
        "import os.path\nos.path.getsize('a')",
        "def load():\n    from os import unlink\n    unlink('a')",
        "import mmap\nmmap.mmap(0, 1)",
        "from mmap import mmap as mapped\nmapped(0, 1)",
        "import numpy as np\nnp.memmap('x')",
        "import numpy as np\nnp.load('x')",
        "import numpy as np\nnp.save('x', 1)",
        "from numpy import fromfile\nfromfile('x')",
        "array.tofile('x')",
        "path.write_bytes(b'')",
        "path.read_text()",
        "from pathlib import Path\nPath('x').open()",
        "from pathlib import Path\nPath('x').unlink()",
        "import shutil",
        "from tempfile import mkstemp",
        "import fcntl",
    ],
)
@pytest.mark.parametrize("package", style.ENGINE_PACKAGES)
def test_file_syscalls_are_found_in_the_packages_of_the_engine(package: str, code: str):
    assert rules_broken(f"vecdb/{package}/planted.py", DOCSTRING + code) == {"syscall"}


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("vecdb/storage/io.py", "open('x')"),
        ("vecdb/cli/planted.py", "open('x')"),
        ("tests/storage/test_planted.py", "open('x')"),
        ("vecdb/engine/planted.py", "import lmdb\nlmdb.open('x')"),
        ("vecdb/engine/planted.py", "def open(path): ...\nopen('x')"),
        ("vecdb/engine/planted.py", "from vecdb.storage.directory import open\nopen('x')"),
        ("vecdb/engine/planted.py", "directory.open('x')\ndirectory.unlink('x')\n'a'.replace('a', 'b')"),
        ("vecdb/engine/planted.py", "from vecdb.storage import io\nio.open('x')"),
        ("vecdb/engine/planted.py", "import os\nos.getpid()"),
        ("vecdb/storage/planted.py", "import mmap\ndef view(mapping: mmap.mmap) -> None: ..."),
    ],
)
def test_what_is_no_file_syscall_or_may_make_one_passes(path: str, code: str):
    assert rules_broken(path, DOCSTRING + code) == set()


@pytest.mark.parametrize(
    "name", ["utils", "helpers", "common", "misc", "base", "core", "manager", "impl", "graph_utils"]
)
def test_names_that_say_nothing_are_found(name: str):
    assert rules_broken(f"vecdb/index/{name}.py", DOCSTRING) == {"module-name"}
    assert rules_broken(f"vecdb/{name}/__init__.py", DOCSTRING) == {"module-name"}


def test_nouns_that_only_contain_such_a_name_pass():
    assert rules_broken("vecdb/engine/database.py", DOCSTRING) == set()
    assert rules_broken("vecdb/kernels/core_distances.py", DOCSTRING) == set()


def test_a_missing_docstring_is_found():
    assert rules_broken("vecdb/planted.py", "x = 1\n") == {"docstring"}
    assert rules_broken("tests/test_planted.py", "x = 1\n") == {"docstring"}
    assert rules_broken("vecdb/query/__init__.py", "") == set()


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (f"# {UNFINISHED}: later\n", "unfinished"),
        ("# as tick" + "et 12 asked\n", "history"),
        ("# fixed in iss" + "ue #12\n", "history"),
        (f"PATH = '{HOME}'\n", "machine-path"),
    ],
)
@pytest.mark.parametrize("path", ["vecdb/planted.py", "tests/test_planted.py"])
def test_markers_are_found(path: str, text: str, rule: str):
    assert rules_broken(path, DOCSTRING + text) == {rule}


def test_markers_are_found_in_files_that_are_not_python():
    assert rules_broken("docs/planted.md", f"See `{HOME}`.\n") == {"machine-path"}
    assert rules_broken("Makefile", f"# {UNFINISHED}\n") == {"unfinished"}
    assert rules_broken("docs/planted.md", "See `docs/home/index.md` and https://example.org/home/x.\n") == set()


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import marshal",
        "eval('1')",
        "exec('1')",
        "import builtins\nbuiltins.eval('1')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import numpy as np\nnp.load('x', allow_pickle=trusted)",
    ],
)
def test_code_execution_is_found(code: str):
    assert rules_broken("vecdb/bench/planted.py", DOCSTRING + code) == {"code-execution"}


def test_refusing_pickles_passes():
    assert rules_broken("vecdb/bench/planted.py", DOCSTRING + "np.load('x', allow_pickle=False)\nmodel.eval()") == set()


@pytest.mark.parametrize(
    "code",
    [
        "try:\n    f()\nexcept Exception:\n    pass",
        "try:\n    f()\nexcept:\n    ...",
        "try:\n    f()\nexcept (ValueError, BaseException) as error:\n    'no matter'",
        "for x in y:\n    try:\n        f()\n    except Exception:\n        continue",
        "from contextlib import suppress\nwith suppress(Exception):\n    f()",
        "import contextlib\nwith contextlib.suppress(Exception):\n    f()",
    ],
)
def test_silent_handlers_of_everything_are_found(code: str):
    assert rules_broken("vecdb/planted.py", DOCSTRING + code) == {"silent-except"}


@pytest.mark.parametrize(
    "code",
    [
        "try:\n    f()\nexcept FileNotFoundError:\n    pass",
        "try:\n    f()\nexcept Exception:\n    close()\n    raise",
        "from contextlib import suppress\nwith suppress(FileNotFoundError):\n    f()",
    ],
)
def test_handlers_that_choose_or_act_pass(code: str):
    assert rules_broken("vecdb/planted.py", DOCSTRING + code) == set()


@pytest.mark.parametrize(("lines", "notes"), [(400, []), (401, [True]), (600, [True]), (601, [False])])
def test_long_files_are_listed_and_longer_ones_refused(lines: int, notes: list[bool]):
    text = DOCSTRING + "x = 1\n" * (lines - 1)
    assert [finding.note for finding in style.check([style.Source.of("vecdb/planted.py", text)])] == notes


def test_main_fails_when_something_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(style, "sources", lambda root: [style.Source.of("vecdb/planted.py", "x = 1\n")])
    assert style.main() == 1
    assert "vecdb/planted.py:1: the module has no docstring [docstring]" in capsys.readouterr().out
    monkeypatch.setattr(style, "sources", lambda root: [style.Source.of("vecdb/planted.py", DOCSTRING)])
    assert style.main() == 0
