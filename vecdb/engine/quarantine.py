"""The quarantine: where a repair puts what is damaged, under the names it had; and the mark of a repair under way.

A marked database does not open, so that nothing comes between the steps of a repair that was interrupted; the repair
that is begun again uses the same place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from vecdb.errors import FailedPrecondition
from vecdb.storage.directory import MmapDirectory

QUARANTINE = "quarantine"
REPAIRING = "REPAIRING"
_REPORT = "report.json"
_NUMBER = re.compile(r"[0-9]{4,}")


class Quarantine:
    """The place for the damaged files of one repair."""

    def __init__(self, root: MmapDirectory) -> None:
        self._root = root
        self.resumed = root.exists(REPAIRING)
        self.number = self._marked_number() if self.resumed else ""
        if not self.number:
            taken: list[int] = []
            if QUARANTINE in root.children():
                found = root.child(QUARANTINE, create=False).children()
                taken = [int(name) for name in found if _NUMBER.fullmatch(name)]
            self.number = f"{max(taken, default=0) + 1:04d}"

    @property
    def place(self) -> str:
        """The directory, below that of the database."""
        return f"{QUARANTINE}/{self.number}"

    def begin(self, report: Mapping[str, Any]) -> None:
        """Mark the database and leave the plan, as JSON, beside what will be moved."""
        if not self.resumed:
            self._root.replace_file(REPAIRING, self.number.encode() + b"\n")
        directory = self.directory()
        if not directory.exists(_REPORT):
            text = json.dumps(report, ensure_ascii=False, indent=2)
            directory.replace_file(_REPORT, text.encode() + b"\n")

    def directory(self, *parts: str) -> MmapDirectory:
        """The directory in the quarantine that stands for one of the database, made if it is missing."""
        found = self._root.child(QUARANTINE, create=True).child(self.number, create=True)
        for part in parts:
            found = found.child(part, create=True)
        return found

    def _marked_number(self) -> str:
        """Where the interrupted repair put things; empty where its mark is damaged too."""
        text = self._root.read_file(REPAIRING).decode(errors="replace").strip()
        return text if _NUMBER.fullmatch(text) else ""

    def end(self) -> None:
        """Take the mark away, durably: the database may be opened."""
        self._root.unlink(REPAIRING)
        self._root.sync()


def refuse_unfinished(root: MmapDirectory) -> None:
    """Raise FailedPrecondition where a repair was interrupted."""
    if root.exists(REPAIRING):
        raise FailedPrecondition(
            f"a repair of {root.path} was interrupted: run `vecdb repair {root.path}` again",
            field=str(root.path / REPAIRING),
        )
