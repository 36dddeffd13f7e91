"""The environment: commits are durable and counted, and no damaged, stale or foreign file is ever opened."""

import errno
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import lmdb
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.storage.faults import FailingFileSystem
from tests.storage.forgetful import ForgetfulFileSystem, PowerLoss
from vecdb.errors import (
    Corruption,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
    VecdbError,
)
from vecdb.storage import lmdb_check, lmdb_store
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.environment import DATA_NAME, TAG, TAG_AT, Fingerprint, consistent_copy, state_pages
from vecdb.storage.io import DiskFull, FileSystem
from vecdb.storage.lmdb_check import check_environment
from vecdb.storage.lmdb_store import LmdbStore


def reading(directory: MmapDirectory) -> MmapDirectory:
    return MmapDirectory(directory.path, directory.fs, read_only=True)


def written(directory: MmapDirectory, values: dict[bytes, bytes], *, commits: int = 1) -> Fingerprint:
    store = LmdbStore.open(directory)
    for number in range(commits):
        store.commit({**values, b"number": b"%d" % number})
    fingerprint = store.fingerprint()
    store.close()
    return fingerprint


def flip(path: Path, offset: int, bits: int = 0x40) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= bits
    path.write_bytes(data)


keys = st.binary(min_size=1, max_size=12).filter(lambda key: key[0] != 0)
values = st.one_of(st.binary(max_size=40), st.integers(2000, 60_000).map(bytes))


class StoreMachine(RuleBasedStateMachine):
    """A store against a dict."""

    @initialize()
    def start(self) -> None:
        import tempfile

        self.directory = MmapDirectory(Path(tempfile.mkdtemp()), FileSystem())
        self.store = LmdbStore.open(self.directory, map_bytes=1 << 16)
        self.model: dict[bytes, bytes] = {}
        self.generation = 0

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.directory.path)

    @rule(puts=st.dictionaries(keys, values, max_size=6), dropped=st.sets(keys, max_size=4), part=st.floats(0, 1))
    def commit(self, puts: dict[bytes, bytes], dropped: set[bytes], part: float) -> None:
        present = sorted(self.model)
        deletes = [*dropped, *present[: int(part * len(present) / 2)]]
        self.generation += 1
        assert self.store.commit(puts, deletes) == self.generation
        for key in deletes:
            self.model.pop(key, None)
        self.model.update(puts)

    @rule(trusted=st.booleans())
    def reopen(self, trusted: bool) -> None:
        fingerprint = self.store.fingerprint()
        self.store.close()
        if trusted:
            self.store = LmdbStore.open(self.directory, expected=fingerprint, map_bytes=1 << 16)
            assert self.store.fingerprint() == fingerprint

    def _reopened(self) -> None:
        try:
            self.store.get(b"x")
        except FailedPrecondition:
            self.store = LmdbStore.open(self.directory, map_bytes=1 << 16)

    @rule(prefix=st.binary(max_size=2))
    def look(self, prefix: bytes) -> None:
        self._reopened()
        expected = sorted((key, value) for key, value in self.model.items() if key.startswith(prefix))
        assert self.store.items(prefix) == expected

    @rule()
    def look_from_outside(self) -> None:
        self._reopened()
        fingerprint = self.store.fingerprint()
        other = LmdbStore.open(reading(self.directory), expected=fingerprint)
        assert dict(other.items()) == self.model
        assert other.fingerprint() == fingerprint
        other.close()

    @invariant()
    def every_value_is_there(self) -> None:
        if not hasattr(self, "store"):
            return
        self._reopened()
        assert self.store.generation == self.generation
        for key, value in self.model.items():
            assert self.store.get(key) == value
        assert self.store.get(b"not there at all") is None


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=settings().max_examples // 4, stateful_step_count=15)


def test_a_new_environment_is_small_and_private(directory: MmapDirectory) -> None:
    store = LmdbStore.open(directory)
    store.commit({b"key": b"value"})
    data = directory.path / DATA_NAME
    assert data.stat().st_blocks * 512 <= 32_768
    assert data.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in directory.path.iterdir()] == [DATA_NAME]
    store.close()


def test_an_idle_environment_holds_few_descriptors(directory: MmapDirectory) -> None:
    before = len(os.listdir("/proc/self/fd"))
    store = LmdbStore.open(directory)
    assert len(os.listdir("/proc/self/fd")) <= before + 3
    store.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_handles_of_one_directory_share_the_environment(directory: MmapDirectory, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(directory.path)
    one = LmdbStore.open(directory)
    other = LmdbStore.open(MmapDirectory(tmp_path / "link", FileSystem()))
    one.commit({b"key": b"value"})
    assert other.get(b"key") == b"value"
    one.close()
    one.close()
    assert other.commit({b"key": b"later"}) == 2
    with pytest.raises(FailedPrecondition, match="closed"):
        one.get(b"key")
    other.close()
    assert lmdb_store._registry == {}


def test_many_environments_may_be_open(tmp_path: Path) -> None:
    stores = []
    for number in range(50):
        (tmp_path / str(number)).mkdir()
        stores.append(LmdbStore.open(MmapDirectory(tmp_path / str(number), FileSystem())))
        stores[-1].commit({b"number": b"%d" % number})
    for number, store in enumerate(stores):
        assert store.get(b"number") == b"%d" % number
        store.close()


@pytest.mark.parametrize("key", [b"", b"\0root", b"x" * 501])
def test_keys_that_cannot_be_stored_are_refused(directory: MmapDirectory, key: bytes) -> None:
    store = LmdbStore.open(directory)
    with pytest.raises(InvalidArgument):
        store.commit({key: b""})
    with pytest.raises(InvalidArgument):
        store.commit({}, [key])
    assert store.generation == 0
    store.close()


def test_the_map_grows(directory: MmapDirectory) -> None:
    store = LmdbStore.open(directory, map_bytes=1 << 16)
    store.commit({b"%d" % number: bytes([number]) * 50_000 for number in range(40)})
    fingerprint = store.fingerprint()
    store.close()
    store = LmdbStore.open(directory, expected=fingerprint, map_bytes=1 << 16)
    assert store.get(b"39") == bytes([39]) * 50_000
    store.commit({b"more": bytes(1 << 20)})
    assert len(store.items()) == 41
    store.close()


def test_a_missing_file(directory: MmapDirectory) -> None:
    fingerprint = written(directory, {b"a": b"1"})
    (directory.path / DATA_NAME).unlink()
    for place in (directory, reading(directory)):
        with pytest.raises(Corruption, match=r"data\.mdb is missing"):
            LmdbStore.open(place, expected=fingerprint)
    with pytest.raises(NotFound):
        LmdbStore.open(reading(directory))
    with pytest.raises(Corruption):
        check_environment(directory)


def test_a_stale_copy_is_noticed(directory: MmapDirectory) -> None:
    written(directory, {b"a": b"1"})
    stale = directory.read_file(DATA_NAME)
    fingerprint = written(directory, {b"a": b"2"})
    (directory.path / DATA_NAME).write_bytes(stale)
    for place in (directory, reading(directory)):
        with pytest.raises(Corruption, match="stale copy"):
            LmdbStore.open(place, expected=fingerprint)
    with pytest.raises(Corruption, match="stale copy"):
        check_environment(directory, fingerprint)


def test_the_file_of_another_environment_is_noticed(directory: MmapDirectory) -> None:
    one, other = directory.child("one", create=True), directory.child("other", create=True)
    fingerprint = written(one, {b"a": b"1"})
    written(other, {b"a": b"2"}, commits=3)
    (one.path / DATA_NAME).write_bytes(other.read_file(DATA_NAME))
    with pytest.raises(Corruption, match="another environment"):
        LmdbStore.open(one, expected=fingerprint)


def test_a_file_made_anew_differs_in_the_pages_that_readers_compare(directory: MmapDirectory) -> None:
    """Also from one with as many transactions, pages and values."""
    written(directory, {b"a": b"1"})
    seen: set[bytes] = set()
    for _ in range(3):
        store = LmdbStore.open(directory)  # Nothing is known of the file: it is written anew.
        seen.add(state_pages(directory))
        tag = state_pages(directory)[TAG_AT : TAG_AT + TAG.size]
        for number in range(3):
            store.commit({b"a": b"%d" % number})
            seen.add(state_pages(directory))
        assert state_pages(directory)[TAG_AT : TAG_AT + TAG.size] == tag != bytes(TAG.size)
        store.close()
    assert len(seen) == 12


def test_a_commit_without_its_mirror_is_kept(directory: MmapDirectory) -> None:
    fingerprint = written(directory, {b"a": b"1"})
    newer = written(directory, {b"a": b"2"})
    for place in (reading(directory), directory):
        store = LmdbStore.open(place, expected=fingerprint)
        assert store.generation == newer.generation == fingerprint.generation + 1
        assert store.get(b"a") == b"2"
        store.close()


@pytest.mark.parametrize("size", [0, 1, 100, 4096, 8192, 12288, 20_000])
def test_a_truncated_file_is_noticed(directory: MmapDirectory, size: int) -> None:
    fingerprint = written(directory, {b"%d" % number: bytes(3000) for number in range(10)})
    data = directory.path / DATA_NAME
    data.write_bytes(data.read_bytes()[:size])
    for place in (directory, reading(directory)):
        with pytest.raises(Corruption, match=r"data\.mdb"):
            LmdbStore.open(place, expected=fingerprint)
    assert data.stat().st_size == size


def test_a_file_of_junk_is_noticed(directory: MmapDirectory) -> None:
    (directory.path / DATA_NAME).write_bytes(b"junk" * 5000)
    with pytest.raises(Corruption, match=r"data\.mdb"):
        LmdbStore.open(directory)


def test_a_damaged_value_is_noticed_and_named(directory: MmapDirectory) -> None:
    fingerprint = written(directory, {b"key": b"a value to be found"})
    data = directory.path / DATA_NAME
    flip(data, data.read_bytes().rindex(b"a value to be found"))
    with pytest.raises(Corruption, match=b"key".hex()):
        LmdbStore.open(directory, expected=fingerprint)


def test_an_unused_page_is_harmless(directory: MmapDirectory) -> None:
    """Values of 100 commits ago lie in pages that nothing leads to."""
    fingerprint = written(directory, {b"large": bytes(50_000)}, commits=3)
    store = LmdbStore.open(directory, expected=fingerprint)
    store.commit({}, [b"large"])
    fingerprint = store.fingerprint()
    store.close()
    data = directory.path / DATA_NAME
    free = data.read_bytes().rindex(bytes(3000)) + 500
    flip(data, free)
    store = LmdbStore.open(directory, expected=fingerprint)
    assert store.items() == [(b"number", b"2")]
    assert store.generation == fingerprint.generation
    store.close()


def test_a_later_version_is_refused_before_a_byte_changes(
    directory: MmapDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vecdb.storage import environment

    monkeypatch.setattr(environment, "_VERSION", 2)
    written(directory, {b"a": b"1"})
    monkeypatch.undo()
    before = directory.read_file(DATA_NAME)
    with pytest.raises(FailedPrecondition, match=r"data\.mdb is of format version 2"):
        LmdbStore.open(directory)
    assert directory.read_file(DATA_NAME) == before


def test_a_foreign_lmdb_file_is_refused(directory: MmapDirectory) -> None:
    env = lmdb.open(str(directory.path / DATA_NAME), subdir=False, lock=False)
    with env.begin(write=True) as transaction:
        transaction.put(b"a", b"1")
    env.close()
    with pytest.raises(Corruption, match="no root record"):
        LmdbStore.open(directory)


@pytest.mark.parametrize("flips", [300, pytest.param(5_000, marks=pytest.mark.slow)])
def test_no_flipped_byte_is_served_as_data(directory: MmapDirectory, flips: int) -> None:
    """Flips all over an environment of several levels, with freed pages; each is read in a process of its own."""
    contents = {b"key%04d" % number: b"value %d" % number * 7 for number in range(400)}
    store = LmdbStore.open(directory)
    for begin in range(0, 400, 50):
        store.commit({key: contents[key] for key in sorted(contents)[begin : begin + 50]})
    store.commit({b"large": bytes(range(256)) * 80})
    fingerprint = store.fingerprint()
    store.close()
    command = [sys.executable, "-m", "tests.storage.lmdb_flips", str(directory.path / DATA_NAME)]
    command += [str(fingerprint.generation), str(fingerprint.environment_id), str(flips)]
    surroundings = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    output = subprocess.run(command, env=surroundings, capture_output=True, check=True, timeout=300).stdout
    report = json.loads(output)
    assert report.pop("wrong") == []
    assert sum(report.values()) == flips
    assert report["detected"] > 50
    assert report["harmless"] > 50


@pytest.mark.parametrize("place", range(10, 4000, 399))
def test_a_flip_is_found_by_the_checking_process_before_the_owner_opens(directory: MmapDirectory, place: int) -> None:
    contents = {b"key%04d" % number: b"value %d" % number * 7 for number in range(200)}
    fingerprint = written(directory, contents)
    contents[b"number"] = b"0"
    data = directory.path / DATA_NAME
    offset = (place * 37) % data.stat().st_size
    flip(data, offset, 1 << place % 8)
    for where in (reading(directory), directory):
        try:
            store = LmdbStore.open(where, expected=fingerprint)
        except Corruption:
            continue
        assert dict(store.items()) == contents
        store.close()


def test_a_killed_checker_is_corruption(directory: MmapDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprint = written(directory, {b"a": b"1"})
    flip(directory.path / DATA_NAME, 8200)
    killing = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    real = subprocess.run

    def killed(command: list[str], **options: object) -> object:
        return real([sys.executable, "-c", killing], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(lmdb_check.subprocess, "run", killed)
    with pytest.raises(Corruption, match="SIGSEGV"):
        LmdbStore.open(directory, expected=fingerprint)


def test_a_full_disk_fails_the_commit_and_changes_nothing(tmp_path: Path) -> None:
    fs = FailingFileSystem(errno.ENOSPC, 3, calls=["committing"])
    store = LmdbStore.open(MmapDirectory.open(tmp_path / "db", fs, create=True))
    store.commit({b"a": b"1"})
    with pytest.raises(ResourceExhausted):
        store.commit({b"a": b"2"})
    assert (store.get(b"a"), store.generation) == (b"1", 1)
    assert store.commit({b"a": b"3"}) == 2
    store.close()


def test_a_device_error_poisons_the_store(tmp_path: Path) -> None:
    fs = FailingFileSystem(errno.EIO, 2, calls=["committing"])
    store = LmdbStore.open(MmapDirectory.open(tmp_path / "db", fs, create=True))
    for _ in range(2):
        with pytest.raises(Unavailable):
            store.commit({b"a": b"2"})
    assert store.get(b"a") is None
    store.close()


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (lmdb.DiskError("disk"), DiskFull),
        (lmdb.Error(f"mdb_txn_commit: {os.strerror(errno.EDQUOT)}"), DiskFull),
        (lmdb.Error(f"mdb_txn_commit: {os.strerror(errno.EIO)}"), Unavailable),
        (lmdb.PanicError("panic"), Unavailable),
    ],
)
def test_errors_of_lmdb_say_what_the_caller_can_do(raised: lmdb.Error, kind: type[VecdbError]) -> None:
    assert type(lmdb_store._write_failure(raised, Path("data.mdb"))) is kind


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(("number", "kind"), [("EIO", "Unavailable"), ("ENOSPC", "DiskFull")])
def test_a_failing_sync_inside_lmdb_is_not_acknowledged(tmp_path: Path, number: str, kind: str) -> None:
    code = f"""
from pathlib import Path
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import DiskFull, FileSystem
from vecdb.storage.lmdb_store import LmdbStore
from vecdb.errors import VecdbError
store = LmdbStore.open(MmapDirectory.open(Path({str(tmp_path / "db")!r}), FileSystem(), create=True))
store.commit({{b"a": b"1"}})
try:
    store.commit({{b"a": b"2"}})
except VecdbError as error:
    print(type(error).__name__, store.get(b"a"), store.generation)
"""
    surroundings = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = ["strace", "-f", "-o", "/dev/null", "-e", "trace=fdatasync", "-e"]
    command += [f"inject=fdatasync:error={number}:when=3", sys.executable, "-c", code]
    child = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False, timeout=60)
    if "ptrace" in child.stderr:
        pytest.skip("strace may not trace here")
    assert child.stdout.split() == [kind, "b'1'", "1"]


def test_commits_survive_a_loss_of_power_at_any_call(tmp_path: Path) -> None:
    for n in range(1, 100):
        root = tmp_path / str(n)
        root.mkdir()
        fs = ForgetfulFileSystem(root, lose_at=n)
        acknowledged = tried = -1
        store = None
        try:
            store = LmdbStore.open(MmapDirectory.open(root / "db", fs, create=True))
            acknowledged = 0
            for number in range(1, 4):
                tried = number
                store.commit({b"number": b"%d" % number, b"large": bytes(number * 3000)})
                acknowledged = number
        except PowerLoss:
            pass
        finally:
            if store is not None:
                store.close()
        for seed in (None, 1):
            left = tmp_path / f"{n}-{seed}"
            fs.materialise(left, seed=seed)
            if acknowledged < 0 and not (left / "db").exists():
                continue
            recovered = LmdbStore.open(MmapDirectory(left / "db", FileSystem()))
            assert recovered.generation in (max(acknowledged, 0), tried)
            number = recovered.generation
            assert recovered.get(b"number") == (b"%d" % number if number else None)
            assert recovered.get(b"large") == (bytes(number * 3000) if number else None)
            recovered.close()
        if not fs.lost:
            return
    pytest.fail("the calls never came to an end")


def test_readers_see_whole_states_while_the_owner_commits(directory: MmapDirectory) -> None:
    store = LmdbStore.open(directory)
    contents = {b"key%d" % number: b"0" * 500 for number in range(50)}
    store.commit(contents)
    done = threading.Event()

    def commit() -> None:
        number = 0
        while not done.is_set():
            number += 1
            store.commit(dict.fromkeys(contents, b"%d" % number * 500))

    writer = threading.Thread(target=commit)
    writer.start()
    try:
        for _ in range(20):
            data = consistent_copy(directory)
            fd = directory.fs.anonymous(data)
            path = lmdb_check.path_of_descriptor(fd)
            root = lmdb_check.read_through(path)
            found = lmdb_store._all_items(path, 1 << 20)
            directory.fs.close(fd)
            assert root.count == 50
            assert len(set(found.values())) == 1
    finally:
        done.set()
        writer.join()
        store.close()


def _use_in_child(store: LmdbStore, sent: "multiprocessing.connection.Connection") -> None:
    messages = []
    for use in (lambda: store.get(b"a"), lambda: store.commit({b"a": b"2"}), store.items, store.fingerprint):
        try:
            use()
        except FailedPrecondition as error:
            messages.append(error.message)
    sent.send(messages)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_child_may_not_use_the_store(directory: MmapDirectory) -> None:
    store = LmdbStore.open(directory)
    store.commit({b"a": b"1"})
    receiving, sending = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_use_in_child, args=(store, sending))
    child.start()
    messages = receiving.recv()
    child.join()
    assert len(messages) == 4
    assert all("forked child" in message for message in messages)
    assert store.commit({b"a": b"3"}) == 2
    store.close()


def test_threads_may_use_one_store(directory: MmapDirectory) -> None:
    store = LmdbStore.open(directory)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(20):
                store.commit({b"%d" % number: b"%d" % turn})
                assert store.get(b"%d" % number) == b"%d" % turn
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.generation == 100
    store.close()
