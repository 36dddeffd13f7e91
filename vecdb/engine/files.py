"""Which files of a collection may be unlinked: those that no manifest names and nobody in this process still reads.

A file that a commit takes out of the manifest is retired. It is unlinked by a later ``sweep``, once no reader that was
opened on it is left and no pin holds it; what is forgotten when a process ends is removed at the next open.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from weakref import WeakSet

from vecdb.segment.reader import SegmentReader
from vecdb.storage.directory import MmapDirectory


class CollectionFiles:
    """The retired files of one collection, and who holds them."""

    def __init__(self, directory: MmapDirectory) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._readers: WeakSet[SegmentReader] = WeakSet()
        self._pins: Counter[str] = Counter()
        self._retired: set[str] = set()

    def reading(self, reader: SegmentReader) -> SegmentReader:
        """Keep the files of a reader for as long as there is one; gives the reader back."""
        with self._lock:
            self._readers.add(reader)
        return reader

    def pin(self, names: Iterable[str]) -> None:
        """Keep files until ``unpin`` is called with them as often."""
        with self._lock:
            self._pins.update(names)

    def unpin(self, names: Iterable[str]) -> None:
        """End what ``pin`` began; the next sweep unlinks what is retired."""
        with self._lock:
            self._pins.subtract(names)
            self._pins += Counter()  # Drops what is down to 0.

    def retire(self, names: Iterable[str]) -> None:
        """Note files that no manifest names any more."""
        with self._lock:
            self._retired.update(names)

    def sweep(self) -> bool:
        """Unlink what nobody holds; whether nothing is left to be unlinked.

        Raises
        ------
        Unavailable
            The device failed; the files stay for the next sweep.
        """
        with self._lock:
            held = set(self._pins).union(*(reader.entry.file_names() for reader in self._readers))
            self._unlink(self._retired - held)
            return not self._retired

    def close(self) -> None:
        """Unlink everything that is retired, once nobody can ask for it any more; raises as ``sweep``."""
        with self._lock:
            self._unlink(self._retired)

    def _unlink(self, names: Iterable[str]) -> None:
        for name in sorted(names):
            self._directory.unlink(name)
            self._retired.discard(name)
