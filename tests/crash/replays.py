"""Restores to a later write than the backup has, in children that are killed while archived log files are replayed."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from tests.crash.backups import BACKED_UP, NAMES, PLAIN, WRITTEN, ArmedFileSystem, compared, write_both
from vecdb.archive.manifest import BackupCollection
from vecdb.engine import point_in_time
from vecdb.engine.database import EmbeddedDatabase, choose_kernels
from vecdb.engine.log_archive import LogArchive
from vecdb.engine.point_in_time import Replay, Until
from vecdb.engine.restore import restore_with
from vecdb.results.restore import RestoredCollection
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.io import FileSystem

UNTOUCHED = ("archive", "db", "first.vbak")


class ArmingReplay(Replay):
    """Arms its file system with the first record."""

    def __init__(self, file_system: ArmedFileSystem, archive: LogArchive) -> None:
        super().__init__(archive, Until(), PLAIN, choose_kernels("reference"))
        self._file_system = file_system

    def run(
        self, told: BackupCollection, log_file_id: int, directory: MmapDirectory, collection_id: str
    ) -> RestoredCollection:
        self._file_system.armed = True
        return super().run(told, log_file_id, directory, collection_id)


def make_archived(_: int, directory: str) -> None:
    """A database of two collections, a backup of it, and an archive of what was written since."""
    place = Path(directory)
    with EmbeddedDatabase.open(place / "db", options=replace(PLAIN, log_archive=place / "archive")) as database:
        write_both(database, 0, WRITTEN)
        database.backup(place / "first.vbak")
        write_both(database, WRITTEN, BACKED_UP)
        for name in NAMES:
            database.collection(name).flush()
            assert "log_not_archived" not in database.collection(name).stats().events
    (place / "digest").write_text(_digest(place))


def replay_until_killed(_: int, directory: str, kill_at: int) -> int:
    """Restore what the archive has, and die at a call of the replay; or the number of its calls."""
    return _restore(Path(directory), ArmedFileSystem(kill_at))


def look_at_replayed(_: int, directory: str) -> list[str]:
    """What is wrong after a restore was killed; it is then done again."""
    place = Path(directory)
    target = place / "restored"
    problems: list[str] = []
    if target.exists():
        problems += compared(target, BACKED_UP)
        target.rename(place / "done")
    if _digest(place) != (place / "digest").read_text():
        problems.append("the database, its backup or its log archive changed")
    _restore(place, ArmedFileSystem(10**9))
    if _digest(place) != (place / "digest").read_text():
        problems.append("the database, its backup or its log archive changed in the second restore")
    if {path.name for path in place.iterdir()} - {"done"} != {*UNTOUCHED, "digest", "restored"}:
        problems.append(f"left behind: {sorted(path.name for path in place.iterdir())}")
    return problems + compared(target, BACKED_UP)


def _restore(place: Path, file_system: ArmedFileSystem) -> int:
    point_in_time.PART_BYTES = 2_000
    archive = LogArchive.open(place / "archive", FileSystem(), create=False)
    restore_with(
        file_system,
        place / "first.vbak",
        place / "restored",
        replay_for=lambda _: ArmingReplay(file_system, archive),
    )
    return file_system.total


def _digest(place: Path) -> str:
    digest = hashlib.sha256()
    for name in UNTOUCHED:
        for path in sorted(path for path in [place / name, *(place / name).rglob("*")] if path.is_file()):
            digest.update(str(path.relative_to(place)).encode() + path.read_bytes())
    return digest.hexdigest()
