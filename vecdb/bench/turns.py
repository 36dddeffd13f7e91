"""A measuring process as its parent sees it: one command at a time, and an end that leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Self

from vecdb.bench.machine import python_command, single_thread_environment
from vecdb.errors import VecdbError

CLOSE_TIMEOUT_S = 30.0
DIAGNOSTIC_CHARACTERS = 1_500


class EngineFailed(VecdbError):
    """An engine raised an error or its process ended; the run goes on without it."""

    code = "INTERNAL"


class EngineProcess:
    """One engine in a process of its own.

    Parameters
    ----------
    name
        Of the engine.
    directory
        For its files and for what it prints.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self._said = directory.with_name(f"{directory.name}.log")
        directory.mkdir(parents=True)
        with self._said.open("wb") as log:
            self._process = subprocess.Popen(
                python_command("vecdb.bench.worker"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=single_thread_environment(),
                text=True,
            )

    @property
    def pid(self) -> int:
        """Of the measuring process."""
        return self._process.pid

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send one command and wait for its reply.

        Raises
        ------
        EngineFailed
            The engine raised, or its process is gone.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise EngineFailed(
                f"{self.name}: the process ended during {do!r} with status {self._process.wait()}: "
                f"{self.diagnostics()}",
                field="engines",
                value=self.name,
            )
        reply: dict[str, Any] = json.loads(line)
        if not reply.pop("ok"):
            raise EngineFailed(f"{self.name}: {do}: {reply['error']}", field="engines", value=self.name)
        return reply

    def diagnostics(self) -> str:
        """The end of what the process printed."""
        return self._said.read_text(encoding="utf-8", errors="replace")[-DIAGNOSTIC_CHARACTERS:].strip()

    def close(self) -> None:
        """End the process: politely, and by force where that takes longer than 30 s."""
        if self._process.poll() is None:
            try:
                self._process.communicate(json.dumps({"do": "close"}) + "\n", timeout=CLOSE_TIMEOUT_S)
            except (subprocess.TimeoutExpired, BrokenPipeError):
                self._process.kill()
                self._process.communicate()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
