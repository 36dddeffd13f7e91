"""The repair of one collection: what is wrong with it, what will be done, and doing it.

Metadata comes from the environment where that is whole, else from the mirror; live rows then come from the rows and
deletes in the segments. New files are written first, then one commit names them, then what nothing names any more goes
to the quarantine: a repair that is interrupted anywhere and begun again comes to the same end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vecdb.engine.manifest import Manifest
from vecdb.engine.quarantine import Quarantine
from vecdb.engine.recovery import METADATA_FILES
from vecdb.engine.repair.log import LogRepair
from vecdb.engine.repair.metadata import Metadata, commit_metadata, find_metadata
from vecdb.engine.repair.report import Action, Findings, Loss
from vecdb.engine.repair.segments import SegmentsRepair
from vecdb.engine.repair.snapshots import SnapshotsRepair
from vecdb.engine.state import MIRROR
from vecdb.errors import Corruption
from vecdb.kernels.protocol import Kernels
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.environment import DATA_NAME


class CollectionRepair:
    """One collection.

    Attributes
    ----------
    hopeless
        Why nothing can be made of it: it goes to the quarantine as a whole. Empty where something can.
    """

    def __init__(
        self, collections: MmapDirectory, collection_id: str, name: str, kernels: Kernels, *, resumed: bool
    ) -> None:
        self.collection_id = collection_id
        self.hopeless = ""
        self._collections = collections
        self._findings = Findings(name, f"{collections.path.name}/{collection_id}")
        self._metadata: Metadata | None = None
        self._segments: SegmentsRepair
        self._snapshots: SnapshotsRepair
        self._log: LogRepair
        self._diagnose(kernels, resumed)

    @property
    def name(self) -> str:
        """Its name, as far as that can be known."""
        return self._findings.collection

    @property
    def actions(self) -> Sequence[Action]:
        """What will be done."""
        return self._findings.actions

    @property
    def losses(self) -> Sequence[Loss]:
        """What cannot be brought back."""
        return self._findings.losses

    @property
    def manifest(self) -> Manifest | None:
        """What the collection consisted of; ``None`` where it is hopeless."""
        return None if self._metadata is None else self._metadata.manifest

    def give_up(self, reason: str) -> None:
        """Put the collection into the quarantine as a whole, instead of all else."""
        self.hopeless = reason
        self._findings = findings = Findings(self.name, self._findings.place)
        findings.tell("", reason, "the directory goes to the quarantine")
        findings.lose("collection", f"collection {self.name!r} of the id {self.collection_id} and all in it")

    def carry_out(self, quarantine: Quarantine) -> None:
        """Do what was planned."""
        if self.hopeless:
            # Moved as a whole, and only then taken out of the catalogue: unnamed directories are removed by an open.
            if self._collections.fs.is_directory(self._collections.path_of(self.collection_id)):
                self._collections.move(self.collection_id, quarantine.directory(self._collections.path.name))
            return
        if not self.actions:
            return
        assert self._metadata is not None
        directory = self._collections.child(self.collection_id, create=False)
        kept = quarantine.directory(self._collections.path.name, self.collection_id)
        after = self._commit(directory, self._metadata, kept)
        for name in sorted(set(directory.names()) - after.file_names() - METADATA_FILES):
            directory.move(name, kept)
        self._log.carry_out(directory, kept)

    def _diagnose(self, kernels: Kernels, resumed: bool) -> None:
        findings = self._findings
        path, fs = self._collections.path_of(self.collection_id), self._collections.fs
        if not fs.is_directory(path):
            self.hopeless = "its directory is missing"
            findings.tell("", self.hopeless, "the collection is taken out of the catalogue")
            findings.lose("collection", f"collection {self.name!r} and all in it")
            return
        directory = MmapDirectory(path, fs, read_only=True)
        self._metadata = self._find_metadata(directory)
        if self._metadata is None:
            return
        manifest = self._metadata.manifest
        findings.collection = manifest.collection
        self._segments = SegmentsRepair(directory, self._metadata, kernels, findings)
        self._snapshots = SnapshotsRepair(directory, manifest, self._segments, findings)
        self._log = LogRepair(directory, manifest, findings)
        if resumed and not self.actions:
            for name in sorted(set(directory.names()) - manifest.file_names() - METADATA_FILES):
                findings.tell(name, "nothing names it since the repair was interrupted", "quarantine")

    def _find_metadata(self, directory: MmapDirectory) -> Metadata | None:
        try:
            metadata = find_metadata(directory, self.collection_id)
        except Corruption as error:
            self.hopeless = error.message
            self._findings.tell(
                "",
                self.hopeless,
                "neither the metadata nor its mirror tells what the files mean: the directory goes to the quarantine",
            )
            self._findings.lose("collection", f"collection {self.name or self.collection_id!r} and all in it")
            return None
        for name, lost, remedy in (
            (DATA_NAME, metadata.data_lost, "quarantine; rebuilt from the mirror and the segments"),
            (MIRROR, metadata.mirror_lost, "quarantine; written again from the metadata"),
        ):
            if lost:
                self._findings.tell(name, lost, remedy)
        return metadata

    def _commit(self, directory: MmapDirectory, metadata: Metadata, kept: MmapDirectory) -> Manifest:
        """Write new files, then the metadata that names them; the manifest from then on."""
        manifest, segments = metadata.manifest, self._segments
        if not (segments.needed or self._snapshots.needed or metadata.data_lost or metadata.mirror_lost):
            return manifest
        segments.write(directory)
        after = replace(
            manifest,
            next_segment_id=segments.next_segment_id,
            segments=segments.after(manifest.segments),
            snapshots=tuple(self._snapshots.write(directory, each) for each in manifest.snapshots),
        )
        directory.sync()
        named = {each.segment_id for each in after.segments}
        live = {number: rows for number, rows in segments.live.items() if number in named}
        commit_metadata(directory, metadata, after, live, segments.requests(), kept)
        return after
