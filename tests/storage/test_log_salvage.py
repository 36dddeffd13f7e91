"""A damaged log is cut at its first hole: what lies before is kept whole, what lies behind goes to the quarantine."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem
from vecdb.storage.log_format import HEADER_BYTES, RECORD_HEADER_BYTES, padded
from vecdb.storage.log_salvage import examine_log
from vecdb.storage.wal import Log

FLUSHED = 5
LAST = 40


def payload(seq: int) -> bytes:
    return b"%d," % seq * (20 + seq * 7 % 60)


def log_in(path: Path) -> Log:
    return Log(MmapDirectory.open(path, FileSystem(), create=True), file_bytes_first=1_000, file_bytes_max=2_000)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, tuple[str, int]]]:
    """A closed log of several files, and where each record is."""
    path = tmp_path_factory.mktemp("log") / "log"
    places: dict[int, tuple[str, int]] = {}
    log = log_in(path)
    assert list(log.replay(0)) == []
    for seq in range(1, LAST + 1):
        log.append([(seq, payload(seq))])
        log.sync()
    log.close()
    files = sorted(each.name for each in path.iterdir())
    assert len(files) >= 5
    firsts = [int(name[:16], 16) for name in files] + [LAST + 1]
    for name, first, end in zip(files, firsts[:-1], firsts[1:], strict=True):
        offset = HEADER_BYTES
        for seq in range(first, end):
            places[seq] = (name, offset)
            offset += RECORD_HEADER_BYTES + padded(len(payload(seq)))
    return path, places


def cut(path: Path, place: Path) -> tuple[int, int]:
    """Examine and cut; the last seq kept and the last one lost."""
    directory = MmapDirectory(path, FileSystem())
    found = examine_log(directory, FLUSHED, lambda seq, data: None)
    assert found is not None
    before = {each.name: each.read_bytes() for each in path.iterdir()}
    quarantine = MmapDirectory.open(place, FileSystem(), create=True)
    found.carry_out(directory, quarantine)
    touched = {name for name, _ in found.replaced} | set(found.removed)
    assert {each.name: each.read_bytes() for each in place.iterdir()} == {name: before[name] for name in touched}
    assert examine_log(directory, FLUSHED, lambda seq, data: None) is None
    return found.kept_seq, found.lost_seq


def read(path: Path) -> dict[int, bytes]:
    return {seq: bytes(data) for seq, data in log_in(path).replay(FLUSHED)}


@pytest.mark.parametrize("seq", [7, 12, 25, 33, LAST])
def test_a_damaged_record_ends_the_log_before_it(
    written: tuple[Path, dict[int, tuple[str, int]]], tmp_path: Path, seq: int
):
    base, places = written
    for number, within in enumerate((2, 15, 30, RECORD_HEADER_BYTES + 3)):
        path = Path(shutil.copytree(base, tmp_path / f"{number}"))
        name, offset = places[seq]
        data = bytearray((path / name).read_bytes())
        data[offset + within] ^= 0x40
        (path / name).write_bytes(data)
        assert cut(path, tmp_path / f"quarantine{number}") == (seq - 1, LAST)
        assert read(path) == {each: payload(each) for each in range(FLUSHED + 1, seq)}
        # The log goes on from there, and is whole again.
        log = log_in(path)
        assert len(list(log.replay(FLUSHED))) == seq - 1 - FLUSHED
        log.append([(seq, b"again")])
        log.sync()
        log.close()
        assert read(path)[seq] == b"again"


def test_a_damaged_header_costs_no_record(written: tuple[Path, dict[int, tuple[str, int]]], tmp_path: Path):
    base, _ = written
    names = sorted(each.name for each in base.iterdir())
    for number, name in enumerate(names):
        for offset in (1, 17, 33, 41, 50, 57, 90, 121):
            path = Path(shutil.copytree(base, tmp_path / f"{number}-{offset}"))
            data = bytearray((path / name).read_bytes())
            data[offset] ^= 0x21
            (path / name).write_bytes(data)
            kept, _ = cut(path, tmp_path / f"quarantine{number}-{offset}")
            # The id of a file is in its own header and in the next one's; with both there is nothing to lose.
            assert kept == LAST, (name, offset)
            assert read(path) == {each: payload(each) for each in range(FLUSHED + 1, LAST + 1)}


def test_a_missing_file_ends_the_log_before_it(written: tuple[Path, dict[int, tuple[str, int]]], tmp_path: Path):
    base, places = written
    names = sorted(each.name for each in base.iterdir())
    for number, name in enumerate(names[1:-1], 1):
        path = Path(shutil.copytree(base, tmp_path / f"{number}"))
        (path / name).unlink()
        first = min(seq for seq, (at, _) in places.items() if at == name)
        if max(seq for seq, (at, _) in places.items() if at == name) <= FLUSHED:
            continue
        lost = LAST if number < len(names) - 2 else first - 1
        kept, traced = cut(path, tmp_path / f"quarantine{number}")
        assert (kept, traced >= lost) == (max(first - 1, FLUSHED), True)
        assert read(path) == {each: payload(each) for each in range(FLUSHED + 1, first)}


def test_noise_anywhere_leaves_a_whole_prefix(written: tuple[Path, dict[int, tuple[str, int]]], tmp_path: Path):
    base, places = written
    chance = np.random.default_rng(8)
    for number in range(60):
        path = Path(shutil.copytree(base, tmp_path / f"{number}"))
        name = sorted(each.name for each in base.iterdir())[chance.integers(len(list(base.iterdir())))]
        data = bytearray((path / name).read_bytes())
        first = int(chance.integers(len(data)))
        end = min(len(data), first + int(chance.integers(1, 600)))
        data[first:end] = chance.bytes(end - first)
        (path / name).write_bytes(data)
        hit = [
            seq
            for seq, (at, offset) in places.items()
            if at == name and offset < end and offset + RECORD_HEADER_BYTES + padded(len(payload(seq))) > first
        ]
        directory = MmapDirectory(path, FileSystem())
        if examine_log(directory, FLUSHED, lambda seq, data: None) is None:
            assert not hit
            continue
        kept, _ = cut(path, tmp_path / f"quarantine{number}")
        assert read(path) == {each: payload(each) for each in range(FLUSHED + 1, kept + 1)}
        if first >= HEADER_BYTES:
            assert kept == (max(FLUSHED, min(hit) - 1) if hit else LAST) or max(hit, default=0) <= FLUSHED
        shutil.rmtree(path)
