"""Files of a whole database destroyed: what opening it, asking it and checking it say, and whether others go on."""

from __future__ import annotations

import itertools
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.crash.flips import WRONG, Damage, Finding, judged
from tests.crash.history import State
from tests.crash.workload import OPTIONS, Plan
from vecdb.engine.database import EmbeddedDatabase
from vecdb.kernels.protocol import Kernels

OTHER, OTHER_ROWS = "other", 5
"""A collection beside the damaged one, and how many points it has."""
REMOVED, EMPTIED, HALVED, CUT, EXTENDED, PADDED, SWAPPED, OLDER = HOW = (
    "removed",
    "emptied",
    "cut to half",
    "cut by a byte",
    "extended by a byte",
    "extended by a page of zeros",
    "exchanged with another",
    "replaced by an older copy",
)


def damages(base: Path, older: Path, collection_id: str) -> Iterator[Damage]:
    """Every damage of every file outside the other collection, and the removal of each directory."""
    places = [base, base / "catalogue", base / "collections" / collection_id]
    places.append(places[-1] / "log")
    by_size: defaultdict[tuple[Path, int], list[str]] = defaultdict(list)
    for place in places:
        for file in sorted(each for each in place.iterdir() if each.is_file()):
            name = str(file.relative_to(base))
            yield from (Damage(name, how) for how in (REMOVED, EMPTIED, HALVED, CUT, EXTENDED, PADDED))
            past = older / name
            if past.exists() and past.read_bytes() != file.read_bytes():
                yield Damage(name, OLDER)
            by_size[(place, file.stat().st_size)].append(name)
    for names in by_size.values():
        yield from (Damage(one, SWAPPED, two) for one, two in itertools.pairwise(names))
    yield from (Damage(str(place.relative_to(base)), REMOVED) for place in places[1:])


def judged_damage(
    base: Path, older: Path, place: Path, damage: Damage, plan: Plan, state: State, kernels: Kernels
) -> Finding:
    """Copy the database, destroy the file, and see."""
    shutil.copytree(base, place)
    _destroy(place / damage.file, damage, place, older)
    try:
        finding = judged(damage, place, plan, state, kernels)
        if damage.file.startswith("collections/") and finding.word != WRONG:
            with EmbeddedDatabase.open(place, options=OPTIONS, kernels=kernels) as database:
                if database.collection(OTHER).count() != OTHER_ROWS:
                    finding = Finding(damage, WRONG, "the other collection lost points")
    except Exception as error:
        finding = Finding(damage, WRONG, f"{type(error).__name__}: {error}")
    shutil.rmtree(place)
    return finding


def _destroy(path: Path, damage: Damage, place: Path, older: Path) -> None:
    if damage.how == REMOVED and path.is_dir():
        shutil.rmtree(path)
        return
    data = path.read_bytes()
    match damage.how:
        case "removed":
            path.unlink()
        case "emptied":
            path.write_bytes(b"")
        case "cut to half":
            path.write_bytes(data[: len(data) // 2])
        case "cut by a byte":
            path.write_bytes(data[:-1])
        case "extended by a byte":
            path.write_bytes(data + b"x")
        case "extended by a page of zeros":
            path.write_bytes(data + bytes(4_096))
        case "exchanged with another":
            path.write_bytes((place / damage.other).read_bytes())
            (place / damage.other).write_bytes(data)
        case "replaced by an older copy":
            path.write_bytes((older / damage.file).read_bytes())
