"""Signals: Ctrl-C at the worst moments loses nothing, doubles nothing, and nobody waits for ever afterwards."""

from __future__ import annotations

import gc
import linecache
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from tests.engine.conftest import DIM, SMALL, Open
from tests.storage.faults import WatchedFileSystem
from vecdb.engine import leases as leases_module
from vecdb.engine import state, uninterrupted
from vecdb.engine.applied import AppliedRequests
from vecdb.engine.catalogue import Catalogue, CatalogueEntry, write_catalogue
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.leases import Leases
from vecdb.engine.outcome import Outcome
from vecdb.engine.reading import ReadOnlyDatabase
from vecdb.engine.repair import repair_database
from vecdb.engine.root import CATALOGUE, COLLECTIONS
from vecdb.engine.store import OpenCollection
from vecdb.errors import Corruption, ResourceExhausted, Unavailable
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem
from vecdb.storage.lmdb_check import check_environment
from vecdb.storage.lmdb_store import LmdbStore

PLAIN = replace(SMALL, kernels="reference", graph_rows_min=10**6)
ROWS = np.arange(20 * DIM, dtype=np.float32).reshape(20, DIM)


@pytest.fixture(autouse=True)
def _wakeable(interruptible: None) -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    yield
    signal.signal(signal.SIGUSR1, before)


def _interrupt_main(noticed: threading.Event) -> None:
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)
    # A signal that comes just before a wait does not end it; the next one does.
    while not noticed.wait(0.02):
        signal.pthread_kill(main, signal.SIGUSR1)


def require_interrupted(when: Callable[[], bool], during: Callable[[], object]) -> None:
    """Interrupt the main thread, as Ctrl-C does, as soon as ``when`` is true."""
    noticed = threading.Event()

    def interrupt() -> None:
        while not when():
            time.sleep(0.001)
        _interrupt_main(noticed)

    interrupter = threading.Thread(target=interrupt, daemon=True)

    def interrupted() -> None:
        interrupter.start()
        during()

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    noticed.set()
    interrupter.join()


class Interrupting(WatchedFileSystem):
    """Interrupts the main thread, as Ctrl-C does, once, at a call of this name; the call waits until it noticed."""

    def __init__(self, call: str = "") -> None:
        self.at = call
        self.noticed = threading.Event()

    def before(self, call: str, *arguments: Any) -> None:
        if call != self.at:
            return
        self.at = ""
        self.noticed.clear()
        assert threading.current_thread() is not threading.main_thread()
        _interrupt_main(self.noticed)

    def interrupt(self, at: str, during: Callable[[], object]) -> None:
        """See to it that the main thread is interrupted at a call; return when what it did has come to its end."""
        self.at = at
        with pytest.raises(KeyboardInterrupt):
            during()
        self.noticed.set()
        uninterrupted._finish()


@pytest.mark.parametrize("at", ["fdatasync", "committing", "committed", "rename", "fsync_directory"])
def test_an_interrupted_flush_goes_on_and_is_made_once(open_database: Open, at: str) -> None:
    fs = Interrupting()
    database = open_database(PLAIN, fs)
    collection = database.create_collection("c", DIM)
    collection.upsert(list(range(20)), ROWS, request_id="r")
    fs.interrupt(at, collection.flush)
    assert collection.stats().segments == 1
    collection.delete([3])
    collection.upsert([20], ROWS[:1])
    collection.flush()
    ids = [*range(3), *range(4, 21)]
    assert sorted(point.id for point in collection.scroll()) == ids
    database.close()
    assert sorted(point.id for point in open_database(PLAIN).collection("c").scroll()) == ids


@pytest.mark.parametrize("at", ["write", "fdatasync"])
def test_an_interrupted_write_is_made_whole_and_holds_up_no_other(open_database: Open, at: str) -> None:
    fs = Interrupting()
    database = open_database(PLAIN, fs)
    collection = database.create_collection("c", DIM)
    collection.upsert([100], ROWS[:1])
    fs.interrupt(at, lambda: collection.upsert(list(range(20)), ROWS))
    collection.upsert([101], ROWS[:1])
    assert collection.count() == 22
    database.close()
    assert open_database(PLAIN).collection("c").count() == 22


@pytest.mark.parametrize("at", ["make_directory", "committed", "rename"])
def test_an_interrupted_creation_goes_on_and_may_be_asked_for_again(open_database: Open, at: str) -> None:
    fs = Interrupting()
    database = open_database(PLAIN, fs)
    fs.interrupt(at, lambda: database.create_collection("c", DIM))
    collection = database.create_collection("c", DIM, exist_ok=True)
    collection.upsert([1], ROWS[:1])
    database.close()
    database = open_database(PLAIN)
    assert list(database.collections()) == ["c"]
    assert database.collection("c").count() == 1


def test_interrupted_snapshots_and_drops_go_on(open_database: Open) -> None:
    fs = Interrupting()
    database = open_database(PLAIN, fs)
    collection = database.create_collection("c", DIM)
    collection.upsert(list(range(20)), ROWS)
    collection.create_snapshot("a")
    collection.delete([0])
    collection.flush()
    fs.interrupt("committed", lambda: collection.create_snapshot("b"))
    fs.interrupt("committed", lambda: collection.drop_snapshot("a"))
    assert [each.name for each in collection.snapshots()] == ["b"]
    fs.interrupt("committed", lambda: database.drop_collection("c"))
    assert list(database.collections()) == []
    database.create_collection("d", DIM)
    database.close()
    assert list(open_database(PLAIN).collections()) == ["d"]


def test_a_database_that_was_opened_for_nobody_is_closed(tmp_path: Path) -> None:
    fs = Interrupting()
    fs.interrupt("committed", lambda: EmbeddedDatabase.open(tmp_path / "db", options=PLAIN, file_system=fs))
    database = EmbeddedDatabase.open(tmp_path / "db", options=PLAIN, file_system=fs)
    database.create_collection("c", DIM).upsert([1], ROWS[:1])
    fs.interrupt("fdatasync", database.close)
    with EmbeddedDatabase.open(tmp_path / "db", options=PLAIN) as database:
        assert database.collection("c").count() == 1


def test_what_nobody_waits_for_is_discarded_also_if_it_was_there_first() -> None:
    discarded: list[int] = []
    call = uninterrupted._Call(lambda: 7, discarded.append)
    call.make()
    assert call.outcome.result() == 7
    call.leave()
    uninterrupted._finish()
    assert discarded == [7]


def test_a_call_is_made_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    for name in ("_ordered", "_unordered"):
        monkeypatch.setattr(uninterrupted, name, uninterrupted._Hands(uninterrupted._start))
    monkeypatch.setattr("_thread.start_new_thread", refused)
    for made in (uninterrupted.in_order, uninterrupted.uninterrupted):
        assert made(lambda: 7)() == 7
        with pytest.raises(ZeroDivisionError):
            made(lambda: 1 / 0)()


def test_whoever_is_interrupted_holds_up_nobody_who_tells_an_outcome() -> None:
    outcome: Outcome[int] = Outcome()
    require_interrupted(lambda: True, outcome.result)
    teller = threading.Thread(target=outcome.set_result, args=(7,), daemon=True)
    teller.start()
    teller.join(30)
    assert outcome.done
    assert outcome.result() == outcome.result() == 7


def test_an_interrupted_write_is_not_overtaken_by_the_next(open_database: Open) -> None:
    collection = open_database(PLAIN).create_collection("c", DIM)
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        go_on.wait(30)

    require_interrupted(begun.is_set, uninterrupted.in_order(slow))
    # Before it could begin.
    require_interrupted(
        lambda: uninterrupted._ordered.queue.qsize() == 1,
        lambda: collection.upsert([1], ROWS[:1], [{"v": "interrupted"}]),
    )
    go_on.set()
    collection.upsert([1], ROWS[:1], [{"v": "acknowledged"}])
    uninterrupted._finish()
    assert collection.get([1])[0].payload == {"v": "acknowledged"}
    assert collection.stats().last_seq == 2


class _Opened:
    """As much of an open collection as leases need."""

    def begin_close(self) -> None: ...

    def close(self, *, keep: bool = True) -> None: ...

    def tell_failure(self, error: BaseException) -> None: ...


def test_a_lease_ends_wherever_its_user_is_interrupted() -> None:
    """A signal's exception comes when a function begins or between its steps, but not at the end of a ``with``."""
    interruptions = 0
    for n in range(1, 1_000):
        leases: Leases[Any] = Leases(1, lambda _: _Opened())
        leases.lease("a").use(lambda _: None)
        left = n

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal left
            if frame.f_code.co_filename != leases_module.__file__:
                return None
            if event == "call" or not linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip().startswith(
                "with"
            ):
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        kept: BaseException | None = None  # As the interactive interpreter keeps it, with all that its traceback holds.
        try:
            sys.settrace(trace)
            leases.lease("a").use(lambda _: None)
        except KeyboardInterrupt as error:
            kept = error
            interruptions += 1
        finally:
            sys.settrace(before)
        closing = threading.Thread(target=leases.close_all, daemon=True)
        closing.start()
        closing.join(30)
        assert not closing.is_alive(), (n, kept)
        if kept is None:
            break
    assert interruptions > 10


def test_a_commit_that_was_interrupted_leaves_an_environment_that_takes_no_more(tmp_path: Path) -> None:
    class Fails(FileSystem):
        fails = False

        def committed(self, path: Path) -> None:
            if self.fails:
                raise KeyboardInterrupt

    directory = MmapDirectory.open(tmp_path, Fails(), create=True)
    store = LmdbStore.open(directory)
    store.commit({b"a": b"1"})
    directory.fs.fails = True  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        store.commit({b"b": b"2"})
    directory.fs.fails = False  # type: ignore[attr-defined]
    with pytest.raises(Unavailable):
        store.commit({b"c": b"3"})
    store.close()
    assert check_environment(directory) == 2
    store = LmdbStore.open(directory)
    assert (store.generation, store.items()) == (2, [(b"a", b"1"), (b"b", b"2")])
    store.commit({b"c": b"3"})
    store.close()
    assert check_environment(directory) == 3


def test_a_catalogue_that_was_interrupted_takes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = MmapDirectory.open(tmp_path, FileSystem(), create=True)
    catalogue = Catalogue.open(directory, create=True)
    real = LmdbStore.commit

    def interrupted(self: LmdbStore, *arguments: Any) -> int:
        real(self, *arguments)
        raise KeyboardInterrupt

    def refused(self: LmdbStore, *arguments: Any) -> int:
        raise ResourceExhausted("no memory", field="memory")

    monkeypatch.setattr(LmdbStore, "commit", refused)
    with pytest.raises(ResourceExhausted):
        catalogue.add("c", "0")
    monkeypatch.setattr(LmdbStore, "commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        catalogue.add("c", "1")
    monkeypatch.setattr(LmdbStore, "commit", real)
    for change in (lambda: catalogue.add("c", "2"), lambda: catalogue.add("d", "3")):
        with pytest.raises(Unavailable, match="reopen"):
            change()
    catalogue.close()
    catalogue = Catalogue.open(directory, create=False)
    assert {name: each.collection_id for name, each in catalogue.entries.items()} == {"c": "1"}
    catalogue.close()


def test_of_two_collections_of_one_name_neither_is_removed(tmp_path: Path) -> None:
    ids: list[str] = []
    for place, rows in (("db", 3), ("other", 5)):
        with EmbeddedDatabase.open(tmp_path / place, options=PLAIN) as database:
            collection = database.create_collection("a", DIM)
            for row in range(rows):
                collection.upsert([row], ROWS[:1])
            collection.flush()
            ids.append(database.collection("a").collection_id)
    path = tmp_path / "db"
    # As an interrupted creation and the one after it would leave them, if a catalogue took the second.
    shutil.copytree(tmp_path / "other" / COLLECTIONS / ids[1], path / COLLECTIONS / ids[1])
    directory = MmapDirectory.open(path / CATALOGUE, FileSystem(), create=False)
    write_catalogue(directory, [CatalogueEntry("a", each, 1) for each in ids], None, 1)
    with pytest.raises(Corruption, match=r"vecdb repair") as refused:
        EmbeddedDatabase.open(path, options=PLAIN)
    assert all(each in str(refused.value) for each in ids)
    assert {each.name for each in (path / COLLECTIONS).iterdir()} == set(ids)
    report = repair_database(path)
    assert [each.name for each in (path / report.quarantine / COLLECTIONS).iterdir()] == ids[:1]
    with EmbeddedDatabase.open(path, options=PLAIN) as database:
        assert database.collection("a").count() == 5


def test_a_collection_that_stopped_commits_nothing_more(open_database: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    database = open_database(PLAIN)
    collection = database.create_collection("c", DIM)
    collection.upsert(list(range(20)), ROWS)
    collection.create_snapshot("a")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(state, "write_mirror", interrupted)
        with pytest.raises(Unavailable):
            collection.create_snapshot("b")
    with pytest.raises(Unavailable):
        collection.drop_snapshot("a")
    database.close()
    collection = open_database(PLAIN).collection("c")
    assert [(each.name, collection.count(at=each.name)) for each in collection.snapshots()] == [("a", 20), ("b", 20)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_flush_that_failed_after_its_commit_is_not_made_again(
    open_database: Open, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    database = open_database(PLAIN)
    collection = database.create_collection("c", DIM)
    collection.upsert(list(range(20)), ROWS, request_id="r")

    def failing(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(AppliedRequests, "forget", failing)
        # By whichever thread makes it.
        with pytest.raises((KeyboardInterrupt, ResourceExhausted, Unavailable)):
            collection.flush()
    with pytest.raises(Unavailable):
        collection.flush()
    with pytest.raises(Unavailable):
        collection.delete([3])
    assert collection.count() == 20
    database.close()
    database = open_database(PLAIN)
    collection = database.collection("c")
    assert (collection.count(), collection.stats().segments) == (20, 1)
    collection.delete([3])
    assert collection.get([3]) == []
    collection.flush()
    assert sorted(point.id for point in collection.scroll()) == [*range(3), *range(4, 20)]


FINALISER = """
import sys, vecdb
from vecdb.engine.options import EngineOptions

class Keeper:
    def __init__(self):
        self.database = vecdb.open(sys.argv[1], options=EngineOptions(kernels="reference"))
        self.database.create_collection("docs", dim=2).upsert([1], [[1, 0]])

    def __del__(self):
        self.database.close()

keeper = Keeper()
"""


def test_a_database_that_is_closed_while_the_interpreter_ends_holds_nobody_up(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", FINALISER, str(tmp_path / "db")], timeout=60, check=False)
    assert ended.returncode == 0
    with EmbeddedDatabase.open(tmp_path / "db", options=PLAIN) as database:
        assert database.collection("docs").count() == 1


def test_a_call_for_which_there_is_no_memory_is_answered(open_database: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    database = open_database(PLAIN)
    collection = database.create_collection("docs", dim=DIM)
    collection.upsert(range(20), ROWS)

    start = threading.Thread.start

    def no_memory(self: threading.Thread) -> None:
        if self.name == "vecdb-call":
            raise MemoryError
        start(self)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_memory)
        collection.wait_indexed(60)
    collection.flush()
    assert collection.count() == 20


def test_a_failure_keeps_nothing_of_its_call() -> None:
    class Argument:
        pass

    @uninterrupted.in_order
    def refuse(argument: Argument) -> None:
        raise ValueError

    argument = Argument()
    gone = weakref.ref(argument)
    gc.disable()
    try:
        # Not pytest.raises, which keeps the traceback for a while.
        try:
            refuse(argument)
        except ValueError:
            del argument
        # The other thread lets go of it a moment after it told the failure.
        end = time.monotonic() + 30
        while gone() is not None and time.monotonic() < end:
            time.sleep(0.001)
        assert gone() is None
    finally:
        gc.enable()


def test_a_refresh_that_was_interrupted_is_made_again_from_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        EmbeddedDatabase.open(tmp_path / "db", options=PLAIN) as database,
        database_open_for_reading(tmp_path / "db", database) as reader,
    ):
        written, read = database.collection("docs"), reader.collection("docs")
        written.upsert([3, 4], ROWS[2:4])
        written.delete([4])
        written.upsert([3], ROWS[5:6])
        publish = state.CollectionState.publish

        def interrupted(self: state.CollectionState, view: Any) -> None:
            if sys._getframe(1).f_code.co_name != "refresh":
                return publish(self, view)
            monkeypatch.setattr(state.CollectionState, "publish", publish)
            raise KeyboardInterrupt

        monkeypatch.setattr(state.CollectionState, "publish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            read.refresh()
        read.refresh()
        assert read.count() == written.count() == 3
        assert sorted(each.id for each in read.scroll()) == [1, 2, 3]
        assert sorted(read.search(ROWS[0], k=10).ids) == [1, 2, 3]


@contextmanager
def database_open_for_reading(path: Path, database: EmbeddedDatabase) -> Iterator[ReadOnlyDatabase]:
    """A reader of a database with two points, which it has seen."""
    database.create_collection("docs", dim=DIM).upsert([1, 2], ROWS[:2])
    with ReadOnlyDatabase.open(path, options=PLAIN) as reader:
        assert reader.collection("docs").count() == 2
        yield reader


def test_closing_waits_for_a_collection_that_is_being_displaced(
    open_database: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_database(replace(PLAIN, open_collections_max=1))
    one, other = (database.create_collection(name, dim=DIM) for name in ("one", "other"))
    other.upsert([1], ROWS[:1])
    one.upsert([1], ROWS[:1])
    displacing, displaced = threading.Event(), threading.Event()
    close = OpenCollection.close

    def slow(self: OpenCollection, *, keep: bool = True) -> None:
        displacing.set()
        time.sleep(0.3)
        close(self, keep=keep)
        displaced.set()

    monkeypatch.setattr(OpenCollection, "close", slow)
    require_interrupted(displacing.is_set, lambda: other.search(ROWS[0], k=1))
    monkeypatch.setattr(OpenCollection, "close", close)
    database.close()
    assert displaced.is_set()
