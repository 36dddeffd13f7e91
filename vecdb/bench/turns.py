"""A measuring process as its parent sees it: one command at a time, and an end that leaves nothing behind."""

from __future__ import annotations

import json
import select
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from vecdb.bench.machine import measuring_environment, python_command
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
        For its files and for what it prints; another process may have used it before.
    module
        The program: ``worker``, or one like it.
    threads
        That libraries may use.
    timeout_s
        A command that takes longer has failed, and the process is killed.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        module: str = "vecdb.bench.worker",
        threads: int = 1,
        timeout_s: float | None = None,
    ) -> None:
        self.name = name
        self.timeout_s = timeout_s
        self.directory = directory
        self._said = directory.with_name(f"{directory.name}.log")
        directory.mkdir(parents=True, exist_ok=True)
        with self._said.open("ab") as log:
            self._process = subprocess.Popen(
                python_command(module),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=measuring_environment(threads),
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
            The engine raised, its process is gone, or there was no reply in time.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            # Nothing is left in the buffer: replies are lines, one for each command.
            if not select.select([self._process.stdout], [], [], self.timeout_s)[0]:
                self._process.kill()
                raise EngineFailed(
                    f"{self.name}: no reply to {do!r} within {self.timeout_s:g} s", field="engines", value=self.name
                )
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
            # Closing writes what is still in the buffer: a command that the process did not live to read. The pipe is
            # closed all the same, and whoever sent the command was told by ``ask``.
            with suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
