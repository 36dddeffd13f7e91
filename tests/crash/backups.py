"""Backups and restores in children that are killed at a write-class call."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.crash.history import SCHEMA, batch, state_after
from tests.crash.observe import differences, observe
from tests.crash.workload import OPTIONS, hand_over
from tests.storage.faults import KillingFileSystem
from vecdb.engine import backup
from vecdb.engine.database import EmbeddedDatabase
from vecdb.engine.restore import restore_with, verify_backup
from vecdb.storage.io import FileSystem

NAMES = ("docs", "more")
SEED = 21
WRITTEN = 10
BACKED_UP = 16
PLAIN = replace(OPTIONS, graph_rows_min=10_000)


class ArmedFileSystem(KillingFileSystem):
    """Counts calls, and kills at the n-th, only once it is armed."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.armed = False

    def before(self, call: str, *arguments: object) -> None:
        if self.armed:
            super().before(call, *arguments)


def make_source(_: int, directory: str) -> None:
    """A database of two collections with a history, and a backup of it."""
    with EmbeddedDatabase.open(Path(directory) / "db", options=PLAIN) as database:
        write_both(database, 0, WRITTEN)
        database.backup(Path(directory) / "first.vbak")


def write_both(database: EmbeddedDatabase, first: int, last: int) -> None:
    """Hand over some batches to each collection."""
    for writer, name in enumerate(NAMES):
        collection = database.create_collection(name, schema=SCHEMA, exist_ok=True)
        for number in range(first, last):
            hand_over(collection, batch(SEED, writer, number))


def back_up_until_killed(_: int, directory: str, kill_at: int) -> int:
    """Write some more, take a backup of it, and die at a call of the latter; or the number of its calls."""
    backup.JOINED_BYTES = 2_048
    file_system = ArmedFileSystem(kill_at)
    with EmbeddedDatabase.open(Path(directory) / "db", options=PLAIN, file_system=file_system) as database:
        write_both(database, WRITTEN, BACKED_UP)
        file_system.armed = True
        since = Path(directory) / "first.vbak" if kill_at % 2 else None
        database.backup(Path(directory) / "second.vbak", since=since)
        file_system.armed = False
    return file_system.total


def restore_until_killed(_: int, directory: str, kill_at: int) -> int:
    """Restore, and die at a call of it; or the number of its calls."""
    file_system = ArmedFileSystem(kill_at)
    file_system.armed = True
    restore_with(file_system, Path(directory) / "first.vbak", Path(directory) / "restored")
    return file_system.total


def look_at_backup(_: int, directory: str) -> list[str]:
    """What is wrong after a backup was killed; the backup is then taken again."""
    place = Path(directory)
    target = place / "second.vbak"
    files = [place / "first.vbak", target]
    problems: list[str] = []
    if target.exists():
        verify_backup(files)
        target.unlink()
    problems += compared(place / "db", BACKED_UP)
    with EmbeddedDatabase.open(place / "db", options=PLAIN) as database:
        database.backup(target)
    if {path.name for path in place.iterdir()} != {"db", "first.vbak", "second.vbak"}:
        problems.append(f"left behind: {sorted(path.name for path in place.iterdir())}")
    restore_with(FileSystem(), target, place / "restored")
    return problems + compared(place / "restored", BACKED_UP)


def look_at_restored(_: int, directory: str) -> list[str]:
    """What is wrong after a restore was killed; it is then done again."""
    place = Path(directory)
    target = place / "restored"
    problems: list[str] = []
    if target.exists():
        problems += compared(target, WRITTEN)
        target.rename(place / "done")
    restore_with(FileSystem(), place / "first.vbak", target)
    verify_backup(place / "first.vbak")
    if {path.name for path in place.iterdir()} - {"db", "done"} != {"first.vbak", "restored"}:
        problems.append(f"left behind: {sorted(path.name for path in place.iterdir())}")
    return problems + compared(target, WRITTEN)


def compared(path: Path, batches: int) -> list[str]:
    """How a database differs from what so many batches of each collection make."""
    with EmbeddedDatabase.open(path, options=PLAIN) as database:
        return [
            f"{path.name}, {name}: {each}"
            for writer, name in enumerate(NAMES)
            for each in differences(
                observe(database.collection(name), [writer]),
                state_after(SEED, {writer: batches}),
            )
        ]
