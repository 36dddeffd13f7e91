"""The state of one open collection, shared by its writer, its background work and its readers.

Readers take ``view`` and hold it; it is replaced as a whole, by the writer only. ``manifest`` changes only inside
``commit``, which is the one place where a change of metadata becomes durable.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from vecdb.bitmap import LiveRows
from vecdb.engine.applied import AppliedRequests
from vecdb.engine.events import Events
from vecdb.engine.manifest import MANIFEST_KEY, Manifest
from vecdb.engine.options import EngineOptions
from vecdb.engine.view import View
from vecdb.errors import Cancelled, VecdbError
from vecdb.kernels.protocol import Kernels
from vecdb.query.matching import Matchers
from vecdb.segment.memtable import ROW_OVERHEAD_BYTES, Memtable
from vecdb.storage.directory import MmapDirectory
from vecdb.storage.lmdb_store import LmdbStore
from vecdb.storage.mirror import write_mirror
from vecdb.storage.wal import Log

MIRROR = "mirror"
LOG = "log"
_ROWS_MAX = 2**20

ManifestChange: TypeAlias = Callable[[Manifest], Manifest]


class CollectionState:
    """What is open of a collection."""

    def __init__(
        self,
        directory: MmapDirectory,
        metadata: LmdbStore,
        log: Log,
        manifest: Manifest,
        view: View,
        applied: AppliedRequests,
        options: EngineOptions,
        kernels: Kernels,
        events: Events,
    ) -> None:
        self.directory = directory
        self.metadata = metadata
        self.log = log
        self.manifest = manifest
        self.view = view
        self.applied = applied
        self.options = options
        self.kernels = kernels
        self.events = events
        self.matchers = Matchers()
        self.closing = threading.Event()
        self.published = threading.Condition()
        self.sealed_views: dict[Memtable, View] = {}
        """The view at the moment at which each waiting memtable was sealed: what its flush makes durable."""
        self.stored_live: dict[int, LiveRows] = {}
        """The live rows of each segment as the metadata holds them: those as of ``manifest.flushed_seq``."""
        self.flush_failure: BaseException | None = None
        """Why the last flush failed; ``None`` after one that did not."""
        self.mirror_behind = False
        """Whether the mirror could not be written at the last commit; the log is then kept."""
        self._commit_lock = threading.Lock()

    def publish(self, view: View) -> None:
        """Let readers see ``view`` from now on."""
        with self.published:
            self.view = view
            self.published.notify_all()

    def begin_close(self) -> None:
        """Wake everything that waits, to find that the collection is closing."""
        self.closing.set()
        with self.published:
            self.published.notify_all()

    def check_not_closing(self) -> None:
        """Raise Cancelled once closing has begun."""
        if self.closing.is_set():
            raise Cancelled("the collection is closing", field="collection")

    def new_memtable(self, seq_first: int, rows: int = 0) -> Memtable:
        """An empty memtable with room for at least ``rows`` rows."""
        row_bytes = ROW_OVERHEAD_BYTES + sum(4 * each.dim for each in self.manifest.schema.vectors)
        capacity = max(1, min(self.options.memtable_size_bytes // row_bytes, _ROWS_MAX))
        return Memtable(self.manifest.schema, max(capacity, rows), seq_first)

    def commit(
        self, change: ManifestChange, puts: Mapping[bytes, bytes] | None = None, deletes: Iterable[bytes] = ()
    ) -> Manifest:
        """Make a changed manifest durable: files first (they are, by now), then metadata, then its mirror.

        Parameters
        ----------
        change
            From the present manifest to the next; called with the lock held.

        Raises
        ------
        ResourceExhausted
            No space; nothing changed.
        """
        with self._commit_lock:
            manifest = change(self.manifest)
            self.directory.sync()
            encoded = manifest.encode()
            self.metadata.commit({MANIFEST_KEY: encoded, **(puts or {})}, deletes)
            # From here the change is durable, whatever happens to the mirror.
            self.manifest = manifest
            try:
                write_mirror(self.directory, MIRROR, encoded, self.metadata.fingerprint())
            except VecdbError as error:
                # No reason to fail, or the caller would make the change a second time. The next commit or the next open
                # writes the mirror.
                self.mirror_behind = True
                self.events.report("mirror_not_written", error=type(error).__name__)
            else:
                self.mirror_behind = False
            return manifest
