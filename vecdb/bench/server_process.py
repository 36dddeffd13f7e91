"""A server in a process of its own, for as long as something is measured on it."""

from __future__ import annotations

import signal
import subprocess

from vecdb.errors import Unavailable

STOP_TIMEOUT_S = 60.0


class ServerProcess:
    """Runs a command that writes ``... on <address>`` once it serves, and serves until it is told to stop.

    Attributes
    ----------
    address
        What it wrote.
    pid
        Its process.

    Raises
    ------
    Unavailable
        It ended instead.
    """

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        assert self._process.stdout is not None
        ready = self._process.stdout.readline()
        if not ready:
            raise Unavailable(f"the server ended with status {self._process.wait()}", field="server")
        self.address = ready.rpartition(" on ")[2].strip()

    def stop(self) -> None:
        """Let it end; one that does not is killed."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.communicate(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def __enter__(self) -> str:
        return self.address

    def __exit__(self, *_raised: object) -> None:
        self.stop()
