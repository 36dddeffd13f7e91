"""Reading a log that another process writes: what is durable is given, once and in order, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.storage.logs import Records, last_file, offsets, opened, payload, some
from vecdb.errors import Corruption, Unavailable
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem
from vecdb.storage.log_format import RECORD_HEADER_BYTES
from vecdb.storage.wal import Log


class Counting(FileSystem):
    """Counts what a reader asks of the system, and fails its syncs when told to."""

    def __init__(self) -> None:
        self.synced = self.bytes_read = 0
        self.failing = False

    def fdatasync(self, fd: int) -> None:
        self.synced += 1
        if self.failing:
            raise OSError(5, "Input/output error")
        super().fdatasync(fd)

    def read(self, fd: int, buffer: bytearray | memoryview, offset: int) -> int:
        count = super().read(fd, buffer, offset)
        self.bytes_read += count
        return count


def test_a_reader_syncs_what_no_later_record_proves_and_only_once(tmp_path: Path) -> None:
    log, _ = opened(tmp_path)
    log.append(some(1, 2))
    log.sync()
    log.append(some(3, 4))  # Not synced: its writer was stopped here.
    spy = Counting()
    reader, found = opened(tmp_path, fs=spy, read_only=True)
    assert found == some(1, 4)
    assert spy.synced == 1
    assert list(reader.replay(4)) == []
    assert spy.synced == 1
    log.sync()
    log.append(some(5, 5))
    assert list(reader.replay(4)) == some(5, 5)
    assert spy.synced == 2
    log.close()
    # Files that have a successor are durable.
    reader, found = opened(tmp_path, fs=spy, read_only=True)
    assert found == some(1, 5)
    assert spy.synced == 2


def test_a_record_that_cannot_be_made_durable_is_not_given_until_its_successor_proves_it(tmp_path: Path) -> None:
    log, _ = opened(tmp_path)
    spy = Counting()
    reader, _ = opened(tmp_path, fs=spy, read_only=True)
    for group in (some(1, 2), some(3, 3)):
        log.append(group)
        log.sync()
    spy.failing = True
    found = []
    with pytest.raises(Unavailable):
        found.extend(reader.replay(0))
    assert found == some(1, 2)
    spy.failing = False
    with pytest.raises(Unavailable, match="could not be made durable"):
        list(reader.replay(2))
    log.rotate()
    log.append(some(4, 4))
    assert list(reader.replay(2)) == some(3, 4)
    log.close()


def test_a_look_that_finds_nothing_reads_little_of_a_large_file(tmp_path: Path) -> None:
    log = Log(MmapDirectory(tmp_path, FileSystem()), file_bytes_first=1 << 24)
    assert list(log.replay(0)) == []
    log.append(some(1, 3))
    log.sync()
    spy = Counting()
    reader, found = opened(tmp_path, fs=spy, read_only=True)
    assert found == some(1, 3)
    spy.bytes_read = 0
    assert list(reader.replay(3)) == []
    assert spy.bytes_read < 1 << 17
    log.append(some(4, 4, 1 << 20))
    assert list(reader.replay(3)) == some(4, 4, 1 << 20)
    log.close()


def test_a_record_that_is_being_written_is_no_damage_and_one_that_was_durable_is(tmp_path: Path) -> None:
    log, _ = opened(tmp_path)
    log.append(some(1, 2))
    log.sync()
    reader, found = opened(tmp_path, read_only=True)
    assert found == some(1, 2)
    for group in (some(3, 3), some(4, 4)):
        log.append(group)
        log.sync()
    file = last_file(tmp_path)
    whole = file.read_bytes()
    third, fourth, end = offsets([50] * 4)[2:5]
    # Of the fourth record anything may be there: it was never said to be durable.
    for cut in (fourth + 1, fourth + RECORD_HEADER_BYTES, end - 9):
        file.write_bytes(whole[:cut].ljust(len(whole), b"\0"))
        again, found = opened(tmp_path, read_only=True)
        assert found == some(1, 3)
        assert again.last_seq == 3
    # The third one was, as the fourth says.
    for hole in (whole[third + 20 : fourth], bytes(fourth - third)):
        file.write_bytes(whole[: fourth - len(hole)] + bytes(len(hole)) + whole[fourth:])
        with pytest.raises(Corruption, match=f"offset {third} "):
            list(reader.replay(2))
    file.write_bytes(whole)
    assert list(reader.replay(2)) == some(3, 4)
    log.close()


def test_a_group_that_was_taken_back_is_not_gone_on_from(tmp_path: Path) -> None:
    """A file system without space that tells only after a record was written; the reader looked in between."""

    class Full(FileSystem):
        look = False
        found: Records = []  # noqa: RUF012 - there is one object of this class

        def write(self, fd: int, buffers: object, offset: int) -> int:
            written = super().write(fd, buffers, offset)  # type: ignore[arg-type]
            if self.look:
                self.look = False
                self.found += reader.replay(2)
                raise OSError(28, "No space left on device")
            return written

    system = Full()
    log, _ = opened(tmp_path, fs=system)
    log.append(some(1, 2))
    log.sync()
    reader, _ = opened(tmp_path, read_only=True)
    system.look = True
    with pytest.raises(Exception, match="No space"):
        log.append(some(3, 3))
    assert system.found == some(3, 3)
    with pytest.raises(Corruption, match="any more"):
        list(reader.replay(3))
    log.append([(3, payload(33))])
    log.sync()
    with pytest.raises(Corruption, match="next file"):
        list(reader.replay(3))
    assert opened(tmp_path, read_only=True)[1] == [*some(1, 2), (3, payload(33))]
    assert list(reader.replay(2)) == [(3, payload(33))]
    log.close()
