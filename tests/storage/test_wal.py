"""The log: what was acknowledged comes back, to its owner and to readers, and a failed write has no effect."""

import errno
import multiprocessing
import shutil
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.storage.faults import CountingFileSystem, FailingFileSystem, ShortFileSystem
from tests.storage.logs import Records, filled, last_file, offsets, opened, payload, some
from vecdb.errors import Corruption, FailedPrecondition, ResourceExhausted, Unavailable
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import DiskFull, FileSystem
from vecdb.storage.log_format import HEADER_BYTES, RECORD_HEADER_BYTES, LogHeader
from vecdb.storage.wal import Log


class LogMachine(RuleBasedStateMachine):
    """A log against a list, through closing, crashing, rotating, trimming and reading from outside."""

    @initialize()
    def start(self) -> None:
        import tempfile

        self.path = Path(tempfile.mkdtemp())
        self.records: Records = []
        self.flushed = 0
        self.log, found = opened(self.path)
        assert found == []
        self.reader, _ = opened(self.path, read_only=True)
        self.seen: Records = []

    def teardown(self) -> None:
        self.log.close()
        shutil.rmtree(self.path)

    @rule(
        sizes=st.lists(st.sampled_from([0, 1, 7, 8, 100, 3000, 9000, 70_000]), min_size=1, max_size=5),
        split=st.booleans(),
    )
    def append(self, sizes: list[int], split: bool) -> None:
        first = self.log.last_seq + 1
        group = [(first + number, payload(first + number, size)) for number, size in enumerate(sizes)]
        pieces = [(seq, [data[:3], bytearray(data[3:5]), memoryview(data)[5:]]) for seq, data in group]
        self.log.append(pieces if split else group)
        self.records += group

    @rule()
    def sync(self) -> None:
        assert self.log.sync() == self.log.last_seq == self.log.durable_seq

    @rule()
    def rotate(self) -> None:
        self.log.rotate()

    @rule(part=st.floats(0, 1))
    def trim(self, part: float) -> None:
        self.flushed += int(part * (self.log.last_seq - self.flushed))
        self.log.trim(self.flushed)

    @rule(close=st.booleans())
    def reopen(self, close: bool) -> None:
        if close:
            self.log.close()
        abandoned = self.log
        self.log, found = opened(self.path, self.flushed)
        assert found == [record for record in self.records if record[0] > self.flushed]
        assert self.log.recovery.dropped_bytes == 0
        assert self.log.recovery.records == len(found)
        assert self.log.last_seq == max([self.flushed, *(seq for seq, _ in self.records)])
        abandoned.poisoned = True  # So that closing it for its descriptor's sake writes nothing.
        abandoned.close()

    @rule()
    def read_from_outside(self) -> None:
        after = self.seen[-1][0] if self.seen and self.seen[-1][0] >= self.flushed else self.flushed
        found = list(self.reader.replay(after))
        assert found == [record for record in self.records if record[0] > after]
        self.seen += found

    @precondition(lambda self: hasattr(self, "log"))
    @invariant()
    def check(self) -> None:
        assert self.log.check(self.flushed) >= len([seq for seq, _ in self.records if seq > self.flushed])


TestLog = LogMachine.TestCase

TestLog.settings = settings(max_examples=settings().max_examples // 2, stateful_step_count=30)


def test_a_log_that_was_never_written_has_no_file(tmp_path: Path) -> None:
    log, found = opened(tmp_path)
    assert found == []
    log.sync()
    log.rotate()
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_a_group_is_one_write_and_a_sync_is_one_sync(tmp_path: Path) -> None:
    fs = CountingFileSystem()
    log, _ = opened(tmp_path, fs=fs)
    log.append(some(1, 1))
    log.sync()
    fs.calls.clear()
    log.append([(seq, payload(seq, 20)) for seq in range(2, 40)])
    log.sync()
    log.sync()
    assert fs.calls == {"write": 1, "fdatasync": 1}
    log.close()


def test_an_opened_log_changes_no_old_file(tmp_path: Path) -> None:
    filled(tmp_path, [some(1, 3)])
    old = last_file(tmp_path)
    before = old.read_bytes()
    log, found = opened(tmp_path)
    assert found == some(1, 3)
    log.append(some(4, 5))
    log.close()
    assert old.read_bytes() == before
    assert opened(tmp_path)[1] == some(1, 5)


def test_seqs_go_on_without_a_gap(tmp_path: Path) -> None:
    log, _ = opened(tmp_path, 4)
    log.append(some(5, 6))
    for seq in (6, 8):
        with pytest.raises(AssertionError):
            log.append([(seq, b"x")])
    log.append(some(7, 7))
    log.close()
    assert opened(tmp_path, 4)[1] == some(5, 7)


def test_replay_comes_before_append(tmp_path: Path) -> None:
    log = Log(MmapDirectory(tmp_path, FileSystem()))
    with pytest.raises(FailedPrecondition):
        log.append(some(1, 1))
    list(log.replay(0))
    log.append(some(1, 1))
    log.close()
    for use in (lambda: log.append(some(2, 2)), log.sync, log.rotate):
        with pytest.raises(FailedPrecondition):
            use()
    log.close()


def test_every_file_names_the_one_with_the_record_before(tmp_path: Path) -> None:
    """Over closing, reopening, trimming, and files that hold no record."""

    def header() -> LogHeader:
        path = last_file(tmp_path)
        return LogHeader.decode(path.read_bytes()[:HEADER_BYTES], str(path), path.name)

    log, _ = opened(tmp_path)
    log.append(some(1, 5))
    first = header()
    assert (first.last_record_file_id, log.file_id_of(5)) == (0, first.file_id)
    log.rotate()
    log.append(some(6, 8))
    second = header()
    assert second.last_record_file_id == first.file_id
    assert [log.file_id_of(seq) for seq in (5, 6, 8, 9)] == [first.file_id, second.file_id, second.file_id, 0]
    log.close()
    empty = header()
    assert (empty.predecessor.file_id, empty.last_record_file_id) == (second.file_id, second.file_id)
    log, _ = opened(tmp_path, 5)
    assert log.file_id_of(8) == second.file_id
    log.append(some(9, 9))
    third = header()
    assert (third.predecessor.file_id, third.last_record_file_id) == (empty.file_id, second.file_id)
    log.rotate()
    assert len(log.trim(9)) == 4
    log.close()
    assert list(tmp_path.iterdir()) == []
    log = Log(MmapDirectory(tmp_path, FileSystem()), last_record_file_id=third.file_id)
    assert list(log.replay(9)) == []
    log.append(some(10, 10))
    log.close()
    fourth = min(tmp_path.iterdir())
    assert LogHeader.decode(fourth.read_bytes(), "", fourth.name).last_record_file_id == third.file_id


def test_trimming_takes_whole_files_below_the_flushed_seq(tmp_path: Path) -> None:
    log, _ = opened(tmp_path)
    for first in (1, 11, 21):
        log.append(some(first, first + 9))
        log.rotate()
    log.append(some(31, 40))
    assert len(log.trim(9)) == 0
    assert len(log.trim(25)) == 2
    assert len(log.trim(40)) == 1
    assert len(list(tmp_path.iterdir())) == 1
    log.close()
    assert opened(tmp_path, 40)[1] == []
    assert opened(tmp_path, 35)[1] == some(36, 40)
    with pytest.raises(Corruption, match="lacks the records 30 to 30"):
        opened(tmp_path, 29)


def test_leftovers_of_a_file_that_was_never_named_do_not_matter(tmp_path: Path) -> None:
    filled(tmp_path, [some(1, 2)])
    log, found = opened(tmp_path)
    (tmp_path / "0000000000000003-00000002.log.tmp").write_bytes(b"half a header")
    log.append(some(3, 3))
    log.close()
    assert opened(tmp_path)[1] == [*found, *some(3, 3)]


@pytest.mark.parametrize("partial", [False, True])
def test_a_full_disk_fails_the_append_and_nothing_else(tmp_path: Path, partial: bool) -> None:
    """ENOSPC at each write-class call of a workload; writes resume, and what failed never comes back."""
    for n in range(1, 200):
        path = tmp_path / str(n)
        path.mkdir()
        fs = FailingFileSystem(errno.ENOSPC, n, calls=("create", "write", "allocate", "rename"), partial=partial)
        log, _ = opened(path, fs=fs)
        expected: Records = []
        failures = 0
        for _ in range(8):
            seq = log.last_seq + 1
            tried = [(seq, b"%d" % failures * 400), (seq + 1, b"%d" % failures * 401)]
            try:
                log.append(tried)
                expected += tried
                log.sync()
            except ResourceExhausted:
                failures += 1
                assert not log.poisoned
                assert opened(path)[1] == expected
        try:
            log.close()
        except ResourceExhausted:
            failures += 1
        assert opened(path)[1] == expected
        assert len(expected) >= 14
        if not failures:
            return
    pytest.fail("the calls never came to an end")


def test_appends_that_are_refused_take_no_disk_for_good(tmp_path: Path) -> None:
    """Each is refused after its file was made: what that had allocated is given back."""
    fs = FailingFileSystem(errno.ENOSPC, 6, calls=("write",), times=50, every=3, partial=True)
    log, _ = opened(tmp_path, fs=fs)
    expected: Records = []
    for _ in range(4):
        log.append(some(len(expected) + 1, len(expected) + 1))
        log.sync()
        expected = some(1, len(expected) + 1)
    for _ in range(50):
        with pytest.raises(DiskFull):
            log.append(some(5, 9))
    used = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert used <= offsets([50] * 4)[-1] + RECORD_HEADER_BYTES + 50 * (HEADER_BYTES + RECORD_HEADER_BYTES)
    assert opened(tmp_path)[1] == expected
    log.append(some(5, 9))
    log.close()
    assert opened(tmp_path)[1] == some(1, 9)
    assert opened(tmp_path)[0].check(0) == 9


@pytest.mark.parametrize("times", [1, 10**6])
def test_a_file_whose_spare_disk_cannot_be_given_back_is_ended_all_the_same(tmp_path: Path, times: int) -> None:
    log, _ = opened(tmp_path, fs=FailingFileSystem(errno.ENOSPC, calls=("truncate",), times=times))
    for first in (1, 4):
        log.append(some(first, first + 2))
        log.rotate()
    log.append(some(7, 9))
    log.close()
    assert opened(tmp_path)[1] == some(1, 9)
    assert opened(tmp_path)[0].check(0) == 9


def refuses_everything(log: Log) -> None:
    for use in (lambda: log.append([(log.last_seq + 1, b"x")]), log.sync, log.rotate):
        with pytest.raises(Unavailable):
            use()


def test_a_device_error_poisons_the_log_and_is_never_retried(tmp_path: Path) -> None:
    for n in range(1, 200):
        path = tmp_path / str(n)
        path.mkdir()
        fs = FailingFileSystem(errno.EIO, n)
        log, _ = opened(path, fs=fs)
        acknowledged: Records = []
        tried: Records = []
        failed = False
        for _ in range(6):
            seq = log.last_seq + 1
            tried = [(seq, b"a" * 400), (seq + 1, b"b" * 401)]
            try:
                log.append(tried)
                log.sync()
                acknowledged += tried
            except Unavailable:
                failed = True
                break
        if failed:
            assert log.poisoned
            fs.calls.clear()
            refuses_everything(log)
            log.close()
            assert fs.total == 0
            found = opened(path)[1]
            assert found in (acknowledged, acknowledged + tried, acknowledged + tried[:1])
        else:
            try:
                log.close()
            except Unavailable:
                failed = True
            assert opened(path)[1] == acknowledged
        if not failed:
            return
    pytest.fail("the calls never came to an end")


def test_short_writes_and_reads_are_carried_on(tmp_path: Path) -> None:
    log, _ = opened(tmp_path, fs=ShortFileSystem(100))
    log.append(some(1, 9, 300))
    log.close()
    assert opened(tmp_path, fs=ShortFileSystem(90))[1] == some(1, 9, 300)


def test_readers_follow_a_writer_without_ever_failing(tmp_path: Path) -> None:
    log, _ = opened(tmp_path)
    reader, _ = opened(tmp_path, read_only=True)
    done = threading.Event()
    found: Records = []
    failures: list[BaseException] = []

    def follow() -> None:
        try:
            last = 0
            while True:
                finished = done.is_set()
                for seq, data in reader.replay(last):
                    found.append((seq, data))
                    last = seq
                if finished:
                    return
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    expected: Records = []
    for first in range(1, 1200, 4):
        group = some(first, first + 3, first % 700)
        log.append(group)
        expected += group
        if first % 12 == 1:
            log.sync()
    log.close()
    done.set()
    thread.join()
    assert failures == []
    assert found == expected


def test_a_reader_under_which_the_log_was_trimmed_is_told_to_take_the_manifest_again(tmp_path: Path) -> None:
    log, _ = opened(tmp_path)
    log.append(some(1, 3))
    reader, found = opened(tmp_path, read_only=True)
    assert found == some(1, 3)
    log.rotate()
    log.append(some(4, 6))
    log.rotate()
    log.trim(6)
    log.append(some(7, 7))
    with pytest.raises(Unavailable, match="lacks the records 4 to 6"):
        list(reader.replay(3))
    assert list(reader.replay(6)) == some(7, 7)
    with pytest.raises(FailedPrecondition):
        reader.append(some(8, 8))
    log.close()


def _use_in_child(log: Log, sent: "multiprocessing.connection.Connection") -> None:
    try:
        log.append([(log.last_seq + 1, b"child")])
    except FailedPrecondition as error:
        log.close()
        sent.send(error.message)
    else:
        sent.send("appended")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_child_may_not_use_the_log(tmp_path: Path) -> None:
    log, _ = opened(tmp_path)
    log.append(some(1, 2))
    receiving, sending = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_use_in_child, args=(log, sending))
    child.start()
    assert "forked child" in receiving.recv()
    child.join()
    log.append(some(3, 3))
    log.close()
    assert opened(tmp_path)[1] == some(1, 3)
