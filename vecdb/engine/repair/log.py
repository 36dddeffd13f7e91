"""The repair of a collection's log: what is behind a hole goes, and a log that is missing is made again, empty."""

from __future__ import annotations

from vecdb.engine.log_record import decode_record
from vecdb.engine.manifest import Manifest
from vecdb.engine.repair.report import Findings
from vecdb.engine.state import LOG
from vecdb.requests import check_against_schema
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.log_salvage import LogCut, examine_log


class LogRepair:
    """The log of one collection, in whose directory it is."""

    def __init__(self, directory: MmapDirectory, manifest: Manifest, findings: Findings) -> None:
        self._cut: LogCut | None = None
        self._missing = LOG not in directory.children()
        if self._missing:
            findings.tell(LOG, "the log is missing", "an empty one is made")
            findings.lose("writes", f"what was written after write {manifest.flushed_seq} and was only in the log")
            return

        def decode(seq: int, data: bytes) -> None:
            for upsert in decode_record(seq, data).upserts:
                check_against_schema(upsert, manifest.schema)

        # Not for reading only: what looks like a log that its owner is trimming is a damaged one here.
        log = MmapDirectory(directory.path / LOG, directory.fs)
        self._cut = examine_log(log, manifest.flushed_seq, decode)
        if self._cut is not None:
            _tell(self._cut, findings)

    def carry_out(self, directory: MmapDirectory, kept: MmapDirectory) -> None:
        """Make or cut the log; ``kept`` is the collection's quarantine."""
        if self._missing:
            directory.child(LOG, create=True)
        if self._cut is not None:
            self._cut.carry_out(directory.child(LOG, create=False), kept.child(LOG, create=True))


def _tell(cut: LogCut, findings: Findings) -> None:
    reason = cut.reason.message
    for name, _ in cut.replaced:
        findings.tell(f"{LOG}/{name}", reason, f"quarantine; kept are its writes up to {cut.kept_seq}")
    for name in cut.removed:
        findings.tell(f"{LOG}/{name}", reason, "quarantine")
    if not cut.replaced and not cut.removed:
        findings.tell(LOG, reason, f"kept are the writes up to {cut.kept_seq}")
    if cut.lost_seq > cut.kept_seq:
        findings.lose(
            "writes", f"the writes {cut.kept_seq + 1} to {cut.lost_seq}, and any later one", cut.lost_seq - cut.kept_seq
        )
