"""What waiting writes do, decided in their order: each is located in the view, given all that come before it.

Nothing is changed here: the writer logs and applies what was decided. A write that cannot be is refused alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from vecdb.engine.applied import require_same_content
from vecdb.engine.apply import Decided
from vecdb.engine.log_record import (
    AppliedRequest,
    encode_delete,
    encode_record,
    encode_upsert,
    request_digest,
)
from vecdb.engine.matching import matching_ids
from vecdb.engine.outcome import Outcome
from vecdb.engine.state import CollectionState
from vecdb.errors import InvalidArgument, VecdbError
from vecdb.filter import Filter
from vecdb.requests import DeleteRequest, UpsertRequest, WriteRequest
from vecdb.results.write import WriteResult
from vecdb.segment.ids import hash_keys, key_of
from vecdb.segment.memtable import PreparedBatch, prepare
from vecdb.types import PointId

DELETE_BYTES_MAX = 512 * 2**20
"""Ids that one delete by filter may log: well below what a log record can hold."""


@dataclass(slots=True)
class PendingWrite:
    """One write on its way, with all that could be computed in the caller's thread."""

    request: WriteRequest
    digest: int
    batch: PreparedBatch | None
    effects: bytes
    where: Filter | None
    outcome: Outcome[WriteResult] = field(default_factory=Outcome)

    @property
    def rows(self) -> int:
        """Rows it adds."""
        return 0 if self.batch is None else len(self.batch.ids)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller of a write will be told.

    Attributes
    ----------
    changed_nothing
        Whether the request is to be remembered though nothing was logged of it.
    """

    write: PendingWrite
    applied: AppliedRequest
    changed_nothing: bool = False

    @property
    def result(self) -> WriteResult:
        """What it is told."""
        return WriteResult(self.applied.seq, self.applied.seq, self.applied.upserted, self.applied.deleted)


def prepare_write(request: WriteRequest, where: Filter | None, state: CollectionState) -> PendingWrite:
    """The pending write of a checked request; ``where`` is the bound filter of a delete."""
    digest = request_digest(request) if request.request_id else 0
    if isinstance(request, UpsertRequest):
        batch = prepare(request, state.manifest.schema, state.manifest.hash_key)
        return PendingWrite(request, digest, batch, encode_upsert(request), None)
    return PendingWrite(request, digest, None, b"", where)


def decide(state: CollectionState, group: list[PendingWrite]) -> tuple[list[Decided], list[Answer]]:
    """What each write does, given all before it, and what its caller will be told once that is durable."""
    view = state.view
    now_us = time.time_ns() // 1000
    seq = view.seq
    decided: list[Decided] = []
    answered: list[Answer] = []
    live_after: dict[PointId, bool] = {}
    in_group: dict[str, AppliedRequest] = {}
    for write in group:
        if write.outcome.done:
            continue
        request = write.request
        try:
            known = in_group.get(request.request_id)
            if known is not None:
                require_same_content(known, write.digest)
            elif request.request_id:
                known = state.applied.find(request.request_id, write.digest, now_us)
            if known is not None:
                answered.append(Answer(write, known))
                continue
            each = _decide_one(state, write, seq + 1, now_us, live_after)
        except VecdbError as error:
            write.outcome.set_exception(error)
            continue
        if each is None:
            applied = AppliedRequest(request.request_id, write.digest, seq, now_us, 0, 0)
        else:
            seq += 1
            decided.append(each)
            (applied,) = each.requests
        if request.request_id:
            in_group[request.request_id] = applied
        answered.append(Answer(write, applied, changed_nothing=each is None and bool(request.request_id)))
    return decided, answered


def _decide_one(
    state: CollectionState, write: PendingWrite, seq: int, now_us: int, live_after: dict[PointId, bool]
) -> Decided | None:
    """The effects of one write, ``None`` where it changes nothing."""
    request = write.request
    if write.batch is not None:
        batch = write.batch
        if not batch.ids:
            return None
        parts, rows = state.view.locate(batch.ids, batch.keys, batch.hashes)
        live_after.update(dict.fromkeys(batch.ids, True))
        applied = AppliedRequest(request.request_id, write.digest, seq, now_us, len(batch.ids), 0)
        record = encode_record(seq, now_us, request.request_id, write.digest, write.effects)
        return Decided(seq, record, (applied,), batch, (), (), parts, rows)
    assert isinstance(request, DeleteRequest)
    if write.where is not None:
        wanted = matching_ids(state, write.where)
    else:
        assert request.ids is not None
        wanted = list(dict.fromkeys(request.ids))
    keys = [key_of(each) for each in wanted]
    parts, rows = state.view.locate(wanted, keys, hash_keys(keys, state.manifest.hash_key))
    live = [position for position, each in enumerate(wanted) if live_after.get(each, parts[position] >= 0)]
    if not live:
        return None
    ids = tuple(wanted[position] for position in live)
    live_after.update(dict.fromkeys(ids, False))
    applied = AppliedRequest(request.request_id, write.digest, seq, now_us, 0, len(ids))
    effects = encode_delete(ids)
    if len(effects) > DELETE_BYTES_MAX:
        raise InvalidArgument(
            f"the filter matches {len(ids)} points, whose ids take {len(effects)} bytes; delete them in parts",
            field="where",
            limit=f"{DELETE_BYTES_MAX} bytes of ids",
            value=len(effects),
        )
    record = encode_record(seq, now_us, request.request_id, write.digest, effects)
    deleted_keys = tuple(keys[position] for position in live)
    return Decided(seq, record, (applied,), None, ids, deleted_keys, parts[live], rows[live])
