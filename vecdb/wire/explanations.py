"""Explanations as messages, in both directions."""

from __future__ import annotations

from vecdb.explanation import Explanation, PartExplanation
from vecdb.v1 import vecdb_pb2


def encode_explanation(told: Explanation) -> vecdb_pb2.ExplainReply:
    """What one search did."""
    return vecdb_pb2.ExplainReply(
        k=told.k,
        recall=told.recall,
        ef=told.ef,
        parts=map(_encode_part, told.parts),
        strategy=told.strategy,
        recall_estimate=told.recall_estimate,
        complete=told.complete,
        unindexed_rows=told.unindexed_rows,
        hits_found=told.hits_found,
        plan_s=told.plan_s,
        merge_s=told.merge_s,
        fetch_s=told.fetch_s,
        advice=told.advice,
    )


def decode_explanation(message: vecdb_pb2.ExplainReply) -> Explanation:
    """What one search did."""
    effort = message.WhichOneof("effort")
    return Explanation(
        k=message.k,
        recall=message.recall if effort == "recall" else None,
        ef=message.ef if effort == "ef" else None,
        parts=tuple(map(_decode_part, message.parts)),
        strategy=message.strategy,
        recall_estimate=message.recall_estimate,
        hits_found=message.hits_found,
        complete=message.complete,
        unindexed_rows=message.unindexed_rows,
        plan_s=message.plan_s,
        merge_s=message.merge_s,
        fetch_s=message.fetch_s,
        advice=tuple(message.advice),
    )


def _encode_part(part: PartExplanation) -> vecdb_pb2.ExplainedPart:
    return vecdb_pb2.ExplainedPart(
        segment_id=part.segment_id,
        rows=part.rows,
        allowed_rows=part.allowed_rows,
        selectivity_estimate=part.selectivity_estimate,
        selectivity=part.selectivity,
        strategy=part.strategy,
        ef=part.ef,
        recall_estimate=part.recall_estimate,
        distance_computations=part.distance_computations,
        hops=part.hops,
        reranked=part.reranked,
        fell_back=part.fell_back,
        filter_s=part.filter_s,
        open_s=part.open_s,
        search_s=part.search_s,
    )


def _decode_part(message: vecdb_pb2.ExplainedPart) -> PartExplanation:
    return PartExplanation(
        segment_id=message.segment_id if message.HasField("segment_id") else None,
        rows=message.rows,
        allowed_rows=message.allowed_rows,
        selectivity_estimate=message.selectivity_estimate,
        selectivity=message.selectivity,
        strategy=message.strategy,
        ef=message.ef,
        recall_estimate=message.recall_estimate,
        distance_computations=message.distance_computations,
        hops=message.hops,
        reranked=message.reranked,
        fell_back=message.fell_back,
        filter_s=message.filter_s,
        open_s=message.open_s,
        search_s=message.search_s,
    )
