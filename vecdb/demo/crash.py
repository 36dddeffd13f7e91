"""kill -9 while another process writes, and what is left afterwards.

The parent process makes every batch, sends it to a writer process (``writer.py``) over a pipe, and keeps its own
record of which writes the writer began and of which it got acknowledged. It kills the writer at a random moment, opens
the directory itself and compares every row. So the database is judged by a record that it had no part in.
"""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vecdb.api import Collection, Database
from vecdb.demo.report import CrashReport
from vecdb.demo.row import Row
from vecdb.engine.database import EmbeddedDatabase
from vecdb.errors import Internal
from vecdb.results.points import Point

BATCH_ROWS = 20
KILL_AFTER_S_MIN, KILL_AFTER_S_MAX = 0.4, 1.6


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """An endless sequence of batches over the same rows: first they are inserted, then rewritten again and again."""

    rows: Sequence[Row]

    def batch(self, number: int) -> list[Row]:
        """The rows of the ``number``-th batch."""
        count = min(BATCH_ROWS, len(self.rows))
        first = number * count
        return [
            self.rows[position % len(self.rows)].revised(1 + position // len(self.rows))
            for position in range(first, first + count)
        ]

    def after(self, batches: int) -> dict[str, Row]:
        """What the rows are after the first ``batches`` batches."""
        return {row.id: row for number in range(batches) for row in self.batch(number)}


class KilledWriter:
    """A writer process from its start to its violent end.

    Attributes
    ----------
    begun, acknowledged
        Batches whose write was announced; batches reported as durable. The first ones of the plan, in order. They
        differ by one where the kill came in the middle of a write.
    killed_after_s
        Seconds from the first acknowledgement to the kill.
    """

    def __init__(self, path: Path, collection: str, plan: BatchPlan) -> None:
        self.begun = 0
        self.acknowledged = 0
        self.killed_after_s = float(np.random.default_rng().uniform(KILL_AFTER_S_MIN, KILL_AFTER_S_MAX))
        self._plan = plan
        self._command = [sys.executable, "-m", "vecdb.demo.writer", str(path), collection]

    def run(self, progress: Callable[[int], None]) -> None:
        """Start the writer, feed it, kill it, and read the acknowledgements it had still sent.

        Raises
        ------
        Internal
            The writer stopped by itself.
        """
        # In a session of its own: an interrupt from the keyboard is this process's to handle.
        with subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            feeder = threading.Thread(target=self._feed, args=(process,), name="vecdb-demo-feeder")
            feeder.start()
            killer = threading.Timer(self.killed_after_s, process.kill)
            try:
                for line in process.stdout:
                    if self._heard(line):
                        if self.acknowledged == 1:
                            killer.start()
                        progress(len(self._plan.batch(self.acknowledged - 1)))
            finally:
                killer.cancel()
                process.kill()
                process.wait()
                feeder.join()
            if process.returncode != -signal.SIGKILL or self.acknowledged == 0:
                # A traceback ends with what went wrong.
                message = (process.stderr.read().strip().splitlines() or ["no message"])[-1]
                raise Internal(f"the writer of the demo stopped by itself: {message}", value=process.returncode)

    def _heard(self, line: str) -> bool:
        """Take down what the writer said; whether it was an acknowledgement."""
        what, number = line.split()[:2]
        expected = self.begun if what == "begin" else self.acknowledged
        assert what in ("begin", "done"), line
        assert int(number) == expected, f"the writer said {line!r}, expected batch {expected}"
        if what == "begin":
            self.begun += 1
            return False
        self.acknowledged += 1
        return True

    def _feed(self, process: subprocess.Popen[str]) -> None:
        """Keep the pipe full until its other end is gone."""
        assert process.stdin is not None
        number = 0
        try:
            while True:
                process.stdin.write(_encoded(self._plan.batch(number)))
                process.stdin.flush()
                number += 1
        except BrokenPipeError:
            # The reader is dead, which is what this is all about.
            with suppress(BrokenPipeError):
                process.stdin.close()


def _encoded(batch: Sequence[Row]) -> str:
    vectors = np.stack([row.vector for row in batch]).astype("<f4")
    return (
        json.dumps(
            {
                "ids": [row.id for row in batch],
                "payloads": [row.payload for row in batch],
                "vectors": base64.b64encode(vectors.tobytes()).decode("ascii"),
            }
        )
        + "\n"
    )


def kill_a_writer(
    path: Path, collection: str, settled: Mapping[str, Row], held_back: Sequence[Row], progress: Callable[[int], None]
) -> tuple[CrashReport, Database]:
    """Let a writer process insert and rewrite ``held_back`` until it is killed.

    Returns
    -------
    tuple
        What is left, and the reopened database, which the caller closes.

    Parameters
    ----------
    path, collection
        A database that nobody has open.
    settled
        By id, every row that the collection holds.
    held_back
        Rows that it does not hold.
    progress
        Called with the number of rows of each acknowledged batch.
    """
    plan = BatchPlan(held_back)
    writer = KilledWriter(path, collection, plan)
    writer.run(progress)

    start = time.perf_counter()
    database = EmbeddedDatabase.open(path)
    reopened = database.collection(collection)
    reopened.search(held_back[0].vector, k=1)
    reopened_in_s = time.perf_counter() - start
    return inspected(reopened, plan, writer, settled, reopened_in_s), database


def inspected(
    collection: Collection, plan: BatchPlan, writer: KilledWriter, settled: Mapping[str, Row], reopened_in_s: float
) -> CrashReport:
    """Compare every row of ``collection`` with the record."""
    points: dict[object, Point] = {point.id: point for point in collection.scroll(with_vectors=True)}
    expected = plan.after(writer.acknowledged)
    compared = len(expected)
    in_flight = "idle"
    if writer.begun > writer.acknowledged:
        batch = plan.batch(writer.acknowledged)
        arrived = [row.is_stored_as(points.get(row.id)) for row in batch]
        in_flight = "all" if all(arrived) else "part" if any(arrived) else "none"
        if in_flight == "all":
            expected.update((row.id, row) for row in batch)
    lost = sum(not row.is_stored_as(points.get(row.id)) for row in expected.values())
    disturbed = sum(not row.is_stored_as(points.get(row.id)) for row in settled.values())
    return CrashReport(
        acknowledged_batches=writer.acknowledged,
        acknowledged_row_writes=sum(len(plan.batch(number)) for number in range(writer.acknowledged)),
        compared_rows=compared,
        lost_rows=lost,
        disturbed_rows=disturbed,
        stray_rows=sum(each not in expected and each not in settled for each in points),
        in_flight=in_flight,
        killed_after_s=writer.killed_after_s,
        reopened_in_s=reopened_in_s,
    )
