"""The process that loads or searches one embedded database, told what to do by its parent as ``worker`` is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from vecdb.bench.engines.database import Database
from vecdb.bench.engines.protocol import Bound
from vecdb.bench.worker import Command, Reply, Worker, main, time_single


class ForgivingCalls:
    """Searches that answer with nothing where the database raises, and count that.

    Attributes
    ----------
    bound
        The searches to time.
    errors
        Answers that were errors, among those whose rows were asked for.
    last
        The error raised last.
    """

    def __init__(self, bound: Bound) -> None:
        self.errors = 0
        self.last: Exception | None = None
        self._bound = bound
        self._failed = object()
        self.bound = replace(bound, one=self._one, rows_of_one=self._rows)

    def _one(self, at: int) -> Any:
        try:
            return self._bound.one(at)
        # Whatever a database raises is its answer to this query.
        except Exception as error:  # noqa: BLE001
            self.last = error
            return self._failed

    def _rows(self, found: Any) -> Sequence[int]:
        if found is self._failed:
            self.errors += 1
            return ()
        return self._bound.rows_of_one(found)


class DatabaseWorker(Worker):
    """One database, from its import to its end in this process."""

    kind = "databases"

    @property
    def database(self) -> Database:
        """The engine, which is one."""
        return cast("Database", self.engine)

    def verbs(self) -> dict[str, Callable[[Command], Reply]]:
        """More: to open again, to answer once, and nothing."""
        more: dict[str, Callable[[Command], Reply]] = {
            "nothing": self.nothing,
            "open_again": self.open_again,
            "first_answer": self.first_answer,
        }
        return super().verbs() | more

    def nothing(self, command: Command) -> Reply:
        """To see what it costs to start this process and hear of it."""
        return {}

    def build(self, command: Command) -> Reply:
        """Load, as ``worker`` builds, after compiling what is compiled once for each machine."""
        self.database.warm_up()
        reply = super().build(command)
        return {**reply, "insert_seconds": self.database.insert_seconds, "durable": self.database.durable}

    def open_again(self, command: Command) -> Reply:
        """Open what another process loaded; ``memory`` counts from here on, with libraries and kernels loaded."""
        self.database.warm_up()
        self.remember_memory()
        self.database.open_again()
        return {}

    def first_answer(self, command: Command) -> Reply:
        """Open what another process loaded and answer one query."""
        self.database.open_again()
        bound = self.database.bind_where(command["k"], command["effort"], None)
        return {"rows": list(bound.rows_of_one(bound.one(0)))}

    def search(self, command: Command) -> Reply:
        """Time the queries with one effort and filter; a call that raises is counted and finds nothing."""
        calls = ForgivingCalls(self.database.bind_where(command["k"], command["effort"], command["below"]))
        reply, rows = time_single(calls.bound, command["queries"], command["seconds_min"], command["seconds_max"])
        if calls.last is not None and calls.errors == len(rows):
            raise calls.last
        np.save(command["rows_to"], rows, allow_pickle=False)
        return {**reply, "alone": not self.database.processes(), "errors": calls.errors}


if __name__ == "__main__":
    main(DatabaseWorker())
