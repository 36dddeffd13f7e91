"""Replays a collection's log: what it holds above ``flushed_seq`` comes back into memory, many records at a time.

Effects are located again in the view that precedes them, by the same code that the writer applies writes with. Memory
is bounded by whoever makes room: an owner writes full memtables to segments on the way, so that a replay that is killed
has less to do the next time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeAlias

import numpy as np

from vecdb.engine.apply import Decided, apply_group
from vecdb.engine.log_record import AppliedRequest, Record, decode_record
from vecdb.engine.state import CollectionState
from vecdb.errors import Corruption, VecdbError
from vecdb.requests import UpsertRequest, VectorColumn, check_against_schema
from vecdb.segment.ids import hash_keys, key_of
from vecdb.segment.memtable import prepare
from vecdb.types import PointId

GROUP_ROWS_MAX = 4_000
GROUP_BYTES_MAX = 4 * 2**20


Room: TypeAlias = Callable[[int], None]
"""Sees to it that the memtable being filled can take so many rows more."""


def replay_log(state: CollectionState, make_room: Room) -> int:
    """Bring back what the log holds and the state's view does not; the number of records.

    Raises
    ------
    Corruption
        The log is damaged; the message names file and offset, or the record.
    """
    records = 0
    for group in _groups(state):
        make_room(sum(len(each.ids) for record in group for each in record.upserts))
        state.publish(apply_group(state, _decide_again(state, group)))
        records += len(group)
    return records


def tell_replayed(state: CollectionState, records: int) -> None:
    """Count and log what a replay brought back, and what it dropped."""
    recovery = state.log.recovery
    if records:
        state.events.report("log_replayed", level=logging.INFO, records=records, seq=state.view.seq)
    if recovery.dropped_bytes:
        state.events.report(
            "torn_tail_dropped",
            bytes=recovery.dropped_bytes,
            file=recovery.file,
            offset=recovery.offset,
            seq=state.view.seq,
        )


def grow_memory(state: CollectionState) -> Room:
    """Room for a replay that may write nothing: any number of memtables."""

    def make_room(rows: int) -> None:
        active = state.view.memtables[-1].memtable
        if not active.fits(rows) or active.size_bytes >= state.options.memtable_size_bytes:
            view = state.view
            kept = view.memtables if active.seq_last >= active.seq_first else view.memtables[:-1]
            fresh = state.new_memtable(view.seq + 1, rows)
            state.publish(view.with_memtables((*kept, fresh.empty_view())))

    return make_room


def _groups(state: CollectionState) -> Iterator[list[Record]]:
    """The records to be replayed, in groups that fit a memtable."""
    rows_max = min(GROUP_ROWS_MAX, state.new_memtable(1).rows_max)
    group: list[Record] = []
    rows = size_bytes = 0
    for seq, data in state.log.replay(state.view.seq):
        record = decode_record(seq, data)
        adding = sum(len(each.ids) for each in record.upserts)
        if group and (rows + adding > rows_max or size_bytes + len(data) > GROUP_BYTES_MAX):
            yield group
            group, rows, size_bytes = [], 0, 0
        group.append(record)
        rows += adding
        size_bytes += len(data)
    if group:
        yield group


@dataclass(slots=True)
class _Upserts:
    """Upserts of records that follow each other, as one: a later row of an id replaces an earlier one."""

    ids: list[PointId] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    seqs: list[int] = field(default_factory=list)
    columns: dict[str, list[tuple[int, VectorColumn]]] = field(default_factory=dict)

    def add(self, seq: int, upsert: UpsertRequest) -> None:
        for name, column in upsert.vectors.items():
            self.columns.setdefault(name, []).append((len(self.ids), column))
        self.ids.extend(upsert.ids)
        self.payloads.extend(upsert.payloads)
        self.seqs.extend([seq] * len(upsert.ids))

    def request(self) -> UpsertRequest:
        vectors = {name: _joined(columns, len(self.ids)) for name, columns in self.columns.items()}
        return UpsertRequest(tuple(self.ids), vectors, tuple(self.payloads))


def _joined(columns: list[tuple[int, VectorColumn]], count: int) -> VectorColumn:
    """Columns as one, each of them for the points from its number on, of ``count`` points."""
    # One that no point of its batch has a vector for need not know its dimension.
    columns = [each for each in columns if each[1].values.shape[0]] or columns[:1]
    values = np.concatenate([column.values for _, column in columns])
    if values.shape[0] == count and all(column.rows is None for _, column in columns):
        return VectorColumn(values)
    rows = [
        first + (np.arange(column.values.shape[0]) if column.rows is None else column.rows) for first, column in columns
    ]
    return VectorColumn(values, np.concatenate(rows).astype(np.uint32))


def _decide_again(state: CollectionState, group: list[Record]) -> list[Decided]:
    """The effects of a group of records, located in the view that precedes it."""
    decided: list[Decided] = []
    for deleting, run in groupby(group, key=lambda record: bool(record.deleted_ids)):
        records = list(run)
        decided.extend(_deletes(state, records) if deleting else [_upserts(state, records)])
    return decided


def _applied(record: Record) -> AppliedRequest:
    upserted = sum(len(each.ids) for each in record.upserts)
    deleted = sum(map(len, record.deleted_ids))
    return AppliedRequest(record.request_id, record.request_digest, record.seq, record.time_us, upserted, deleted)


def _deletes(state: CollectionState, records: Iterable[Record]) -> Iterator[Decided]:
    for record in records:
        requests: tuple[AppliedRequest, ...] = (_applied(record),)
        if record.upserts:
            yield _upserts(state, [record])
            requests = ()
        for ids in record.deleted_ids:
            keys = [key_of(each) for each in ids]
            parts, rows = state.view.locate(ids, keys, hash_keys(keys, state.manifest.hash_key))
            yield Decided(record.seq, (), requests, None, ids, tuple(keys), parts, rows)
            requests = ()


def _upserts(state: CollectionState, records: list[Record]) -> Decided:
    merged = _Upserts()
    for record in records:
        for upsert in record.upserts:
            merged.add(record.seq, upsert)
    first, last = records[0].seq, records[-1].seq
    try:
        request = merged.request()
        check_against_schema(request, state.manifest.schema)
    except (VecdbError, ValueError) as error:
        name = f"log record {first}" if first == last else f"log records {first} to {last}"
        raise Corruption(f"{name} do not fit the schema: {error}", field=name) from error
    batch = prepare(request, state.manifest.schema, state.manifest.hash_key)
    parts, rows = state.view.locate(batch.ids, batch.keys, batch.hashes)
    requests = tuple(_applied(record) for record in records if record.request_id)
    seqs = np.array(merged.seqs, np.uint64)
    return Decided(last, (), requests, batch, (), (), parts, rows, seqs)
