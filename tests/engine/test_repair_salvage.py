"""One byte flipped in any file, repaired: what was not damaged is there, what is lost is named, no row is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.crash.history import BODY, METRICS, SCHEMA, State, Stored
from tests.crash.observe import queries_of, ranking_differences, same_vectors
from tests.crash.workload import QUIET
from tests.engine.repairing import (
    DOCS,
    OTHER,
    build,
    checked,
    collection_path,
    copied,
    flip,
    manifest_of,
    snapshot_ids,
    state_at,
)
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.options import EngineOptions
from vecdb.engine.repair import RepairReport, repair_database
from vecdb.segment.layout import Role
from vecdb.storage.array_file import ArrayFile
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem

ROWS = 1500


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State]:
    path = tmp_path_factory.mktemp("built") / "db"
    return path, build(path)


def judge(path: Path, report: RepairReport, state: State, name: str = DOCS) -> None:
    """Compare the repaired database with the model, less what the report says is lost."""
    assert checked(path).problems == ()
    writes = [loss for loss in report.losses if loss.kind == "writes"]
    if writes:
        state, _ = state_at(state_at()[1] - writes[0].count)
    losses = [loss for loss in report.losses if loss.kind == "points"]
    named = {each for loss in losses for each in loss.ids}
    unnamed = sum(loss.count - len(loss.ids) for loss in losses)
    with EmbeddedDatabase.open(path, options=QUIET) as database:
        collection = database.collection(name)
        found = {each.id: each for each in collection.scroll(with_vectors=True)}
        hits = collection.search(queries_of(BODY)[0], 50, field=BODY, recall="exact")
    # What is lost of the segments may have been written again since, and is then back from the log.
    missing = state.keys() - found.keys() - named
    assert len(missing) <= unnamed, "a row is missing that is not reported as lost"
    assert found.keys() <= state.keys(), "a deleted row is back"
    for key, point in found.items():
        assert point.payload == state[key].payload, key
        assert same_vectors(point.vectors, state[key].vectors), key
    vectors = {key: state[key].vectors[BODY] for key in found}
    distances = [float(each) for each in hits.distances]
    assert not ranking_differences(
        list(hits.ids), distances, vectors, queries_of(BODY)[0], METRICS[BODY], 50, exact=True
    )


@pytest.mark.parametrize("flips", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_a_flip_in_any_file(built: tuple[Path, State], tmp_path: Path, flips: int):
    base, state = built
    chance = np.random.default_rng(3)
    # A file of each kind that there is in the collection, and so many flips in different eighths of it.
    files: dict[str, Path] = {}
    directory = collection_path(base)
    for each in sorted(each for each in directory.rglob("*") if each.is_file()):
        parts = each.name.split(".")
        files.setdefault("log" if each.suffix == ".log" else ".".join(parts[1:]) or each.name, each)
    assert len(files) >= 11
    for kind, file in files.items():
        for part in chance.choice(8, flips, replace=False):
            place = copied(base, tmp_path / f"{kind}-{part}")
            damaged = place / file.relative_to(base)
            size = damaged.stat().st_size
            offset = int((part + chance.random()) * size / 8)
            flip(damaged, offset, int(chance.integers(1, 256)))
            content = damaged.read_bytes()
            report = repair_database(place)
            kinds = {loss.kind for loss in report.losses}
            assert kinds <= {"points", "snapshot"} if kind != "log" else kinds <= {"writes"}, (kind, offset)
            if kind.partition(".")[0] in ("codes", "graph", "journal", "live", "mirror", "data"):
                assert not kinds, (kind, offset)
            if report.needed:
                assert (place / report.quarantine / file.relative_to(base)).read_bytes() == content, (kind, offset)
            judge(place, report, state)
    judge(place, RepairReport((), ()), state, OTHER)


@pytest.mark.parametrize("role", ["ids", "seqs", "payload", "vectors.0", "vectors.1", "codes.0", "journal", "log"])
def test_a_missing_file(built: tuple[Path, State], tmp_path: Path, role: str):
    base, state = built
    path = copied(base, tmp_path / "db")
    directory = collection_path(path)
    before = snapshot_ids(directory)
    if role == "log":
        for each in (directory / "log").iterdir():
            each.unlink()
        (directory / "log").rmdir()
    else:
        (directory / f"0000000001.{role}.0").unlink()
    report = repair_database(path)
    if role == "log":
        assert [loss.kind for loss in report.losses] == ["writes"]
        assert checked(path).problems == ()
        return
    judge(path, report, state)
    lost = {each for loss in report.losses if loss.kind == "snapshot" for each in loss.ids}
    if role != "ids":
        assert {name: ids - lost for name, ids in before.items()} == snapshot_ids(directory)
    assert bool(report.losses) == (role not in ("codes.0", "seqs", "journal"))


def one_large_segment(path: Path) -> State:
    """Points with long payloads in one segment, of which some are dead, and newer ones in another."""
    chance = np.random.default_rng(1)
    options = EngineOptions(kernels="reference", graph_rows_min=10**6)
    values = {name: chance.standard_normal((ROWS, dim)).astype(np.float32) for name, dim in (("body", 8), ("title", 4))}
    state: State = {}
    with EmbeddedDatabase.open(path, options=options) as database:
        docs = database.create_collection(DOCS, schema=SCHEMA)
        columns: dict[str, list] = {name: [] for name in values}
        ids = [f"{number:05d}" if number % 3 else number for number in range(ROWS)]
        payloads = []
        for number, key in enumerate(ids):
            vectors = {name: rows[number] for name, rows in values.items() if name == "body" or number % 5}
            payloads.append({"writer": 0, "number": number, "group": number % 5, "text": "y" * (number % 40)})
            state[key] = Stored(payloads[-1], vectors)
            for name in values:
                columns[name].append(vectors.get(name))
        docs.upsert(ids, columns, payloads)
        docs.flush()
        docs.delete(ids[100:150])
        docs.upsert(ids[:50], {name: columns[name][50:100] for name in values}, payloads[50:100])
        docs.flush()
    for key in ids[100:150]:
        del state[key]
    for number in range(50):
        state[ids[number]] = state[ids[number + 50]]
    return state


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State]:
    path = tmp_path_factory.mktemp("large") / "db"
    return path, one_large_segment(path)


def rows_of_block(directory: Path, role: Role, field: str, block: int) -> set[int]:
    """The rows of the first segment of which a byte is in a block, told from the layout of the file."""
    manifest = manifest_of(directory)
    entry = manifest.segments[0]
    file = entry.file(role, field)
    assert file is not None
    opened = ArrayFile.open(MmapDirectory(directory, FileSystem()), file.ref)
    first, end = block * 4096, block * 4096 + 4096

    def items(name: str) -> range:
        """The items of an array that have a byte in the block."""
        each = opened._entries[name]
        size = each.size_bytes // each.shape[0]
        low = max(0, (first - each.offset) // size)
        high = min(each.shape[0], -(-(end - each.offset) // size))
        return range(low, high) if each.size_bytes and high > low else range(0)

    arrays = opened.arrays
    hit: set[int] = set()
    if role is Role.VECTORS:
        slots = set(items("vectors")) | set(items("norms") if "norms" in arrays else ())
        rows = arrays.get("slot_rows")
        hit = slots if rows is None else {int(rows[slot]) for slot in slots}
        if rows is not None and items("slot_rows"):
            known = [slot for slot in range(rows.shape[0]) if slot not in items("slot_rows")]
            low = max((int(rows[slot]) for slot in known if slot < items("slot_rows")[0]), default=-1)
            high = min((int(rows[slot]) for slot in known if slot > items("slot_rows")[-1]), default=entry.rows)
            hit |= set(range(low + 1, high))
    elif role in (Role.PAYLOAD, Role.IDS):
        offsets_name, data_name = ("offsets", "bytes") if role is Role.PAYLOAD else ("key_offsets", "keys")
        offsets = arrays[offsets_name].tolist()
        data = items(data_name)
        for row in range(entry.rows):
            of_data = data and offsets[row] < data[-1] + 1 and offsets[row + 1] > data[0]
            if of_data or row in items(offsets_name) or row + 1 in items(offsets_name):
                hit.add(row)
    return hit


@pytest.mark.parametrize(
    ("role", "field"),
    [(Role.VECTORS, "body"), (Role.VECTORS, "title"), (Role.PAYLOAD, ""), (Role.IDS, ""), (Role.SEQS, "")],
)
@pytest.mark.parametrize("sampled", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_only_the_rows_of_damaged_blocks_are_lost(
    large: tuple[Path, State], tmp_path: Path, role: Role, field: str, sampled: int
):
    base, state = large
    manifest = manifest_of(collection_path(base))
    file = manifest.segments[0].file(role, field)
    assert file is not None
    blocks = range(file.ref.size_bytes // 4096)
    chance = np.random.default_rng(4)
    # The header, the tail, and some in between.
    for block in sorted({0, len(blocks) - 1, *chance.choice(len(blocks), min(sampled, len(blocks)), replace=False)}):
        path = copied(base, tmp_path / f"{block}")
        directory = collection_path(path)
        expected = rows_of_block(directory, role, field, int(block))
        keys = _keys(directory)
        flip(directory / file.ref.name, int(block) * 4096 + int(chance.integers(4096)))
        report = repair_database(path)
        assert report.needed
        # Rows that were dead are no loss.
        alive = {keys[row] for row in expected if keys[row] in state and state[keys[row]].payload["number"] == row}
        losses = [loss for loss in report.losses if loss.kind == "points"]
        assert sum(loss.count for loss in losses) == len(alive), (block, report.losses)
        if role is not Role.IDS:
            assert {each for loss in losses for each in loss.ids} == alive
        judge(path, report, state)
        # The older row of a lost id must not come back either when the environment is lost later on.
        (directory / "data.mdb").unlink()
        again = repair_database(path)
        assert again.losses == ()
        judge(path, report, state)


def _keys(directory: Path) -> list[int | str]:
    from vecdb.kernels.reference import ReferenceKernels
    from vecdb.segment.ids import id_of
    from vecdb.segment.reader import SegmentReader

    manifest = manifest_of(directory)
    reader = SegmentReader(
        MmapDirectory(directory, FileSystem()), manifest.segments[0], manifest.schema, ReferenceKernels()
    )
    return [id_of(key) for key in reader.keys[:]]


@pytest.mark.parametrize("cut", [1, 40, 60, 5000])
def test_a_truncated_or_extended_file(large: tuple[Path, State], tmp_path: Path, cut: int):
    base, state = large
    for change in (lambda data: data[:-cut], lambda data: data + b"x" * cut):
        path = copied(base, tmp_path / f"{change(b'ab' * cut) > b'ab' * cut}")
        file = next(collection_path(path).glob("0000000001.vectors.0.0"))
        file.write_bytes(change(file.read_bytes()))
        report = repair_database(path)
        assert report.needed
        judge(path, report, state)
        if len(change(b"ab" * cut)) > 2 * cut or cut < 60:
            # Only the table or the footer is gone, and the root checksum in the manifest stands for both.
            assert report.losses == ()


def test_both_metadata_and_rows_lost(large: tuple[Path, State], tmp_path: Path):
    base, state = large
    path = copied(base, tmp_path / "db")
    directory = collection_path(path)
    keys = _keys(directory)
    flip(directory / "0000000001.vectors.0.0", 3 * 4096 + 5)
    newer = next(directory.glob("0000000002.vectors.0.0"))
    flip(newer, 4096 + 7)
    (directory / "data.mdb").unlink()
    report = repair_database(path)
    lost = {each for loss in report.losses for each in loss.ids}
    # All of the second segment is in one block; what these ids were before must not come back.
    assert set(keys[:50]) <= lost
    judge(path, report, state)
