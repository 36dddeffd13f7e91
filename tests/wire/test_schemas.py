"""Schemas on the wire: every attribute comes back, and nothing unknown is passed over."""

import pytest

from vecdb.errors import InvalidArgument, Unimplemented
from vecdb.schema import CollectionSchema, IndexKind, IndexSpec, VectorField
from vecdb.types import Metric
from vecdb.v1 import values_pb2
from vecdb.wire.schemas import decode_schema, encode_schema


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("kind", IndexKind)
def test_schemas_come_back(metric, kind):
    schema = CollectionSchema(
        (VectorField(7, metric, IndexSpec(kind, 5, 50, 2**63 - 1), "标题"), VectorField(65_536, name="b"))
    )
    message = values_pb2.CollectionSchema.FromString(encode_schema(schema).SerializeToString())
    assert decode_schema(message) == schema


def test_an_index_may_be_left_out():
    message = values_pb2.CollectionSchema(vectors=[{"dim": 3, "metric": values_pb2.METRIC_L2}])
    assert decode_schema(message) == CollectionSchema.single(3, "l2")


@pytest.mark.parametrize(
    ("field", "kind", "named"),
    [
        ({"dim": 3}, InvalidArgument, "metric"),
        ({"dim": 3, "metric": 99}, Unimplemented, "metric"),
        ({"dim": 0, "metric": 1}, InvalidArgument, "dim"),
        ({"dim": 3, "metric": 1, "index": {"m": 16, "ef_construction": 200}}, InvalidArgument, "index.kind"),
        ({"dim": 3, "metric": 1, "index": {"kind": 99}}, Unimplemented, "index.kind"),
        ({"dim": 3, "metric": 1, "index": {"kind": 1}}, InvalidArgument, "m"),
    ],
)
def test_messages_that_are_none(field, kind, named):
    with pytest.raises(kind) as caught:
        decode_schema(values_pb2.CollectionSchema(vectors=[field]))
    assert type(caught.value) is kind
    assert caught.value.field == named
    with pytest.raises(InvalidArgument, match="vector fields"):
        decode_schema(values_pb2.CollectionSchema())
