"""The demo from beginning to end: kernels, text, index, questions, measures, kill -9, and what to do next."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vecdb.api import Collection, Database
from vecdb.demo.crash import kill_a_writer
from vecdb.demo.embedder import Embedder
from vecdb.demo.material import Material, gather
from vecdb.demo.measure import measure
from vecdb.demo.questions import QUESTIONS, ask
from vecdb.demo.report import CrashReport, DemoReport, Measures, Stopwatch
from vecdb.demo.row import Row
from vecdb.demo.screen import Screen
from vecdb.demo.telling import short_path, tell_crash, tell_measures, tell_summary
from vecdb.engine.database import EmbeddedDatabase
from vecdb.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument
from vecdb.results.stats import CollectionStats

COLLECTION = "passages"
PAYLOAD_KEYS = frozenset({"title", "module", "package", "text", "kind", "line"})

ROWS_DEFAULT = 24_000
ROWS_MIN, ROWS_MAX = 1_000, 1_000_000
WRITE_BATCH_ROWS = 1_000
INDEX_TIMEOUT_S = 600.0
INDEX_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What to do, and where.

    Attributes
    ----------
    path
        Directory of the database, made if missing. An earlier demo there is replaced; anything else is refused.
    rows
        Passages to read, 1,000 to 1,000,000; a machine may have fewer.
    keep
        Leave the database for the user to play with.
    """

    path: Path = Path("vecdb-demo")
    rows: int = ROWS_DEFAULT
    keep: bool = True

    def __post_init__(self) -> None:
        if not ROWS_MIN <= self.rows <= ROWS_MAX:
            limit = f"{ROWS_MIN}..{ROWS_MAX}"
            raise InvalidArgument(f"rows must be {limit}, got {self.rows}", field="rows", limit=limit, value=self.rows)


def run(options: DemoOptions, screen: Screen) -> DemoReport:
    """Do all of it.

    Raises
    ------
    FailedPrecondition
        ``path`` holds something that is not a demo's database, or no embedding model is installed.
    VecdbError
        Whatever the database says; nothing is caught.
    """
    start = time.perf_counter()
    stopwatch = Stopwatch()
    with stopwatch.measuring("load model"):
        embedder = Embedder()
    database = open_for_demo(options.path)
    try:
        compile_s = _compile(screen, stopwatch)
        material = gather(options.rows, embedder, screen, stopwatch)
        collection, stats = _index(database, embedder.dim, material.rows, screen, stopwatch)
        answers = _ask(collection, embedder, screen)
        measures = _measure(collection, material, stats, screen, stopwatch)
        database.close()
        crash, database = _crash(options.path, material, screen, stopwatch)
        collection = database.collection(COLLECTION)
        if crash.kept:
            _write(collection, material.held_back, screen, stopwatch)
        points = collection.count()
    finally:
        database.close()
    if crash.kept and not options.keep:
        shutil.rmtree(options.path)
    report = DemoReport(
        path=str(options.path),
        collection=COLLECTION,
        rows_asked=options.rows,
        passages=points,
        compile_s=compile_s,
        seconds=stopwatch.seconds,
        total_s=time.perf_counter() - start,
        answers=answers,
        measures=measures,
        disk_bytes=stats.disk_bytes,
        role_bytes=dict(stats.role_bytes),
        log_bytes=stats.log_bytes,
        crash=crash,
    )
    tell_summary(report, options.keep, screen)
    return report


def open_for_demo(path: Path) -> Database:
    """The database at ``path`` without the passages of an earlier demo.

    Raises
    ------
    FailedPrecondition
        There is something else; nothing was changed.
    """
    if path.exists() and not path.is_dir():
        raise _refusal(path)
    database = EmbeddedDatabase.open(path)
    try:
        names = list(database.collections())
        if any(name != COLLECTION or not _is_of_demo(database.collection(name)) for name in names):
            raise _refusal(path)
        for name in names:
            database.drop_collection(name)
    except BaseException:
        database.close()
        raise
    return database


def _refusal(path: Path) -> FailedPrecondition:
    return FailedPrecondition(
        f"{path} holds something that is not a demo's database; choose another directory with --path",
        field="path",
        value=path,
    )


def _is_of_demo(collection: Collection) -> bool:
    points = collection.scroll_page(1).points
    return all(point.payload is not None and point.payload.keys() >= PAYLOAD_KEYS for point in points)


def _compile(screen: Screen, stopwatch: Stopwatch) -> float:
    """Compile the kernels before anything else is measured; seconds spent on those that were not cached."""
    screen.heading("Search kernels")
    with stopwatch.measuring("kernels"), screen.bar("compile", None, "kernels") as bar:
        from vecdb.kernels.cpu import CpuKernels
        from vecdb.kernels.cpu.cache import DIRECTORY

        def progress(name: str, seconds: float) -> None:
            bar.advance(1)
            bar.note(f"{name} {seconds:.1f} s")

        kernels = CpuKernels()
        warmed = kernels.warm_up(progress)
    fresh = [each for each in warmed if not each.cached]
    compile_s = sum(each.seconds for each in fresh)
    where = "not kept" if DIRECTORY is None else f"kept in {short_path(DIRECTORY.parent)}"
    if fresh:
        screen.say(
            f"{len(fresh)} kernels compiled for {kernels.name} in {compile_s:.1f} s, once per machine ({where})."
        )
    else:
        screen.say(f"{len(warmed)} kernels for {kernels.name}, compiled before ({where}).")
    return compile_s


def _index(
    database: Database, dim: int, rows: list[Row], screen: Screen, stopwatch: Stopwatch
) -> tuple[Collection, CollectionStats]:
    screen.heading("Index")
    collection = database.create_collection(COLLECTION, dim=dim, metric="cosine")
    _write(collection, rows, screen, stopwatch)
    with stopwatch.measuring("index"):
        _wait_indexed(collection, screen)
    write_s, index_s = stopwatch.seconds["write"], stopwatch.seconds["index"]
    screen.say(
        f"{len(rows):,} passages written durably in {write_s:.1f} s ({len(rows) / write_s:,.0f} a second) and "
        f"searchable at once; the graph was ready {index_s:.1f} s later."
    )
    return collection, collection.stats()


def _write(collection: Collection, rows: list[Row], screen: Screen, stopwatch: Stopwatch) -> None:
    with stopwatch.measuring("write"), screen.bar("write", len(rows), "passages") as bar:
        for start in range(0, len(rows), WRITE_BATCH_ROWS):
            batch = rows[start : start + WRITE_BATCH_ROWS]
            collection.upsert(
                [row.id for row in batch], np.stack([row.vector for row in batch]), [row.payload for row in batch]
            )
            bar.advance(len(batch))


def _wait_indexed(collection: Collection, screen: Screen) -> None:
    """Wait for the index in short steps, so that the bar can move."""
    deadline = time.monotonic() + INDEX_TIMEOUT_S
    waiting = collection.stats().unindexed_rows
    with screen.bar("index", None, "") as bar:
        # A graph is attached when it is whole, so the count jumps; how long it takes is told by the clock beside it.
        bar.note(f"{waiting:,} passages to do")
        while True:
            try:
                collection.wait_indexed(timeout_s=INDEX_POLL_S)
            except DeadlineExceeded:
                if time.monotonic() > deadline:
                    raise
                now = min(waiting, collection.stats().unindexed_rows)
                bar.advance(waiting - now)
                waiting = now
            else:
                bar.advance(waiting)
                return


def _ask(collection: Collection, embedder: Embedder, screen: Screen) -> dict[str, list[str]]:
    """Ask every question; the titles of the answers."""
    screen.heading("Questions in plain words")
    titles = {}
    for question in QUESTIONS:
        found = ask(collection, embedder, question)
        titles[question.text] = [answer.title for answer in found]
        screen.answers(question.text, found, note=f"where {question.where}" if question.where else "")
    return titles


def _measure(
    collection: Collection, material: Material, stats: CollectionStats, screen: Screen, stopwatch: Stopwatch
) -> Measures:
    screen.heading("Measured")
    with stopwatch.measuring("measure"), screen.bar("search", None, "queries") as bar:
        ids = [row.id for row in material.rows]
        measures = measure(collection, ids, material.vectors, material.queries, bar.advance)
    tell_measures(measures, stats, screen)
    return measures


def _crash(path: Path, material: Material, screen: Screen, stopwatch: Stopwatch) -> tuple[CrashReport, Database]:
    screen.heading("kill -9 while another process writes")
    screen.say(
        "It writes to the same database, batch by batch, says when it begins one and reports each that is durable. It "
        "is killed at a random moment. Then the directory is opened again, and every row is compared with what had "
        "been reported."
    )
    settled = {row.id: row for row in material.rows}
    with stopwatch.measuring("crash"), screen.bar("acknowledged", None, "row writes") as bar:
        crash, database = kill_a_writer(path, COLLECTION, settled, material.held_back, bar.advance)
    tell_crash(crash, len(settled), screen)
    return crash, database
