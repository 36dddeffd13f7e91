"""The reserve: given up once, to what may have it; taken back before anything else is written."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.storage.faults import FailingFileSystem
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import DiskFull, FileSystem
from vecdb.storage.reserve import RESERVE_NAME, Reserve

SIZE_BYTES = 1 << 16


class Told(list[str]):
    """The events, by name."""

    def __call__(self, name: str, times: int = 1, level: int = 0, **facts: object) -> None:
        self.append(name)


def test_it_is_allocated_found_again_and_made_again_where_it_is_another(tmp_path: Path) -> None:
    directory, told = MmapDirectory(tmp_path, FileSystem()), Told()
    Reserve(directory, SIZE_BYTES).take(told)
    path = tmp_path / RESERVE_NAME
    assert path.stat().st_size == SIZE_BYTES <= path.stat().st_blocks * 512
    assert Reserve(directory, SIZE_BYTES).held
    assert told == ["reserve_taken"]
    assert not Reserve(directory, 2 * SIZE_BYTES).held
    assert not path.exists()
    path.touch()
    with path.open("r+b") as file:
        file.truncate(SIZE_BYTES)
    assert not Reserve(directory, SIZE_BYTES).held, "a file with holes holds nothing back"
    Reserve(directory, 0).take(told)
    assert not path.exists()


def test_a_full_disk_gives_it_up_and_the_attempt_is_made_again(tmp_path: Path) -> None:
    told = Told()
    reserve = Reserve(MmapDirectory(tmp_path, FileSystem()), SIZE_BYTES)
    reserve.take(told)
    attempts: list[bool] = []

    def attempt() -> str:
        attempts.append(reserve.held)
        if reserve.held:
            raise DiskFull("full")
        return "done"

    assert reserve.spent_on(attempt, told) == "done"
    assert attempts == [True, False]
    assert not (tmp_path / RESERVE_NAME).exists()
    reserve.take(told)
    assert told == ["reserve_taken", "reserve_released", "reserve_taken"]


def test_without_it_a_full_disk_is_a_full_disk(tmp_path: Path) -> None:
    file_system = FailingFileSystem(errno.ENOSPC, n=1, calls=("allocate",), times=2)
    reserve, told = Reserve(MmapDirectory(tmp_path, file_system), SIZE_BYTES), Told()
    attempts = []

    def attempt() -> None:
        attempts.append(1)
        raise DiskFull("full")

    for _ in range(2):
        with pytest.raises(DiskFull, match=str(SIZE_BYTES)):
            reserve.take(told)
        with pytest.raises(DiskFull, match="full"):
            reserve.spent_on(attempt, told)
    assert len(attempts) == 2
    assert list(tmp_path.iterdir()) == []
    reserve.take(told)
    assert told == ["reserve_taken"]


def test_one_that_cannot_be_made_is_done_without(tmp_path: Path) -> None:
    reserve = Reserve(MmapDirectory(tmp_path, FailingFileSystem(errno.EFBIG, calls=("allocate",))), SIZE_BYTES)
    told = Told()
    reserve.take(told)
    reserve.take(told)
    assert told == ["reserve_impossible"]
