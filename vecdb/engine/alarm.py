"""An alarm: calls a function once, after a pause, on a thread of its own that lives no longer than the pause."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from vecdb.errors import ResourceExhausted


class Alarm:
    """Calls ``call`` when it rings. Set again, it rings at the earlier of the two times; never after ``stop``."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._rings_at = 0.0
        self._stopped = False

    def set(self, pause_s: float) -> None:
        """Ring after ``pause_s`` seconds, if it does not ring sooner.

        Raises
        ------
        ResourceExhausted
            No thread could be started.
        """
        rings_at = time.monotonic() + pause_s
        with self._lock:
            if self._stopped or (self._timer is not None and self._rings_at <= rings_at):
                return
            if self._timer is not None:
                self._timer.cancel()
            timer = threading.Timer(pause_s, self._ring)
            timer.daemon = True
            try:
                timer.start()
            except RuntimeError as error:
                self._timer = None
                raise ResourceExhausted(f"no thread could be started: {error}", field="threads") from error
            self._timer, self._rings_at = timer, rings_at

    def stop(self) -> None:
        """Do not ring any more; what is being called goes on."""
        with self._lock:
            self._stopped = True
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _ring(self) -> None:
        with self._lock:
            # One that was set for an earlier time has taken the place of this one.
            if self._stopped or self._timer is not threading.current_thread():
                return
            self._timer = None
        self._call()
