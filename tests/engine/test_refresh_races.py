"""Whatever the writer does between any two calls of a reader: what was acknowledged before is visible after."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.engine.written import (
    DIM,
    OPTIONS,
    Writer,
    check,
    flush,
    flush_and_write,
    flush_twice,
    reading,
    write_and_flush,
)
from vecdb.engine.database import EmbeddedDatabase
from vecdb.errors import NotFound, ResourceExhausted
from vecdb.storage.io import Buffer, FileSystem


class Interrupting(FileSystem):
    """Does something just before the n-th call of those that read."""

    def __init__(self) -> None:
        self.calls = 0
        self.at = -1
        self.action: Callable[[], None] = lambda: None

    def _call(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            self.action()

    def open_read(self, path: Path) -> int:
        self._call()
        return super().open_read(path)

    def read(self, fd: int, buffer: bytearray | memoryview, offset: int) -> int:
        self._call()
        return super().read(fd, buffer, offset)

    def names(self, path: Path) -> list[tuple[str, bool]]:
        self._call()
        return super().names(path)

    def map(self, fd: int, size_bytes: int) -> memoryview:
        self._call()
        return super().map(fd, size_bytes)

    def size_of(self, path: Path) -> int | None:
        self._call()
        return super().size_of(path)


@pytest.mark.parametrize(
    ("action", "news"),
    [
        (write_and_flush, "nothing"),
        (flush_twice, "nothing"),
        (flush, "in the log"),
        (flush_and_write, "in the log"),
        (write_and_flush, "flushed"),
        (flush_twice, "flushed"),
    ],
)
def test_the_writer_may_come_between_any_two_calls_of_a_refresh(
    writer: Writer, action: Callable[[Writer], None], news: str
) -> None:
    """The trimmed log, the moved commit, the files that came: at each point once."""
    writer.fill()
    spy = Interrupting()
    with reading(writer.path, spy) as database:
        collection = database.collection("c")
        point = 0
        while True:
            point += 1 + point // 8
            if news == "nothing":
                collection.refresh()
            else:
                writer.upsert()
            if news == "flushed":
                writer.collection.flush()
            acknowledged = writer.seq
            spy.action = lambda: action(writer)
            spy.calls, spy.at = 0, point
            collection.refresh()
            made, spy.at = spy.calls, -1
            check(collection, writer, acknowledged)
            if made < point:
                break
        assert point >= 6, "the refresh made next to no calls"


def test_the_writer_may_come_between_any_two_calls_of_opening(writer: Writer) -> None:
    writer.fill()
    point = made = 0
    while made >= point:
        point += 1 + point // 4
        spy = Interrupting()
        spy.action = lambda: flush_twice(writer)
        spy.at = point
        acknowledged = writer.seq
        with reading(writer.path, spy) as database:
            collection = database.collection("c")
            made, spy.at = spy.calls, -1
            check(collection, writer, acknowledged)
    assert point > 20


@pytest.mark.parametrize("whole", [True, False])
def test_a_collection_dropped_in_the_middle_is_not_found(writer: Writer, whole: bool) -> None:
    writer.fill()
    point = made = 0
    while made >= point:
        point += 1
        spy = Interrupting()
        other = writer.database.create_collection("other", DIM)
        other.upsert([1], [[1, 2, 3]])
        with reading(writer.path, spy) as database:
            collection = database.collection("other")
            spy.action = lambda: writer.database.drop_collection("other")
            spy.calls, spy.at = 0, point
            gone = False
            if whole:
                database.refresh()
                gone = "other" not in database.collections()
            else:
                try:
                    collection.refresh()
                except NotFound:
                    gone = True
            made, spy.at = max(spy.calls, point if gone else 0), -1
            if gone:
                for call in (collection.count, collection.refresh, lambda: database.collection("other")):
                    with pytest.raises(NotFound):
                        call()
            else:
                assert collection.count() == 1
        if "other" in writer.database.collections():
            writer.database.drop_collection("other")
    assert point > 5


def test_a_write_that_was_taken_back_for_want_of_space_goes_away(writer: Writer) -> None:
    """The file system told of it after the record was written, and the reader looked in between."""

    class Full(FileSystem):
        look = False

        def write(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
            written = super().write(fd, buffers, offset)
            if self.look:
                self.look = False
                collection.refresh()
                raise OSError(errno.ENOSPC, "No space left on device")
            return written

    writer.fill()
    writer.database.close()
    system = Full()
    writer.open(OPTIONS, system)
    writer.upsert()
    with reading(writer.path) as database:
        collection = database.collection("c")
        system.look = True
        before = writer.seq
        with pytest.raises(ResourceExhausted):
            writer.upsert()
        assert collection.stats().last_seq == before + 1, "the reader did not see it"
        collection.refresh()
        check(collection, writer, before)
        assert collection.stats().last_seq == before
        assert collection.stats().events["unfinished_write_withdrawn"] == 1
        writer.upsert()
        collection.refresh()
        check(collection, writer, writer.seq)


class KeptAtCommit(FileSystem):
    """Keeps a copy of the database as a process leaves it that is killed between a commit and its mirror."""

    def __init__(self, path: Path) -> None:
        self.armed = False
        self._path = path

    def committed(self, path: Path) -> None:
        if self.armed and "collections" in path.parts:
            self.armed = False
            shutil.copytree(self._path, self._path.with_name("killed"))


def test_two_owners_killed_before_their_mirror_leave_no_reader_behind(tmp_path: Path) -> None:
    """Each time the next one makes the environment anew, with as many transactions and pages."""
    path = tmp_path / "db"

    def opened() -> tuple[EmbeddedDatabase, KeptAtCommit]:
        system = KeptAtCommit(path)
        database = EmbeddedDatabase.open(path, options=OPTIONS, file_system=system)
        database.create_collection("c", DIM, exist_ok=True).count()  # Opens it, which makes its environment anew.
        return database, system

    def kill_at_flush(database: EmbeddedDatabase, system: KeptAtCommit, number: int) -> None:
        collection = database.collection("c")
        collection.upsert([number], [[number, 1, 2]])
        system.armed = True
        collection.flush()
        database.close()
        shutil.rmtree(path)
        path.with_name("killed").rename(path)

    kill_at_flush(*opened(), 1)
    second = opened()
    with reading(path) as readers:
        collection = readers.collection("c")
        assert {each.id for each in collection.scroll()} == {1}
        kill_at_flush(*second, 2)
        third, _ = opened()
        with third:
            assert third.collection("c").count() == 2
            collection.refresh()
            assert {each.id for each in collection.scroll()} == {1, 2}
