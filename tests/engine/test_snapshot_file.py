"""The file of a snapshot's live rows: what was written is read back, anything else is Corruption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.bitmap import Bitmap, LiveRows
from vecdb.engine.manifest import LIVE_ROLE
from vecdb.engine.snapshot_file import read_live, write_live
from vecdb.errors import Corruption
from vecdb.segment.layout import SegmentEntry
from vecdb.storage.array_file import write_array_file
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem
from vecdb.types import SegmentId


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> MmapDirectory:
    return MmapDirectory.open(tmp_path_factory.mktemp("snapshot"), FileSystem(), create=False)


def entries(rows: dict[int, int]) -> list[SegmentEntry]:
    return [SegmentEntry(SegmentId(number), count, 1, 9, ()) for number, count in rows.items()]


@given(
    st.dictionaries(
        st.integers(1, 2**60), st.one_of(st.integers(0, 200), st.sampled_from([65_536, 65_537, 131_072])), max_size=5
    ),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=60)
def test_what_was_written_is_read_back(directory: MmapDirectory, rows: dict[int, int], seed: int):
    chance = np.random.default_rng(seed)
    live = {
        number: LiveRows.from_bitmap(Bitmap.from_bools(chance.random(count) < 0.5)) for number, count in rows.items()
    }
    ref = write_live(directory, "live", live, replace=True)
    found = read_live(directory, ref, entries(rows))
    assert {number: each.bitmap().rows().tolist() for number, each in found.items()} == {
        number: each.bitmap().rows().tolist() for number, each in live.items()
    }
    assert [each.size for each in found.values()] == [rows[number] for number in found]
    for number, each in found.items():
        if each.size:
            assert not each.without([0]).has(0)
            assert [chunk.shape for chunk in each.chunks] == [chunk.shape for chunk in live[number].chunks]


@pytest.mark.parametrize("rows", [{}, {1: 70}, {1: 70, 3: 10}, {1: 70, 2: 1000}, {2: 70, 1: 10}])
def test_live_rows_of_other_segments_are_refused(directory: MmapDirectory, rows: dict[int, int]):
    ref = write_live(directory, "live", {1: LiveRows.full(70), 2: LiveRows.full(10)}, replace=True)
    assert set(read_live(directory, ref, entries({2: 10, 1: 70}))) == {1, 2}
    with pytest.raises(Corruption, match="live"):
        read_live(directory, ref, entries(rows))


def test_live_rows_beyond_the_last_row_are_refused(directory: MmapDirectory):
    ref = write_live(directory, "live", {1: LiveRows.full(70)}, replace=True)
    with pytest.raises(Corruption, match="beyond"):
        read_live(directory, ref, entries({1: 69}))


def test_damage_is_reported_by_name(directory: MmapDirectory):
    ref = write_live(directory, "live", {1: LiveRows.full(70)}, replace=True)
    path = Path(directory.path_of("live"))
    data = bytearray(path.read_bytes())
    for offset in range(0, len(data), 7):
        damaged = data.copy()
        damaged[offset] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(Corruption) as caught:
            read_live(directory, ref, entries({1: 70}))
        assert caught.value.field == str(path)
    path.unlink()
    with pytest.raises(Corruption, match="missing"):
        read_live(directory, ref, entries({1: 70}))


@pytest.mark.parametrize("lacking", ["segment_ids", "word_starts", "words"])
def test_arrays_of_another_kind_are_refused(directory: MmapDirectory, lacking: str):
    arrays = {
        "segment_ids": np.array([1], np.uint64),
        "word_starts": np.array([0, 1], np.uint64),
        "words": np.array([1], np.uint64),
    }
    ref = write_array_file(directory, "live", LIVE_ROLE, arrays, replace=True)
    assert read_live(directory, ref, entries({1: 1}))[1].count() == 1
    ref = write_array_file(
        directory, "live", LIVE_ROLE, {**arrays, lacking: arrays[lacking].astype(np.int64)}, replace=True
    )
    with pytest.raises(Corruption, match=lacking):
        read_live(directory, ref, entries({1: 1}))
    other = write_array_file(directory, "live", "seqs", arrays, replace=True)
    with pytest.raises(Corruption, match="role"):
        read_live(directory, other, entries({1: 1}))
    with pytest.raises(Corruption):
        read_live(directory, replace(ref, checksum=1), entries({1: 1}))
