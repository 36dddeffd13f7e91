"""Damaged logs: a torn tail is dropped, and every other damage is reported, also after a loss of power."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.storage.forgetful import PowerLoss, UnsyncedFileSystem
from tests.storage.logs import Records, filled, flip, last_file, offsets, opened, payload, some
from vecdb.errors import Corruption, FailedPrecondition, VecdbError
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.log_format import HEADER_BYTES, RECORD_HEADER_BYTES
from vecdb.storage.wal import Log


@pytest.mark.parametrize("tail", ["zeros", "ones", "old", "half"])
def test_a_log_cut_at_every_byte_of_its_last_records_loses_no_more(tmp_path: Path, tail: str) -> None:
    """The last three records are one group that was not synced yet; the two before were."""
    sizes = [30, 41, 64, 5, 90]
    path = tmp_path / "log"
    filled(path, [[(1, payload(1, 30)), (2, payload(2, 41))]])
    log, _ = opened(tmp_path)
    log.append([(1, payload(1, 30)), (2, payload(2, 41))])
    log.sync()
    log.append([(seq, payload(seq, sizes[seq - 1])) for seq in (3, 4, 5)])
    file = last_file(tmp_path)
    whole = file.read_bytes()
    at = offsets(sizes)
    for cut in range(at[2], at[5] + 1):
        rest = {
            "zeros": bytes(len(whole) - cut),
            "ones": b"\xff" * (len(whole) - cut),
            "old": (last_file(path).read_bytes() * 2)[cut : len(whole)].ljust(len(whole) - cut, b"\0"),
            "half": whole[cut : at[5]].translate(bytes(reversed(range(256)))).ljust(len(whole) - cut, b"\0"),
        }[tail]
        for other in set(tmp_path.glob("*.log")) - {file}:
            other.unlink()  # Closing what was recovered wrote a file that names what holds.
        file.write_bytes(whole[:cut] + rest)
        recovered, found = opened(tmp_path)
        kept = [offset for offset in at[1:] if offset <= cut]
        # A record whose cut-off bytes were zeros anyway (its padding) is whole.
        assert len(found) >= len(kept)
        assert found == [(seq, payload(seq, sizes[seq - 1])) for seq in range(1, len(found) + 1)]
        end = at[len(found)]
        used = len((whole[:cut] + rest).rstrip(b"\0"))
        assert recovered.recovery.dropped_bytes == max(0, used - end)
        if recovered.recovery.dropped_bytes:
            assert (recovered.recovery.file, recovered.recovery.offset) == (str(file), end)
        recovered.close()
    log.poisoned = True
    log.close()


def test_a_dropped_tail_stays_dropped(tmp_path: Path) -> None:
    log, _ = opened(tmp_path)
    log.append(some(1, 2))
    log.sync()
    log.append(some(3, 4))
    file = last_file(tmp_path)
    flip(file, offsets([50] * 4)[2] + 3)
    recovered, found = opened(tmp_path)
    assert found == some(1, 2)
    assert recovered.recovery.dropped_bytes > RECORD_HEADER_BYTES
    recovered.append([(3, b"another")])
    recovered.close()
    assert opened(tmp_path)[1] == [*some(1, 2), (3, b"another")]
    flip(file, offsets([50] * 4)[2] + 3)
    assert opened(tmp_path)[1] == [*some(1, 2), (3, b"another")]
    log.poisoned = True
    log.close()


def test_damage_in_the_middle_of_an_active_log_is_reported_with_its_offset(tmp_path: Path) -> None:
    filled(tmp_path, [some(1, 2), some(3, 3), some(4, 5)])
    file = last_file(tmp_path)
    at = offsets([50] * 5)
    for offset in range(at[3]):
        flip(file, offset, 1 << offset % 8)
        with pytest.raises(Corruption) as caught:
            opened(tmp_path)
        record = max([0, *(begin for begin in at if begin <= offset)])
        assert caught.value.message.startswith(str(file))
        assert f"offset {record} " in caught.value.message + " "
        flip(file, offset, 1 << offset % 8)
    assert opened(tmp_path)[1] == some(1, 5)


def closed_log(path: Path) -> Records:
    """Three sessions: one that crashed with a torn tail, one that filled two files, one small one; then closed."""
    path.mkdir()
    log, _ = opened(path)
    log.append(some(1, 3))
    log.sync()
    log.append(some(4, 4))
    flip(last_file(path), offsets([50] * 4)[3])
    log.poisoned = True
    log.close()
    log, _ = opened(path)
    log.append([(4, b""), (5, payload(5, 700))])
    log.append([(6, payload(6, 3900))])
    log.close()
    log, found = opened(path)
    log.append(some(7, 8))
    log.close()
    return [*found, *some(7, 8)]


def test_every_flipped_byte_of_a_closed_log_is_noticed_or_harmless(tmp_path: Path) -> None:
    expected = closed_log(tmp_path / "log")
    assert [seq for seq, _ in expected] == list(range(1, 9))
    torn, *_ = sorted((tmp_path / "log").iterdir())
    valid_end = offsets([50] * 3)[3]
    detected = 0
    for file in sorted((tmp_path / "log").iterdir()):
        size = file.stat().st_size
        for offset in [*range(min(size, 700)), *range(700, size, 13)]:
            flip(file, offset, 1 << offset % 8)
            try:
                _, found = opened(tmp_path / "log")
            except Corruption as error:
                detected += str(tmp_path) in error.message
            else:
                assert found == expected
                assert file == torn
                assert offset >= valid_end, "only what the torn tail left may be harmless"
            flip(file, offset, 1 << offset % 8)
    assert detected > 1500


def test_every_truncation_and_extension_of_a_closed_log_is_noticed(tmp_path: Path) -> None:
    closed_log(tmp_path / "log")
    for file in sorted((tmp_path / "log").iterdir()):
        whole = file.read_bytes()
        for size in [*range(0, len(whole), 23), len(whole) - 1]:
            file.write_bytes(whole[:size])
            with pytest.raises(Corruption, match="log"):
                opened(tmp_path / "log")
        for more in (b"\0", b"x", bytes(4096)):
            file.write_bytes(whole + more)
            with pytest.raises(Corruption, match="log"):
                opened(tmp_path / "log")
        file.write_bytes(whole)


def test_every_truncation_and_extension_of_an_active_log_is_noticed(tmp_path: Path) -> None:
    filled(tmp_path, [some(1, 3), some(4, 5)])
    file = last_file(tmp_path)
    whole = file.read_bytes()
    for size in [*range(0, len(whole), 11), len(whole) - 1, len(whole) + 1, len(whole) + 4096]:
        file.write_bytes(whole[:size].ljust(size, b"\0"))
        with pytest.raises(Corruption):
            opened(tmp_path)


def test_an_older_copy_of_a_file_of_a_closed_log_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.mkdir()
    log, _ = opened(path)
    log.append(some(1, 3))
    log.sync()
    file = last_file(path)
    older = file.read_bytes()
    log.append(some(4, 5))
    log.close()
    newer = file.read_bytes()
    for copy in (older, older[: len(newer)], older[: offsets([50] * 3)[3]]):
        file.write_bytes(copy)
        with pytest.raises(Corruption, match=file.name):
            opened(path)


def test_swapped_and_renamed_files_are_noticed(tmp_path: Path) -> None:
    log, _ = opened(tmp_path)
    for first in (1, 4, 7):
        log.append(some(first, first + 2))
        log.rotate()
    log.close()
    one, two, _three, _seal = sorted(tmp_path.iterdir())
    assert one.stat().st_size == two.stat().st_size
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    with pytest.raises(Corruption, match="holds the log file"):
        opened(tmp_path)
    one.write_bytes(first)
    two.write_bytes(second)
    other = tmp_path.parent / (tmp_path.name + "_other")
    other.mkdir()
    log, _ = opened(other)
    log.append(some(1, 3))
    log.rotate()
    log.append(some(4, 6))
    log.close()
    two.write_bytes((other / two.name).read_bytes())
    with pytest.raises(Corruption, match="does not follow"):
        opened(tmp_path)


def test_missing_files_are_noticed(tmp_path: Path) -> None:
    log, _ = opened(tmp_path)
    for first in (1, 4, 7):
        log.append(some(first, first + 2))
        log.rotate()
    log.close()
    one, two, *_ = sorted(tmp_path.iterdir())
    kept = two.read_bytes()
    two.unlink()
    with pytest.raises(Corruption, match="does not follow"):
        opened(tmp_path)
    with pytest.raises(Corruption, match="lacks the records 4 to 6"):
        opened(tmp_path, 3) if one.unlink() is None else None
    assert opened(tmp_path, 6)[1] == some(7, 9)
    two.write_bytes(kept)
    assert opened(tmp_path, 3)[1] == some(4, 9)


def test_damage_below_the_flushed_seq_is_harmless_but_found_by_check(tmp_path: Path) -> None:
    log, _ = opened(tmp_path)
    for first in (1, 4):
        log.append(some(first, first + 2))
        log.rotate()
    log.close()
    flip(min(tmp_path.iterdir()), HEADER_BYTES + 50)
    log, found = opened(tmp_path, 3)
    assert found == some(4, 6)
    with pytest.raises(Corruption):
        log.check(3)


def test_a_later_version_is_refused_by_its_number(tmp_path: Path) -> None:
    from vecdb.storage.checksum import checksum64

    filled(tmp_path, [some(1, 1)])
    file = last_file(tmp_path)
    data = bytearray(file.read_bytes())
    data[8] = 2
    data[120:128] = checksum64(bytes(data[:120])).to_bytes(8, "little")
    file.write_bytes(data)
    with pytest.raises(FailedPrecondition, match="version 2"):
        opened(tmp_path)
    assert file.read_bytes() == data


def test_a_payload_that_is_a_log_itself_is_only_a_payload(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    filled(inner, [some(1, 9)])
    content = last_file(inner).read_bytes()
    path = tmp_path / "log"
    path.mkdir()
    log, _ = opened(path)
    log.append([(1, content)])
    log.sync()
    log.append([(2, content), (3, content)])
    assert opened(path)[1] == [(1, content), (2, content), (3, content)]
    flip(last_file(path), HEADER_BYTES + RECORD_HEADER_BYTES + 5)
    recovered, found = opened(path)
    assert found == [(1, content)]
    assert recovered.recovery.dropped_bytes > len(content)
    log.poisoned = True
    log.close()


@given(junk=st.binary(min_size=0, max_size=300), at=st.integers(0, 600))
def test_bytes_of_any_kind_never_crash(tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int) -> None:
    path = tmp_path_factory.mktemp("log")
    filled(path, [some(1, 2), some(3, 4)])
    file = last_file(path)
    data = bytearray(file.read_bytes())
    data[at : at + len(junk)] = junk
    file.write_bytes(data)
    try:
        _, found = opened(path)
    except VecdbError:
        return
    assert found == some(1, len(found))
    assert len(found) >= 2


def crashed(path: Path, n: int, left_out: tuple[str, ...]) -> tuple[UnsyncedFileSystem, Records, Records]:
    """A workload of three sessions that loses the power at call ``n``: (file system, acknowledged, in flight)."""
    path.mkdir()
    fs = UnsyncedFileSystem(path, left_out=left_out, lose_at=n)
    acknowledged: Records = []
    tried: Records = []
    flushed = 0
    log = None
    try:
        directory = MmapDirectory.open(path / "log", fs, create=True)
        for session in range(3):
            log = Log(directory, file_bytes_first=1024, file_bytes_max=2048)
            found = list(log.replay(flushed))
            acknowledged = [record for record in acknowledged if record[0] <= flushed] + found
            for _ in range(4):
                tried = [(log.last_seq + 1, payload(log.last_seq + 1, 150)), (log.last_seq + 2, b"x" * 200)]
                log.append(tried)
                log.sync()
                acknowledged = acknowledged + tried
            tried = []
            if session == 0:
                log.rotate()
                flushed = 3
                log.trim(flushed)
            if session == 1:
                # Killed before a sync; what the next session finds nevertheless, it builds upon.
                tried = [(log.last_seq + 1, b"y" * 300)]
                log.append(tried)
                log.poisoned = True
            log.close()
    except PowerLoss:
        pass
    finally:
        if log is not None:
            log.poisoned = True
            log.close()
    return fs, [record for record in acknowledged if record[0] > flushed], tried


def after_power_loss(tmp_path: Path, left_out: tuple[str, ...] = ()) -> list[str]:
    """What is wrong after losing the power at each call; nothing, unless a sync was left out."""
    findings = []
    for n in range(1, 300):
        fs, acknowledged, tried = crashed(tmp_path / str(n), n, left_out)
        for seed in (None, n):
            left = tmp_path / f"{n}-{seed}"
            fs.materialise(left, seed=seed)
            if not (left / "log").exists():
                findings += [f"{n}, {seed}: no directory"] if acknowledged else []
                continue
            after = acknowledged[0][0] - 1 if acknowledged else 0
            try:
                recovered, found = opened(left / "log", after)
            except VecdbError as error:
                findings.append(f"{n}, {seed}: {error}")
                continue
            if found not in (acknowledged, acknowledged + tried[:1], acknowledged + tried):
                findings.append(f"{n}, {seed}: {len(found)} of {len(acknowledged)}")
                continue
            following = [(recovered.last_seq + 1, b"after")]
            recovered.append(following)
            recovered.close()
            if opened(left / "log", after)[1] != found + following:
                findings.append(f"{n}, {seed}: not appendable")
        if not fs.lost:
            return findings
    raise AssertionError("the calls never came to an end")


def test_acknowledged_records_survive_a_loss_of_power_at_any_call(tmp_path: Path) -> None:
    assert after_power_loss(tmp_path) == []


@pytest.mark.parametrize("left_out", ["fdatasync", "fsync_directory"])
def test_leaving_a_sync_out_is_noticed(tmp_path: Path, left_out: str) -> None:
    assert after_power_loss(tmp_path, (left_out,)) != []


def test_what_a_crash_left_is_covered_by_the_next_close(tmp_path: Path) -> None:
    log, _ = opened(tmp_path)
    log.append(some(1, 3))
    log.sync()
    file = last_file(tmp_path)
    recovered, found = opened(tmp_path)
    assert found == some(1, 3)
    recovered.close()
    flip(file, offsets([50] * 3)[2] + RECORD_HEADER_BYTES + 3)
    with pytest.raises(Corruption, match=file.name):
        opened(tmp_path)
    log.poisoned = True
    log.close()
