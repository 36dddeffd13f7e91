"""Work of one collection on a thread that all collections share: never twice at once, and never after ``stop``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from vecdb.engine.threads import Pool
from vecdb.engine.uninterrupted import uninterrupted


class BackgroundWork:
    """A function that runs again whenever there may be something for it to do.

    Parameters
    ----------
    work
        Does what there is to do and returns; it handles its own errors. Asked for while it runs, it runs once more.
    """

    def __init__(self, pool: Pool, work: Callable[[], None]) -> None:
        self._pool = pool
        self._work = work
        self._changed = threading.Condition()
        self._wanted = False
        self._stopped = False
        self._future: Future[None] | None = None

    def schedule(self) -> None:
        """Run it, soon.

        Raises
        ------
        ResourceExhausted
            No thread could be started.
        """
        # What runs looks once more after this, and finds what this caller wants done. Searches come here often, and on
        # the main thread the other way costs as much as a search.
        if not self._wanted or self._future is None:
            self._want()

    @uninterrupted
    def _want(self) -> None:
        with self._changed:
            if self._stopped:
                return
            self._wanted = True
            if self._future is None:
                self._future = self._pool.submit(self._run)

    def stop(self) -> None:
        """Begin no other run, and wait for the present one, but not for a thread that is busy with something else."""
        with self._changed:
            self._stopped = True
            if self._future is not None and self._future.cancel():
                self._future = None
            while self._future is not None:
                self._changed.wait()

    def _run(self) -> None:
        try:
            while self._goes_on():
                self._work()
        except BaseException:
            self._end()
            raise

    def _goes_on(self) -> bool:
        with self._changed:
            if not self._wanted or self._stopped:
                self._end()
                return False
            self._wanted = False
            return True

    def _end(self) -> None:
        with self._changed:
            self._future = None
            self._changed.notify_all()
