"""One writer: whoever else tries is refused and told who holds the directory, until the holder lets go or dies."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vecdb.errors import FailedPrecondition
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem
from vecdb.storage.lock import DirectoryLock, read_holder

HOLDING = """
import os, signal, sys, time
from pathlib import Path
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem
from vecdb.storage.lock import DirectoryLock
from vecdb.errors import FailedPrecondition
try:
    lock = DirectoryLock.acquire(MmapDirectory(Path(sys.argv[1]), FileSystem()))
    print("held", flush=True)
    if "fork" in sys.argv and os.fork():
        time.sleep(60)
    elif "fork" in sys.argv:
        print("forked", flush=True)
        os.kill(os.getppid(), signal.SIGKILL)
    sys.stdin.read()
    if "fork" in sys.argv:
        print("the child ends", flush=True)
except FailedPrecondition as error:
    print(error.message, flush=True)
"""


def started(path: Path, *more: str) -> "subprocess.Popen[str]":
    surroundings = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(path), *more],
        env=surroundings,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(child: "subprocess.Popen[str]") -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def ended(child: "subprocess.Popen[str]") -> None:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.close()
    child.stdout.read()
    child.stdout.close()
    child.wait(timeout=20)


@contextmanager
def holder_of(directory: MmapDirectory, *more: str) -> Iterator["subprocess.Popen[str]"]:
    child = started(directory.path, *more)
    try:
        assert said(child) == "held"
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGCONT)
        ended(child)


def refused(path: Path, pid: int) -> None:
    with pytest.raises(FailedPrecondition, match=f"process {pid} on {socket.gethostname()} since 20"):
        DirectoryLock.acquire(MmapDirectory(path, FileSystem()))


def in_thread(path: Path, pid: int) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            refused(path, pid)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []


def in_process(path: Path, pid: int) -> None:
    child = started(path)
    assert f"process {pid} " in said(child)
    ended(child)


def _send_refusal(path: Path, sent: "multiprocessing.connection.Connection") -> None:
    try:
        DirectoryLock.acquire(MmapDirectory(path, FileSystem()))
        sent.send("held")
    except FailedPrecondition as error:
        sent.send(error.message)


def in_fork(path: Path, pid: int) -> None:
    receiving, sending = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_send_refusal, args=(path, sending))
    child.start()
    assert f"process {pid} " in receiving.recv()
    child.join()


def through_symlink(path: Path, pid: int) -> None:
    link = path.with_name(path.name + "_link")
    if not link.exists():
        link.symlink_to(path)
    refused(link, pid)


def through_parent_symlink(path: Path, pid: int) -> None:
    link = path.parent.with_name(path.parent.name + "_link")
    if not link.exists():
        link.symlink_to(path.parent)
    refused(link / path.name, pid)


def through_dots(path: Path, pid: int) -> None:
    refused(path / ".." / path.name, pid)


def relative(path: Path, pid: int) -> None:
    refused(Path(os.path.relpath(path)), pid)


WAYS = [refused, in_thread, in_process, in_fork, through_symlink, through_parent_symlink, through_dots, relative]

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("state", ["here", "alive", "stopped", "killed"])
def test_a_second_writer_is_refused_until_the_holder_is_gone(directory: MmapDirectory, way: object, state: str) -> None:
    assert callable(way)
    if state == "here":
        lock = DirectoryLock.acquire(directory)
        way(directory.path, os.getpid())
        lock.release()
    else:
        with holder_of(directory) as child:
            if state == "stopped":
                child.send_signal(signal.SIGSTOP)
            if state != "killed":
                way(directory.path, child.pid)
                return
            child.kill()
            child.wait()
    DirectoryLock.acquire(directory).release()


def test_the_file_tells_who_holds_it_and_where(directory: MmapDirectory) -> None:
    assert read_holder(directory) is None
    lock = DirectoryLock.acquire(directory)
    lock.announce("127.0.0.1:7700 and a long text behind it")
    lock.announce("127.0.0.1:7700")
    assert read_holder(directory) == lock.holder
    assert (lock.holder.pid, lock.holder.host) == (os.getpid(), socket.gethostname())
    with pytest.raises(FailedPrecondition, match=r": connect to 127\.0\.0\.1:7700"):
        DirectoryLock.acquire(directory)
    lock.release()
    assert (directory.path / "LOCK").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"junk", b"{}", b"[1]", b'{"pid": "x", "host": 1}', b"\xff" * 5000])
def test_whatever_the_file_says_the_lock_counts(directory: MmapDirectory, content: bytes) -> None:
    (directory.path / "LOCK").write_bytes(content)
    lock = DirectoryLock.acquire(directory)
    (directory.path / "LOCK").write_bytes(content)
    with pytest.raises(FailedPrecondition, match="open for writing elsewhere"):
        DirectoryLock.acquire(directory)
    lock.release()


def test_a_released_lock_is_of_no_use(directory: MmapDirectory) -> None:
    lock = DirectoryLock.acquire(directory)
    lock.check()
    lock.release()
    lock.release()
    with pytest.raises(FailedPrecondition, match="is closed"):
        lock.check()


def test_closing_another_descriptor_keeps_the_lock(directory: MmapDirectory) -> None:
    """A POSIX record lock would be lost here."""
    lock = DirectoryLock.acquire(directory)
    assert read_holder(directory) == lock.holder
    os.close(os.open(directory.path / "LOCK", os.O_RDWR))
    in_process(directory.path, os.getpid())
    lock.release()


def _check_in_child(lock: DirectoryLock, sent: "multiprocessing.connection.Connection") -> None:
    try:
        lock.check()
    except FailedPrecondition as error:
        lock.release()
        sent.send(error.message)
    else:
        sent.send("usable")


def test_a_forked_child_is_told_and_neither_keeps_nor_frees_the_lock(directory: MmapDirectory) -> None:
    lock = DirectoryLock.acquire(directory)
    receiving, sending = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_check_in_child, args=(lock, sending))
    child.start()
    assert "forked child" in receiving.recv()
    child.join()
    in_process(directory.path, os.getpid())
    lock.release()


def test_a_lock_ends_with_its_killed_holder_though_a_forked_child_lives_on(directory: MmapDirectory) -> None:
    with holder_of(directory, "fork") as child:
        assert said(child) == "forked"
        assert child.wait(timeout=20) == -signal.SIGKILL
        DirectoryLock.acquire(directory).release()
        assert child.stdin is not None
        child.stdin.close()
        assert said(child) == "the child ends"


def _wait(waiting: "multiprocessing.connection.Connection") -> None:
    waiting.recv()


def test_a_released_lock_is_free_though_a_forked_child_lives_on(directory: MmapDirectory) -> None:
    lock = DirectoryLock.acquire(directory)
    waiting, ending = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_wait, args=(waiting,))
    child.start()
    lock.release()
    DirectoryLock.acquire(directory).release()
    ending.send("done")
    child.join()
