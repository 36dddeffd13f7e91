"""Replies on the wire: pieces of bounded size that add up, read only as far as they are looked at."""

from dataclasses import replace

import numpy as np
import pytest

from vecdb.explanation import Explanation, PartExplanation
from vecdb.results.hits import Hits
from vecdb.results.points import Point
from vecdb.results.stats import CollectionStats, FieldCalibration, LiveRecall, MemoryUse
from vecdb.results.warming import WarmReport
from vecdb.results.write import WriteResult
from vecdb.v1 import vecdb_pb2
from vecdb.wire.explanations import decode_explanation, encode_explanation
from vecdb.wire.replies import (
    PIECE_BYTES,
    decode_hits,
    decode_points,
    decode_stats,
    decode_warm,
    decode_write_result,
    encode_hits,
    encode_points,
    encode_rankings,
    encode_stats,
    encode_warm,
    encode_write_result,
)


def over_the_wire(message):
    return type(message).FromString(message.SerializeToString())


def hits_of(ids, payload=b'{"n":1}', vectors=None):
    count = len(ids)
    return Hits(
        ids,
        np.linspace(1, 0, count, dtype=np.float32),
        np.linspace(0, 1, count, dtype=np.float32),
        complete=False,
        strategy="graph+scan",
        recall_estimate=0.75,
        unindexed_rows=12,
        payload_of=lambda _: payload,
        vectors_of=lambda at: {"v": np.float32([at, 1])} if vectors is None or at in vectors else {},
    )


def test_hits_come_back():
    hits = hits_of([1, "1", 2**64 - 1], vectors={0, 2})
    message = over_the_wire(encode_hits(hits, with_payloads=True, with_vectors=True))
    found = decode_hits(message, with_payloads=True, with_vectors=True)
    assert found.ids == hits.ids
    np.testing.assert_array_equal(found.scores, hits.scores)
    np.testing.assert_array_equal(found.distances, hits.distances)
    assert (found.complete, found.strategy, found.recall_estimate, found.unindexed_rows) == (
        False, "graph+scan", 0.75, 12,
    )  # fmt: skip
    assert [each.payload for each in found] == [{"n": 1}] * 3
    assert [sorted(each.vectors) for each in found] == [["v"], [], ["v"]]
    np.testing.assert_array_equal(found[2].vectors["v"], [2, 1])


def test_what_was_not_asked_for_is_not_sent():
    message = encode_hits(hits_of([1, 2]), with_payloads=False, with_vectors=False)
    assert (len(message.payloads), len(message.vectors)) == (0, 0)
    found = decode_hits(message, with_payloads=False, with_vectors=False)
    assert (found.payload_bytes(0), found[0].payload, found[0].vectors) == (None, None, {})


def test_no_hits():
    message = over_the_wire(encode_hits(hits_of([]), with_payloads=True, with_vectors=True))
    found = decode_hits(message, with_payloads=True, with_vectors=True)
    assert (len(found), found.ids, found.scores.shape) == (0, [], (0,))


def test_payloads_are_decoded_when_they_are_looked_at():
    message = encode_hits(hits_of([1]), with_payloads=True, with_vectors=False)
    message.payloads[0] = b"no JSON"
    found = decode_hits(message, with_payloads=True, with_vectors=False)
    assert found.ids == [1]
    assert found.payload_bytes(0) == b"no JSON"


def test_rankings_are_cut_into_pieces_of_bounded_size():
    rankings = [hits_of(range(100), b'{"t":"%s"}' % (b"x" * 5_000)) for _ in range(20)]
    pieces = list(encode_rankings(rankings, with_payloads=True, with_vectors=False))
    assert [len(ranking.ids.integers) for piece in pieces for ranking in piece.rankings] == [100] * 20
    assert len(pieces) == 4
    assert max(piece.ByteSize() for piece in pieces) <= PIECE_BYTES + 100
    assert len(list(encode_rankings([], with_payloads=True, with_vectors=True))) == 1


def points_of(count, payload_bytes):
    return [
        Point(at, b'{"t":"%s"}' % (b"x" * payload_bytes), {"v": np.full(4, at, np.float32)} if at % 3 else {})
        for at in range(count)
    ]


@pytest.mark.parametrize(
    ("count", "payload_bytes", "pieces"), [(0, 0, 1), (10, 10, 1), (10, 1_000_000, 4), (7, 4_000_000, 7)]
)
def test_points_come_back_in_pieces(count, payload_bytes, pieces):
    points = points_of(count, payload_bytes)
    messages = [over_the_wire(each) for each in encode_points(points)]
    assert len(messages) == pieces
    found = [point for each in messages for point in decode_points(each, with_payloads=True, with_vectors=True)]
    assert [point.id for point in found] == list(range(count))
    assert [point.payload_json for point in found] == [point.payload_json for point in points]
    for one, other in zip(found, points, strict=True):
        assert one.vectors.keys() == other.vectors.keys()
        for name in one.vectors:
            np.testing.assert_array_equal(one.vectors[name], other.vectors[name])


def test_points_without_payloads_and_vectors():
    (message,) = encode_points([Point("a"), Point(1)])
    assert (len(message.payloads), len(message.vectors)) == (0, 0)
    assert decode_points(message, with_payloads=False, with_vectors=False) == [Point("a"), Point(1)]


def test_small_results_come_back():
    written = WriteResult(7, 6, 5, 4, 0.25)
    assert decode_write_result(over_the_wire(encode_write_result(written))) == written
    memory = MemoryUse(*range(20, 20 + len(MemoryUse.__slots__)))
    stats = CollectionStats(
        1, 2, 3, 4, 5, 6, 7, 8, 2**63, {"vectors": 9, "ids": 1}, {"recovered": 2}, memory,
        calibration=(FieldCalibration("a", 3, 2, {0.9: 400.5, 0.99: 2000.0}), FieldCalibration("b", 1, 0, {})),
        live_recall=(LiveRecall("a", 0.95, 0.5, 0.94, 0.92, 0.96, 77, 1.25), LiveRecall("b", 0.0, 1.0, 1, 1, 1, 1, 1)),
    )  # fmt: skip
    assert decode_stats(over_the_wire(encode_stats(stats))) == stats
    warmed = WarmReport(1, 2**40, 3, 4, 5, 0.25, 0.5, 0.75)
    assert decode_warm(over_the_wire(encode_warm(warmed))) == warmed


def test_every_number_of_the_stats_has_a_field():
    assert {each.name for each in vecdb_pb2.StatsReply.DESCRIPTOR.fields} == set(CollectionStats.__slots__)
    assert {each.name for each in vecdb_pb2.MemoryUse.DESCRIPTOR.fields} == set(MemoryUse.__slots__)
    assert {each.name for each in vecdb_pb2.WarmReply.DESCRIPTOR.fields} == set(WarmReport.__slots__)


def test_an_explanation_comes_back():
    walk = PartExplanation(0, 100, 40, 0.5, 0.4, "graph", 64, 0.95, 123, 45, 30, True, 0.1, 0.2, 0.3)
    memtable = PartExplanation(None, 7, 7, 1.0, 1.0, "exact", distance_computations=7)
    told = Explanation(
        10, 0.95, None, (walk, memtable), "exact+graph", 0.96, 9, True, 7, 0.4, 0.5, 0.6, ("ef 64 -> 96", "wait")
    )
    for each in (told, replace(told, recall=None, ef=64, parts=(), advice=(), complete=False)):
        assert decode_explanation(over_the_wire(encode_explanation(each))) == each
