"""The frame of the command line: help, exit status, how errors look, what is imported."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from vecdb import cli
from vecdb.cli.failure import as_line, as_object
from vecdb.errors import InvalidArgument, NotFound, VecdbError

HEAVY = ("numpy", "numba", "llvmlite", "grpc", "lmdb", "google.protobuf", "lark", "wordllama", "tqdm")


def _loaded_after(*words: str) -> set[str]:
    """Of ``HEAVY``, what a process has imported after it ran these words."""
    program = (
        "import io, json, sys\n"
        "from vecdb.cli import main\n"
        "kept, sys.stdout = sys.stdout, io.StringIO()\n"
        f"status = main({list(words)!r})\n"
        "assert status == 0, status\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]), file=kept)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_help_imports_nothing_heavy():
    assert _loaded_after("--help") == set()


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_help_of_a_command_imports_nothing_heavy(command):
    assert _loaded_after(command, "--help") == set()


def test_module_is_the_command_line():
    done = subprocess.run([sys.executable, "-m", "vecdb", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("vecdb ")


def test_help_names_every_command(vecdb_command):
    outcome = vecdb_command("--help")
    assert outcome.status == 0
    for name in cli.COMMANDS:
        assert f"\n    {name} " in outcome.out


@pytest.mark.parametrize("words", [["frobnicate"], ["search"], ["stats", "--frob"], ["demo", "--rows", "many"]])
def test_wrong_usage_is_2_and_says_so_on_stderr(vecdb_command, words):
    outcome = vecdb_command(*words)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith("usage: vecdb")


def test_no_command_shows_the_help_and_is_2(vecdb_command):
    outcome = vecdb_command()
    assert outcome.status == 2
    assert "commands:" in outcome.out


def _run_raising(error: BaseException, *, as_json: bool = False) -> int:
    def run(namespace: argparse.Namespace) -> int:
        raise error

    return cli._run(SimpleNamespace(run=run, add_arguments=None), argparse.Namespace(json=as_json))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound("gone"), 1),
        (VecdbError("odd"), 1),
        (InvalidArgument("k must be 1 to 3", field="k"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_status_tells_errors_apart(error, status, capsys):
    assert _run_raising(error) == status
    assert capsys.readouterr().out == ""


def test_an_error_is_one_line_without_control_characters(capsys):
    _run_raising(NotFound("no collection 'a\x1b[31m\nb'"))
    assert capsys.readouterr().err == "vecdb: no collection 'a\ufffd[31m b'\n"


def test_an_error_as_json_holds_all_that_is_known(capsys):
    _run_raising(InvalidArgument("bad", field="where", limit=3, value="x", position=7), as_json=True)
    assert json.loads(capsys.readouterr().err) == {
        "error": {
            "code": "INVALID_ARGUMENT", "message": "bad", "field": "where", "limit": "3", "value": "x", "position": 7,
        }
    }  # fmt: skip


def test_an_error_that_is_no_vecdb_error_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        _run_raising(ZeroDivisionError())


def test_a_reader_that_goes_away_is_no_traceback(database):
    command = f"{sys.executable} -m vecdb stats {database} --json | head -c 1; echo ${{PIPESTATUS[0]}} >&2"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
    assert done.stderr.split()[-1] in ("0", "141")


def test_line_and_object_of_an_error_agree():
    error = NotFound("there is nothing", field="path", value="x")
    assert as_line(error) == "vecdb: there is nothing"
    assert as_object(error)["error"]["message"] == "there is nothing"
