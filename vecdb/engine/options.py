"""The options of an embedded database, with units in their names, validated once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from vecdb.engine.threads import cores_allowed
from vecdb.errors import InvalidArgument
from vecdb.query.costs import SearchCosts
from vecdb.query.plan import GRAPH_ROWS_MIN

MEMORY_BUDGET_BYTES_MIN = 2**20
_ROWS_BYTES_MAX = 2 * 2**30
BUILD_THREADS_MAX = 64


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How an embedded database uses memory, disk and threads.

    Attributes
    ----------
    memtable_size_bytes
        Rows are written to a segment when this much of them is in memory.
    memtables_waiting_max
        Full memtables that may wait to be written before writes wait for them.
    memory_size_bytes_max
        Rows in memory that are not yet in a segment, of all open collections together. Where they reach it, the largest
        are written to segments and writes wait for that; where that cannot be done, upserts are refused. ``None``: half
        of the ``memory_budget_bytes``, and at most 2 GiB. A limit for writing: such rows are nowhere else but in the
        log, so that nothing of them can be given back.
    memory_budget_bytes
        All memory that searching takes, of all open collections together: mapped pages of segment files, what is
        computed from them and kept (sketches and upper layers of graphs, columns and bitmaps of filters), and the rows
        that are not yet in a segment. Where it is exceeded, memory is given back and filled again when it is needed, so
        that answers are the same, and later: float32 vectors and payloads first, then what filters remember, then codes
        and graphs of the segments that were not searched for longest. ``None``: no budget.
    unindexed_rows_max
        With more rows than this waiting for an index, writes are slowed.
    slow_down_s_max
        Longest time one write is held back for that.
    graph_rows_min
        A part with fewer rows gets no graph: scanning its codes is as fast.
    compaction
        Merge segments in the background. ``compact()`` does it on request either way.
    compaction_fanout
        Segments of about the same size that are merged into one.
    compaction_dead_share_max
        A segment with a larger share of deleted or replaced rows is rewritten.
    segment_size_bytes_max
        Merging makes no segment larger than this.
    open_collections_max
        Collections kept open; the least recently used is closed for another.
    writer_threads
        Threads that commit writes, for all collections together.
    build_threads
        Threads that build a graph together, whichever collection it is of; by default as many as there are cores that
        the process may use, at most ``BUILD_THREADS_MAX``. They are niced: searches and writes go first.
    log_kept_bytes
        A closing collection leaves at most this much in its log, and writes a segment if there is more.
    log_file_bytes_first
        Space allocated for the first file of a log; later ones double it.
    reserve_size_bytes
        Disk that the database holds back, so that deletes and compaction go on when the disk is full; 0 for none.
    verify_ahead_bytes_max
        A searched collection of at most this size is verified in the background, so that searches need not do it.
    refresh_interval_s
        A database that is open for reading refreshes itself so often, in the background; 0: only when told to.
    log_archive
        A directory in which log files are kept before they are trimmed, so that ``vecdb.restore`` can restore a backup
        as of any later write. ``None``: they are not kept.
    search_costs
        What plans weigh scans of filtered rows and walks by. ``None``: measured once in each process.
    recall_checked_share
        Share of the queries that walked a graph that are run again exactly, in the background, to see what they miss; 0
        for none. More of them while little is known.
    recall_check_busy_share_max
        Checking takes at most this share of one core.
    recall_correction
        Searches go as far as live queries were found to need for the recall that is asked for. Without it the same
        search of the same data gives the same answer, whatever was searched before; under a filter that takes
        ``search_costs`` as well, because costs are measured some time after a search.
    kernels
        ``"cpu"``: compiled kernels; ``"reference"``: plain NumPy, slow, without compiling anything.
    """

    memtable_size_bytes: int = 128 * 2**20
    memtables_waiting_max: int = 2
    memory_size_bytes_max: int | None = None
    memory_budget_bytes: int | None = None
    unindexed_rows_max: int = 200_000
    slow_down_s_max: float = 1.0
    graph_rows_min: int = GRAPH_ROWS_MIN
    compaction: bool = True
    compaction_fanout: int = 4
    compaction_dead_share_max: float = 0.2
    segment_size_bytes_max: int = 8 * 2**30
    open_collections_max: int = 64
    writer_threads: int = 2
    build_threads: int = field(default_factory=lambda: min(cores_allowed(), BUILD_THREADS_MAX))
    log_kept_bytes: int = 2**20
    verify_ahead_bytes_max: int = 4 * 2**30
    log_file_bytes_first: int = 2**20
    reserve_size_bytes: int = 16 * 2**20
    refresh_interval_s: float = 0.0
    log_archive: str | Path | None = None
    search_costs: SearchCosts | None = None
    recall_checked_share: float = 0.02
    recall_check_busy_share_max: float = 0.05
    recall_correction: bool = True
    kernels: str = "cpu"

    def __post_init__(self) -> None:
        for name, low, high in (
            ("memtable_size_bytes", 1, 2**40),
            ("memtables_waiting_max", 1, 64),
            ("memory_size_bytes_max", 1, 2**50),
            ("memory_budget_bytes", MEMORY_BUDGET_BYTES_MIN, 2**50),
            ("unindexed_rows_max", 1, 2**40),
            ("slow_down_s_max", 0, 3600),
            ("graph_rows_min", 1, 2**31),
            ("compaction_fanout", 2, 64),
            ("compaction_dead_share_max", 0, 1),
            ("segment_size_bytes_max", 1, 2**50),
            ("open_collections_max", 1, 100_000),
            ("writer_threads", 1, 64),
            ("build_threads", 1, BUILD_THREADS_MAX),
            ("log_kept_bytes", 0, 2**40),
            ("log_file_bytes_first", 4096, 2**30),
            ("reserve_size_bytes", 0, 2**40),
            ("verify_ahead_bytes_max", 0, 2**60),
            ("refresh_interval_s", 0, 86_400),
            ("recall_checked_share", 0, 0.25),
            ("recall_check_busy_share_max", 0.001, 1),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InvalidArgument(
                    f"{name} must be {low} to {high}, got {value}", field=name, limit=f"{low}..{high}", value=value
                )
        budget, rows = self.memory_budget_bytes, self.memory_size_bytes_max
        if budget is not None and rows is not None and rows > budget:
            raise InvalidArgument(
                f"memory_size_bytes_max ({rows}) is a part of memory_budget_bytes ({budget}) and cannot be larger",
                field="memory_size_bytes_max",
                limit=budget,
                value=rows,
            )
        if self.kernels not in ("cpu", "reference"):
            raise InvalidArgument(
                f"kernels must be cpu or reference, got {self.kernels!r}",
                field="kernels",
                limit="cpu | reference",
                value=self.kernels,
            )

    @property
    def rows_bytes_max(self) -> int:
        """What rows in memory that are not yet in a segment may take."""
        if self.memory_size_bytes_max is not None:
            return self.memory_size_bytes_max
        return (
            _ROWS_BYTES_MAX if self.memory_budget_bytes is None else min(_ROWS_BYTES_MAX, self.memory_budget_bytes // 2)
        )
