"""The repair of the catalogue: from its environment, else from its mirror, else from the collections that are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vecdb.engine.catalogue import (
    CATALOGUE_MIRROR,
    CatalogueEntry,
    by_name,
    decode_mirrored,
    entries_of,
    write_catalogue,
)
from vecdb.engine.quarantine import Quarantine
from vecdb.engine.repair.metadata import REBUILT_GENERATIONS
from vecdb.engine.repair.report import Action
from vecdb.errors import Corruption, NotFound
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.environment import DATA_NAME, Fingerprint
from vecdb.storage.lmdb_store import LmdbStore
from vecdb.storage.mirror import read_mirror


class CatalogueRepair:
    """The catalogue of a database.

    Attributes
    ----------
    entries
        The collections that it tells of, by name; ``None`` where nothing tells of them any more.
    """

    def __init__(self, root: MmapDirectory, name: str) -> None:
        self.actions: list[Action] = []
        self.entries: dict[str, CatalogueEntry] | None = None
        self._name = name
        self._root = root
        self._fingerprint: Fingerprint | None = None
        self._data_lost = self._mirror_lost = ""
        self._removed: set[str] = set()
        self._read()

    def complete(self, found: Iterable[tuple[str, str]], created_us: int) -> None:
        """Take the collections (name, id) that are there, where nothing else tells of them."""
        if self.entries is None:
            self.entries = {name: CatalogueEntry(name, number, created_us) for name, number in found}
            self.actions.append(
                Action(
                    f"{self._name}/{DATA_NAME}",
                    f"{self._data_lost}; {self._mirror_lost}",
                    f"rebuilt from the manifests of the {len(self.entries)} collections that are there",
                )
            )

    def remove(self, collection_id: str) -> None:
        """Take a collection out; there may be another of its name."""
        self._removed.add(collection_id)

    def carry_out(self, quarantine: Quarantine) -> None:
        """Write what is missing."""
        if not self.actions and not self._removed:
            return
        assert self.entries is not None
        directory = self._root.child(self._name, create=True)
        kept = quarantine.directory(self._name)
        if self._data_lost:
            directory.move(DATA_NAME, kept)
        if self._mirror_lost:
            directory.move(CATALOGUE_MIRROR, kept)
        left: Mapping[str, CatalogueEntry] = {
            name: entry for name, entry in self.entries.items() if entry.collection_id not in self._removed
        }
        write_catalogue(directory, left.values(), self._fingerprint, REBUILT_GENERATIONS)

    def _read(self) -> None:
        directory = MmapDirectory(self._root.path / self._name, self._root.fs, read_only=True)
        mirrored: dict[str, CatalogueEntry] | None = None
        if self._name not in self._root.children():
            self._data_lost = self._mirror_lost = f"{directory.path} is missing"
            return
        try:
            mirror = read_mirror(directory, CATALOGUE_MIRROR)
            if mirror is None:
                self._mirror_lost = f"{directory.path_of(CATALOGUE_MIRROR)} is missing"
            else:
                where = str(directory.path_of(CATALOGUE_MIRROR))
                mirrored = by_name(decode_mirrored(mirror.payload, where), where)
                self._fingerprint = mirror.fingerprint
        except Corruption as error:
            self._mirror_lost = error.message
        try:
            store = LmdbStore.open(directory, expected=self._fingerprint)
            try:
                self.entries = entries_of(store, str(directory.path))
                # What is written in its place must not pass for older.
                self._fingerprint = store.fingerprint()
            finally:
                store.close()
        except (Corruption, NotFound) as error:
            self._data_lost = error.message
            if mirrored is not None:
                self.entries = mirrored
        if self.entries is None:
            return
        if self._data_lost:
            self.actions.append(
                Action(f"{self._name}/{DATA_NAME}", self._data_lost, "quarantine; rebuilt from the mirror")
            )
        if self._mirror_lost:
            self.actions.append(
                Action(
                    f"{self._name}/{CATALOGUE_MIRROR}",
                    self._mirror_lost,
                    "quarantine; written again from the catalogue",
                )
            )
