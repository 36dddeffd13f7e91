"""Child processes at the price of a fork: a server that has imported the engine forks one child for each task.

The server has no threads when it forks, whatever the process of the tests has. A child writes to a pipe that outlives
it; how it ended and what it wrote come back.
"""

from __future__ import annotations

import faulthandler
import math
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar

ROOT = Path(__file__).parents[2]
CHILD_TIMEOUT_S = 60
FAILED = 70
"""Exit status of a child whose task raised."""

_LENGTH = struct.Struct("<Q")
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes
    ----------
    status
        Its exit status, or minus the signal that killed it.
    written
        What it wrote to its pipe.
    """

    status: int
    written: bytes

    @property
    def lines(self) -> list[bytes]:
        return self.written.splitlines(keepends=True)

    @property
    def result(self) -> Any:
        """What the task returned."""
        assert self.status == 0, f"the child ended with {self.status}: {self.written.decode(errors='replace')}"
        return pickle.loads(self.written)


class ForkServer:
    """A handle of one server; for one thread at a time.

    Attributes
    ----------
    timeout_s
        A child that takes longer is ended and tells where it was.
    """

    def __init__(self) -> None:
        self.timeout_s = CHILD_TIMEOUT_S
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
        )

    def call(self, task: str, *arguments: Any) -> Ended:
        """Run a function of ``tests.crash.tasks`` in a child of its own."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        _send(self._process.stdin, (task, self.timeout_s, arguments))
        status, written = _receive(self._process.stdout)
        return Ended(status, written)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(CHILD_TIMEOUT_S)
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Forks:
    """Two servers, so that two cores are used."""

    def __init__(self, servers: list[ForkServer]) -> None:
        self._idle = servers
        self._pool = ThreadPoolExecutor(len(servers))

    def set_timeout(self, timeout_s: float) -> None:
        """How long a child may take from now on."""
        for server in self._idle:
            server.timeout_s = timeout_s

    def map(
        self, run: Callable[[ForkServer, Item], Result], items: Iterable[Item], limit_s: float = math.inf
    ) -> list[Result]:
        """``run(server, item)`` of each item, or of those that were begun within ``limit_s`` seconds.

        An eighth of them is run however long it takes: a slow machine runs fewer points, and never next to none.
        """
        waiting = list(items)
        end_s = time.monotonic() + limit_s

        def one(numbered: tuple[int, Item]) -> list[Result]:
            number, item = numbered
            if time.monotonic() > end_s and 8 * number >= len(waiting):
                return []
            server = self._idle.pop()
            try:
                return [run(server, item)]
            finally:
                self._idle.append(server)

        return [result for results in self._pool.map(one, enumerate(waiting)) for result in results]

    def close(self) -> None:
        self._pool.shutdown()


@contextmanager
def forks(count: int = 2) -> Iterator[Forks]:
    """Servers for the length of the block."""
    with ExitStack() as stack:
        found = Forks([stack.enter_context(ForkServer()) for _ in range(count)])
        stack.callback(found.close)
        yield found


def _send(stream: BinaryIO | Any, value: Any) -> None:
    data = pickle.dumps(value)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def _receive(stream: BinaryIO | Any) -> Any:
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    return pickle.loads(stream.read(_LENGTH.unpack(head)[0]))


def _serve() -> None:
    # What a task prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    from tests.crash import tasks

    with tempfile.TemporaryDirectory() as directory:
        tasks.prepare(Path(directory))
    while True:
        try:
            name, timeout_s, arguments = _receive(sys.stdin.buffer)
        except EOFError:
            return
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _run(getattr(tasks, name), timeout_s, arguments, writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as stream:
            written = stream.read()
        _send(answers, (os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), written))


def _run(task: Callable[..., Any], timeout_s: float, arguments: tuple[Any, ...], writing: int) -> None:
    """Run a task in the child and end it, whatever threads it leaves."""
    faulthandler.dump_traceback_later(timeout_s, exit=True, file=writing)
    status = 0
    try:
        result = task(writing, *arguments)
        if result is not None:
            _write_all(writing, pickle.dumps(result))
    except BaseException:
        _write_all(writing, traceback.format_exc().encode())
        status = FAILED
    os._exit(status)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


if __name__ == "__main__":
    _serve()
