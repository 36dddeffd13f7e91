"""Applies decided writes to memory: rows into the memtable, dead rows out of the live sets, one new view.

The same function serves the writer, after the sync, and recovery, from the log.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from vecdb.engine.log_record import AppliedRequest
from vecdb.engine.state import CollectionState
from vecdb.engine.view import View
from vecdb.segment.memtable import PreparedBatch
from vecdb.types import I64Array, PointId, U64Array


@dataclass(frozen=True, slots=True)
class Decided:
    """The effects of one write.

    Attributes
    ----------
    record
        Its log record, in pieces.
    requests
        What retries are answered with; of one write, or of those that were merged into one.
    batch
        Rows to add, for an upsert.
    deleted_ids, deleted_keys
        For a delete: ids that are live, and their keys.
    parts, rows
        Where the ids of the batch or of the delete are live in the view it was decided in; -1 where they are not.
    seqs
        The seq of each row of the batch, (n,) uint64, where it is not one write but several.
    """

    seq: int
    record: Sequence[bytes]
    requests: tuple[AppliedRequest, ...]
    batch: PreparedBatch | None
    deleted_ids: tuple[PointId, ...]
    deleted_keys: tuple[bytes, ...]
    parts: I64Array
    rows: I64Array
    seqs: U64Array | None = None


def apply_group(state: CollectionState, decided: Sequence[Decided]) -> View:
    """The view after the writes, which end in the memtable that is being filled."""
    view = state.view
    active_number = len(view.parts) - 1
    memtable = view.memtables[-1].memtable
    dead: defaultdict[int, list[int]] = defaultdict(list)
    for each in decided:
        for part, row in zip(each.parts.tolist(), each.rows.tolist(), strict=True):
            if part >= 0:
                dead[part].append(row)
        if each.batch is not None:
            dead[active_number].extend(memtable.append(each.batch, each.seq, each.seqs))
        else:
            # An id may have been written earlier in this very group, which the located rows cannot know.
            for point_id in each.deleted_ids:
                dead[active_number].extend(memtable.rows_of(point_id)[:1])
            memtable.note_delete(each.deleted_keys, each.seq)
        for request in each.requests:
            if request.request_id:
                memtable.note_request(request.encode())
                state.applied.add(request)
    grown = memtable.view(view.memtables[-1].live.extended(memtable.rows))
    after = view.with_memtables((*view.memtables[:-1], grown), seq=decided[-1].seq)
    return after.killed({part: rows for part, rows in dead.items() if rows})
