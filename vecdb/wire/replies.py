"""Replies as messages, in both directions; what may be large comes in pieces.

A decoded ranking or point looks at its message only as far as it is asked: payloads stay JSON bytes and vectors stay
bytes until somebody wants them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict

import numpy as np

from vecdb.requests import VectorColumn
from vecdb.results.compaction import CompactionReport
from vecdb.results.hits import Hits
from vecdb.results.points import Point
from vecdb.results.snapshot import SnapshotInfo
from vecdb.results.stats import CollectionStats, FieldCalibration, LiveRecall, MemoryUse
from vecdb.results.warming import WarmReport
from vecdb.results.write import WriteResult
from vecdb.types import F32Array
from vecdb.v1 import values_pb2, vecdb_pb2
from vecdb.wire.ids import decode_ids, encode_ids
from vecdb.wire.vectors import decode_column, decode_floats, encode_column, encode_floats

PIECE_BYTES = 3 * 2**20
"""A piece of a streamed reply grows no further than this, unless one ranking or point alone is larger."""


def encode_hits(hits: Hits, *, with_payloads: bool, with_vectors: bool) -> vecdb_pb2.Ranking:
    """A ranking as a message; the flags are those of the search."""
    positions = range(len(hits))
    return vecdb_pb2.Ranking(
        ids=encode_ids(hits.ids),
        distances=encode_floats(hits.distances),
        scores=encode_floats(hits.scores),
        payloads=map(hits.payload_bytes, positions) if with_payloads else None,  # type: ignore[arg-type]
        vectors=_encode_vectors([*map(hits.vectors, positions)]) if with_vectors else None,
        complete=hits.complete,
        strategy=hits.strategy,
        recall_estimate=hits.recall_estimate,
        unindexed_rows=hits.unindexed_rows,
    )


def encode_rankings(
    rankings: Iterable[Hits], *, with_payloads: bool, with_vectors: bool
) -> Iterator[vecdb_pb2.SearchReply]:
    """Rankings in pieces, in order; at least one piece."""
    piece, piece_bytes = vecdb_pb2.SearchReply(), 0
    for hits in rankings:
        ranking = encode_hits(hits, with_payloads=with_payloads, with_vectors=with_vectors)
        size_bytes = ranking.ByteSize()
        if piece_bytes and piece_bytes + size_bytes > PIECE_BYTES:
            yield piece
            piece, piece_bytes = vecdb_pb2.SearchReply(), 0
        piece.rankings.append(ranking)
        piece_bytes += size_bytes
    yield piece


def decode_hits(message: vecdb_pb2.Ranking, *, with_payloads: bool, with_vectors: bool) -> Hits:
    """The ranking of a message; the flags are those of the search."""
    ids = decode_ids(message.ids)
    return Hits(
        list(ids),
        decode_floats(message.scores),
        decode_floats(message.distances),
        complete=message.complete,
        strategy=message.strategy,
        recall_estimate=message.recall_estimate,
        unindexed_rows=message.unindexed_rows,
        payload_of=message.payloads.__getitem__ if with_payloads else None,
        vectors_of=_vectors_of(message.vectors, len(ids)) if with_vectors else None,
    )


def encode_points(points: Sequence[Point]) -> Iterator[vecdb_pb2.PointsReply]:
    """Points in pieces, in order, with what they hold; at least one piece."""
    start, piece_bytes = 0, 0
    payloads: list[bytes] = []
    for at, point in enumerate(points):
        payload = point.payload_json
        size_bytes = 16 + len(payload or b"") + sum(each.nbytes for each in point.vectors.values())
        if piece_bytes and piece_bytes + size_bytes > PIECE_BYTES:
            yield _encode_piece(points[start:at], payloads)
            start, piece_bytes, payloads = at, 0, []
        if payload is not None:
            payloads.append(payload)
        piece_bytes += size_bytes
    yield _encode_piece(points[start:], payloads)


def decode_points(message: vecdb_pb2.PointsReply, *, with_payloads: bool, with_vectors: bool) -> list[Point]:
    """The points of one piece; the flags are those of the request."""
    ids = decode_ids(message.ids)
    vectors = _vectors_of(message.vectors, len(ids)) if with_vectors else None
    return [
        Point(
            each,
            message.payloads[at] if with_payloads else None,
            {} if vectors is None else vectors(at),
        )
        for at, each in enumerate(ids)
    ]


def encode_write_result(result: WriteResult) -> vecdb_pb2.WriteReply:
    """What became of a write batch."""
    return vecdb_pb2.WriteReply(
        seq=result.seq,
        durable_seq=result.durable_seq,
        upserted=result.upserted,
        deleted=result.deleted,
        slowed_s=result.slowed_s,
    )


def decode_write_result(message: vecdb_pb2.WriteReply) -> WriteResult:
    """What became of a write batch."""
    return WriteResult(message.seq, message.durable_seq, message.upserted, message.deleted, message.slowed_s)


def encode_stats(stats: CollectionStats) -> vecdb_pb2.StatsReply:
    """What a collection holds."""
    return vecdb_pb2.StatsReply(
        points=stats.points,
        deleted_rows=stats.deleted_rows,
        unindexed_rows=stats.unindexed_rows,
        memtable_rows=stats.memtable_rows,
        segments=stats.segments,
        last_seq=stats.last_seq,
        flushed_seq=stats.flushed_seq,
        disk_bytes=stats.disk_bytes,
        log_bytes=stats.log_bytes,
        role_bytes=dict(stats.role_bytes),
        events=dict(stats.events),
        memory=vecdb_pb2.MemoryUse(
            budget_bytes=stats.memory.budget_bytes,
            mapped_bytes=stats.memory.mapped_bytes,
            derived_bytes=stats.memory.derived_bytes,
            rows_bytes=stats.memory.rows_bytes,
            releases=stats.memory.releases,
        ),
        calibration=[
            vecdb_pb2.FieldCalibration(
                field=each.field,
                graphs=each.graphs,
                calibrated=each.calibrated,
                costs=[
                    vecdb_pb2.CalibratedCost(recall=recall, distance_computations=cost)
                    for recall, cost in each.distance_computations.items()
                ],
            )
            for each in stats.calibration
        ],
        live_recall=[vecdb_pb2.LiveRecall(**asdict(each)) for each in stats.live_recall],
    )


def decode_stats(message: vecdb_pb2.StatsReply) -> CollectionStats:
    """What a collection holds."""
    return CollectionStats(
        points=message.points,
        deleted_rows=message.deleted_rows,
        unindexed_rows=message.unindexed_rows,
        memtable_rows=message.memtable_rows,
        segments=message.segments,
        last_seq=message.last_seq,
        flushed_seq=message.flushed_seq,
        disk_bytes=message.disk_bytes,
        log_bytes=message.log_bytes,
        role_bytes=dict(message.role_bytes),
        events=dict(message.events),
        memory=MemoryUse(
            budget_bytes=message.memory.budget_bytes,
            mapped_bytes=message.memory.mapped_bytes,
            derived_bytes=message.memory.derived_bytes,
            rows_bytes=message.memory.rows_bytes,
            releases=message.memory.releases,
        ),
        calibration=tuple(
            FieldCalibration(
                each.field,
                each.graphs,
                each.calibrated,
                {cost.recall: cost.distance_computations for cost in each.costs},
            )
            for each in message.calibration
        ),
        live_recall=tuple(
            LiveRecall(
                each.field, each.recall, each.share, each.estimate, each.low, each.high, each.samples, each.correction
            )
            for each in message.live_recall
        ),
    )


def encode_warm(report: WarmReport) -> vecdb_pb2.WarmReply:
    """What a warming did."""
    return vecdb_pb2.WarmReply(
        segments=report.segments,
        resident_bytes=report.resident_bytes,
        left_out_bytes=report.left_out_bytes,
        kernels=report.kernels,
        kernels_compiled=report.kernels_compiled,
        compile_s=report.compile_s,
        verify_s=report.verify_s,
        read_s=report.read_s,
    )


def decode_warm(message: vecdb_pb2.WarmReply) -> WarmReport:
    """What a warming did."""
    return WarmReport(
        message.segments,
        message.resident_bytes,
        message.left_out_bytes,
        message.kernels,
        message.kernels_compiled,
        message.compile_s,
        message.verify_s,
        message.read_s,
    )


def encode_compaction(report: CompactionReport) -> vecdb_pb2.CompactReply:
    """What a compaction did."""
    return vecdb_pb2.CompactReply(
        segments_before=report.segments_before,
        segments_after=report.segments_after,
        size_bytes_before=report.size_bytes_before,
        size_bytes_after=report.size_bytes_after,
        rows_dropped=report.rows_dropped,
    )


def decode_compaction(message: vecdb_pb2.CompactReply) -> CompactionReport:
    """What a compaction did."""
    return CompactionReport(
        message.segments_before,
        message.segments_after,
        message.size_bytes_before,
        message.size_bytes_after,
        message.rows_dropped,
    )


def encode_snapshots(snapshots: Iterable[SnapshotInfo]) -> vecdb_pb2.Snapshots:
    """Named snapshots."""
    return vecdb_pb2.Snapshots(
        snapshots=[
            vecdb_pb2.SnapshotFacts(name=each.name, created_s=each.created_s, seq=each.seq) for each in snapshots
        ]
    )


def decode_snapshots(message: vecdb_pb2.Snapshots) -> list[SnapshotInfo]:
    """Named snapshots."""
    return [SnapshotInfo(each.name, each.created_s, each.seq) for each in message.snapshots]


def _encode_piece(points: Sequence[Point], payloads: list[bytes]) -> vecdb_pb2.PointsReply:
    return vecdb_pb2.PointsReply(
        ids=encode_ids([each.id for each in points]),
        payloads=payloads,
        vectors=_encode_vectors([each.vectors for each in points]),
    )


def _encode_vectors(rows: Sequence[Mapping[str, F32Array]]) -> list[values_pb2.VectorColumn]:
    """One column for each field that occurs in ``rows``."""
    columns: dict[str, list[int]] = {}
    for at, row in enumerate(rows):
        for name in row:
            columns.setdefault(name, []).append(at)
    return [
        encode_column(
            name,
            VectorColumn(
                np.stack([rows[at][name] for at in members]),
                None if len(members) == len(rows) else np.array(members, np.uint32),
            ),
        )
        for name, members in columns.items()
    ]


def _vectors_of(columns: Iterable[values_pb2.VectorColumn], count: int) -> Callable[[int], Mapping[str, F32Array]]:
    """The vectors of the point at a position, read from the columns at the first call."""
    by_position: list[dict[str, F32Array]] = []

    def vectors_of(position: int) -> Mapping[str, F32Array]:
        if not by_position:
            rows: list[dict[str, F32Array]] = [{} for _ in range(count)]
            for message in columns:
                column = decode_column(message, count)
                members = range(count) if column.rows is None else column.rows.tolist()
                for at, values in zip(members, column.values, strict=True):
                    rows[at][message.field] = values
            by_position.extend(rows)
        return by_position[position]

    return vectors_of
