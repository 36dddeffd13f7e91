"""One writer, whatever way a second one takes to the directory, and whatever became of the first; readers always."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import vecdb
from vecdb.errors import FailedPrecondition

OPTIONS = vecdb.EngineOptions(kernels="reference")
HOLD = """
import sys, vecdb
with vecdb.open(sys.argv[1], options=vecdb.EngineOptions(kernels="reference")) as database:
    database.create_collection("c", dim=2, exist_ok=True).upsert([1], [[1, 2]])
    print("held", flush=True)
    sys.stdin.read()
"""
OPEN = """
import sys, vecdb
try:
    vecdb.open(sys.argv[1], options=vecdb.EngineOptions(kernels="reference")).close()
    print("opened")
except vecdb.errors.FailedPrecondition as error:
    print(error.message)
"""
SURROUNDINGS = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def here(path: Path) -> str:
    try:
        vecdb.open(path, options=OPTIONS).close()
    except FailedPrecondition as error:
        return error.message
    return "opened"


def in_thread(path: Path) -> str:
    told: list[str] = []
    thread = threading.Thread(target=lambda: told.append(here(path)))
    thread.start()
    thread.join()
    return told[0]


def _tell(path: Path, queue: multiprocessing.SimpleQueue[str]) -> None:
    queue.put(here(path))


def _in_child(kind: str, path: Path) -> str:
    context = multiprocessing.get_context(kind)
    queue = context.SimpleQueue()
    child = context.Process(target=_tell, args=(path, queue))
    child.start()
    told: str = queue.get()
    child.join()
    return told


def in_fork(path: Path) -> str:
    return _in_child("fork", path)


def in_spawned(path: Path) -> str:
    return _in_child("spawn", path)


def in_subprocess(path: Path) -> str:
    command = [sys.executable, "-c", OPEN, str(path)]
    return subprocess.run(command, env=SURROUNDINGS, capture_output=True, text=True, check=True).stdout.strip()


def by_command(path: Path) -> str:
    """``vecdb check`` owns the directory while it runs."""
    command = [sys.executable, "-m", "vecdb", "check", str(path), "--json"]
    ended = subprocess.run(command, env=SURROUNDINGS, capture_output=True, text=True, check=False)
    if ended.returncode == 0:
        return "opened"
    message: str = json.loads(ended.stderr)["error"]["message"]
    return message


def through_symlink(path: Path) -> str:
    link = path.with_name("link")
    link.symlink_to(path)
    try:
        return here(link)
    finally:
        link.unlink()


def relative(path: Path) -> str:
    return here(Path(os.path.relpath(path)))


def through_dots(path: Path) -> str:
    return here(path / ".." / "." / path.name)


def through_another_root(path: Path) -> str:
    return here(Path(f"/proc/{os.getpid()}/root{path}"))


def through_bind_mount(path: Path) -> str:
    """The same directory by a name that no resolving of paths leads back from; in a process with mounts of its own."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("a process may not have mounts of its own here")
    mounted = path.with_name("mounted")
    mounted.mkdir(exist_ok=True)
    script = f'mount --bind {path} {mounted} && exec {sys.executable} -c "$0" {mounted}'
    command = ["unshare", "--mount", "sh", "-c", script, OPEN]
    return subprocess.run(command, env=SURROUNDINGS, capture_output=True, text=True, check=True).stdout.strip()


WAYS: list[Callable[[Path], str]] = [
    here,
    in_thread,
    in_fork,
    in_spawned,
    in_subprocess,
    by_command,
    through_symlink,
    relative,
    through_dots,
    through_another_root,
    through_bind_mount,
]

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(path)]
    child = subprocess.Popen(command, env=SURROUNDINGS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        try:
            yield child
        finally:
            child.kill()


@pytest.fixture(scope="module", params=["alive", "stopped", "killed"])
def held(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, int]]:
    """A directory whose holder is in some state; the same one for all ways."""
    path = tmp_path_factory.mktemp("one-writer") / "db"
    with ExitStack() as stack:
        child = stack.enter_context(holder(path))
        if request.param == "stopped":
            child.send_signal(signal.SIGSTOP)
        if request.param == "killed":
            child.kill()
            child.wait()
        yield path, request.param, child.pid


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_second_writer_is_refused_at_once_and_let_in_when_the_first_is_dead(
    held: tuple[Path, str, int], way: Callable[[Path], str]
) -> None:
    path, state, pid = held
    told = way(path)
    if state == "killed":
        assert told == "opened"
    else:
        assert f"process {pid} on {socket.gethostname()} since 20" in told
        assert "read_only=True" in told


def test_a_reader_is_let_in_whatever_became_of_the_writer(held: tuple[Path, str, int]) -> None:
    path, _state, _pid = held
    with vecdb.open(path, options=OPTIONS, read_only=True) as database:
        database.refresh()
        assert [each.id for each in database.collection("c").get([1])] == [1]
