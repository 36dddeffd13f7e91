"""sqlite-vec: an exact scan of float32 vectors in SQLite, with the field as a column that the scan filters by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vecdb.bench.engines.database import Database, RowBatch
from vecdb.types import Metric

METRICS = {Metric.COSINE: "cosine", Metric.L2: "l2"}


class SqliteVecTable(Database):
    """A ``vec0`` table, through APSW: the SQLite of many Python builds loads no extensions."""

    # In write-ahead mode a commit is synced only under `synchronous=full`, which is the default and kept here.
    durable = True
    metrics = METRICS

    def load_library(self) -> None:
        """Import the library."""
        import apsw
        import sqlite_vec

        self.apsw, self.sqlite_vec = apsw, sqlite_vec

    def create(self) -> None:
        """One table in write-ahead mode."""
        self.open_again()
        self.connection.execute("pragma journal_mode=wal")
        self.connection.execute(
            "create virtual table bench using vec0("
            f"id integer primary key, bucket integer, vector float[{self.vectors.dim}] distance_metric={self.metric}, "
            "+text text)"
        )

    def insert(self, batch: RowBatch) -> None:
        """``executemany`` in one transaction."""
        with self.connection:
            self.connection.executemany(
                "insert into bench(id, bucket, vector, text) values (?, ?, ?, ?)",
                zip(batch.ids, batch.buckets, map(bytes, batch.vectors), batch.texts, strict=True),
            )

    def finish(self) -> None:
        """There is no index; the log is written back."""
        self.connection.execute("pragma wal_checkpoint(truncate)")

    def open_again(self) -> None:
        """Open the file and load the extension."""
        self.connection = self.apsw.Connection(str(self.directory / "bench.sqlite"))
        self.connection.enable_load_extension(True)
        self.connection.load_extension(self.sqlite_vec.loadable_path())

    def asker(self, k: int, effort: int | None, below: int | None) -> Callable[[int], Any]:
        """A KNN query; there is no effort to choose."""
        execute, rows = self.connection.execute, [bytes(row) for row in self.vectors.queries]
        where = "" if below is None else f" and bucket < {below}"
        statement = f"select id, distance from bench where vector match ? and k = {k}{where}"  # noqa: S608
        return lambda at: execute(statement, (rows[at],)).fetchall()

    def rows_of(self, found: Any) -> Sequence[int]:
        """The column of ids."""
        return [int(id) for id, _ in found]

    def parameters(self) -> Mapping[str, Any]:
        """The versions of what it stands on."""
        return {"sqlite": self.apsw.sqlite_lib_version(), "apsw": self.apsw.apsw_version()}

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()
