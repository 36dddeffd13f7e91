"""One flipped byte in a copy of a whole database: what opening it, asking it and checking it say."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.crash.history import State, applied, batch
from tests.crash.observe import differences, observe
from tests.crash.workload import NAME, OPTIONS, QUIET, Plan, hand_over
from vecdb.engine.check import check_database
from vecdb.engine.database import EmbeddedDatabase
from vecdb.errors import Corruption, FailedPrecondition
from vecdb.kernels.protocol import Kernels
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem
from vecdb.storage.mirror import read_mirror

REPORTED, CHECKED, HARMLESS, WRONG = "reported", "checked", "harmless", "wrong"
"""By the open or an answer; only by the check, all answers being right; by nobody, all answers being right; else."""


UNCHECKED_KINDS = frozenset({"LOCK", "RESERVE", "data.mdb"})
"""Kinds of file with bytes that mean nothing: the content of lock and reserve, the free pages of an environment."""


PAGE_BYTES = 4_096


@dataclass(frozen=True)
class Flip:
    """A byte to change.

    Attributes
    ----------
    file
        Path of the file below the database's directory.
    mask
        What the byte is XORed with.
    """

    file: str
    offset: int
    mask: int

    @property
    def kind(self) -> str:
        """The kind of file, for the report."""
        return kind_of(self.file)


@dataclass(frozen=True)
class Damage:
    """A file or directory to destroy.

    Attributes
    ----------
    how
        One of ``tests.crash.damages.HOW``.
    other
        The file it is exchanged with.
    """

    file: str
    how: str
    other: str = ""

    @property
    def kind(self) -> str:
        """The kind of file, for the report."""
        return kind_of(self.file)


def kind_of(file: str) -> str:
    """The kind of a file, by its path."""
    name = Path(file).name
    if "/log/" in file:
        return "log"
    parts = name.split(".")
    return parts[1] if len(parts) > 2 and parts[0].isdigit() else name


@dataclass(frozen=True)
class Finding:
    """What became of a flip: one of the words above, and the reason."""

    flip: Flip | Damage
    word: str
    told: str


def sampled(base: Path, count: int, seed: int) -> list[Flip]:
    """Flips over all files: some in each, more in larger ones."""
    chance = np.random.default_rng(seed)
    files = sorted(each for each in base.rglob("*") if each.is_file() and each.stat().st_size)
    weights = np.array([each.stat().st_size for each in files]) ** 0.5
    # Most pages of an environment are free, and a flip there costs the most time to judge.
    weights[[each.name == "data.mdb" for each in files]] /= 2
    counts = np.maximum(4, np.rint(count * weights / weights.sum())).astype(int)
    while counts.sum() < count:
        counts[chance.integers(len(files))] += 1
    flips = [
        Flip(str(file.relative_to(base)), int(offset), int(chance.integers(1, 256)))
        for file, wanted in zip(files, counts, strict=True)
        for offset in chance.integers(0, file.stat().st_size, wanted)
    ]
    # In random order: a run that is cut short has some of every file.
    return [flips[at] for at in chance.permutation(len(flips))]


def every(base: Path, seed: int) -> list[Flip]:
    """A flip of each byte of each file, in random order."""
    chance = np.random.default_rng(seed)
    flips = [
        Flip(str(file.relative_to(base)), offset, int(chance.integers(1, 256)))
        for file in sorted(each for each in base.rglob("*") if each.is_file())
        for offset in range(file.stat().st_size)
    ]
    return [flips[at] for at in chance.permutation(len(flips))]


def in_values(base: Path, count: int, seed: int) -> list[Flip]:
    """Flips in what environments hold: wherever their manifest is."""
    chance = np.random.default_rng(seed)
    flips = []
    for file in sorted((base / "collections").glob("*/data.mdb")):
        mirror = read_mirror(MmapDirectory(file.parent, FileSystem(), read_only=True), "mirror")
        assert mirror is not None
        data = file.read_bytes()
        at = data.find(mirror.payload)
        while at >= 0:
            offsets = at + chance.integers(0, len(mirror.payload), count)
            flips += [Flip(str(file.relative_to(base)), int(offset), 1) for offset in offsets]
            at = data.find(mirror.payload, at + 1)
    return flips


def in_pages(base: Path, count: int, seed: int) -> list[Flip]:
    """Flips in the beginnings of an environment's pages, which lead from one to the other."""
    chance = np.random.default_rng(seed)
    return [
        Flip(str(file.relative_to(base)), page + int(offset), int(chance.integers(1, 256)))
        for file in sorted((base / "collections").glob("*/data.mdb"))
        for page in range(0, file.stat().st_size, PAGE_BYTES)
        for offset in chance.integers(0, 160, count)
    ]


def found(base: Path, place: Path, flip: Flip, plan: Plan, state: State, kernels: Kernels) -> Finding:
    """Copy the database, flip the byte, and see."""
    shutil.copytree(base, place)
    path = place / flip.file
    with path.open("r+b") as file:
        file.seek(flip.offset)
        byte = file.read(1)[0]
        file.seek(flip.offset)
        file.write(bytes([byte ^ flip.mask]))
    try:
        finding = judged(flip, place, plan, state, kernels)
    except Exception as error:
        finding = Finding(flip, WRONG, f"{type(error).__name__}: {error}")
    shutil.rmtree(place)
    return finding


def judged(flip: Flip | Damage, place: Path, plan: Plan, state: State, kernels: Kernels) -> Finding:
    name = Path(flip.file).name
    checked = _checked(place)

    def names(told: str) -> bool:
        # Files of a log are known by each other: what tells of one that is gone is the next, or the directory.
        other = Path(flip.other).name if isinstance(flip, Damage) else ""
        return name in told or bool(other and other in told) or ("/log/" in flip.file and "/log" in told)

    try:
        with EmbeddedDatabase.open(place, options=OPTIONS, kernels=kernels) as database:
            wrong = differences(observe(database.collection(NAME), range(plan.writers)), state)
            if not wrong and name == "data.mdb":
                wrong = _written_on(database, plan, state)
        if not wrong and name == "data.mdb":
            with EmbeddedDatabase.open(place, options=OPTIONS, kernels=kernels) as database:
                state = applied(state, batch(plan.seed, 0, plan.batches))
                wrong = differences(observe(database.collection(NAME), range(plan.writers)), state)
    except (Corruption, FailedPrecondition) as error:
        if not names(f"{error.field} {error.message}"):
            return Finding(flip, WRONG, f"reported without naming {name}: {error.field}: {error.message}")
        if not any(map(names, checked)):
            return Finding(flip, WRONG, f"the open says {error.message}, the check does not name {name}: {checked}")
        return Finding(flip, REPORTED, error.message)
    if wrong:
        return Finding(flip, WRONG, "; ".join(wrong[:3]))
    if any(map(names, checked)):
        return Finding(flip, CHECKED, "; ".join(checked))
    if isinstance(flip, Flip) and flip.kind not in UNCHECKED_KINDS:
        return Finding(flip, WRONG, "nobody noticed, though a checksum covers every byte of this file")
    return Finding(flip, HARMLESS, "")


def _written_on(database: EmbeddedDatabase, plan: Plan, state: State) -> list[str]:
    """Whether the next write and flush do harm, where a page that nothing reads yet was hit."""
    collection = database.collection(NAME)
    hand_over(collection, batch(plan.seed, 0, plan.batches))
    collection.flush()
    return differences(observe(collection, range(plan.writers)), applied(state, batch(plan.seed, 0, plan.batches)))


def _checked(place: Path) -> list[str]:
    """What ``check_database`` says, without changing a byte."""
    before = {each: each.read_bytes() for each in place.rglob("*") if each.is_file() and each.name != "LOCK"}
    try:
        report = check_database(place)
    except (Corruption, FailedPrecondition) as error:
        told = [f"{error.field} {error.message}"]
    else:
        told = [f"{each.file} {each.message}" for each in report.problems]
    after = {each: each.read_bytes() for each in place.rglob("*") if each.is_file() and each.name != "LOCK"}
    assert before == after, "the check changed the database"
    return told


def complete(base: Path, kernels: Kernels) -> dict[str, int]:
    """What makes the database worth flipping: segments, graphs, dead rows, rows that are only in the log."""
    with EmbeddedDatabase.open(base, options=QUIET, kernels=kernels) as database:
        observed = observe(database.collection(NAME), [0])
        stats = database.collection(NAME).stats()
    return {
        "searched by graph": "graph" in observed.strategies,
        "searched by codes": "scan" in observed.strategies,
        "segments": stats.segments,
        "graph bytes": stats.role_bytes.get("graph", 0),
        "journal bytes": stats.role_bytes.get("journal", 0),
        "dead rows": stats.deleted_rows,
        "rows in the log": stats.memtable_rows,
    }
