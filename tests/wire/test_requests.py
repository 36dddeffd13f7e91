"""Requests on the wire: what was asked for arrives, and what was not said is not guessed."""

import numpy as np
import pytest

from vecdb.arguments import delete_request, upsert_request
from vecdb.errors import InvalidArgument, Unimplemented
from vecdb.filter import Field
from vecdb.requests import CountRequest, DeleteRequest, FilterText, GetRequest, ScrollRequest, SearchRequest
from vecdb.v1 import vecdb_pb2
from vecdb.wire.requests import (
    Target,
    decode_count,
    decode_get,
    decode_scroll,
    decode_search,
    decode_write,
    encode_count,
    encode_get,
    encode_scroll,
    encode_search,
    encode_write,
)

DOCS = Target("文档", "5f3a")
WHERE = FilterText("a = :a", {"a": 2**70})


def over_the_wire(message):
    return type(message).FromString(message.SerializeToString())


def test_upserts_arrive():
    request = upsert_request(
        [1, "1", 2], {"a": [[1, 2], [3, 4], [5, 6]], "b": [None, [7], None]}, [{"n": 1}, {}, {"文": "字"}], "once"
    )
    message = over_the_wire(encode_write(DOCS, request))
    assert (message.collection, message.collection_id) == ("文档", "5f3a")
    found = decode_write(message)
    assert (found.ids, found.payloads, found.request_id) == (request.ids, request.payloads, "once")
    assert found.vectors.keys() == {"a", "b"}
    np.testing.assert_array_equal(found.vectors["a"].values, [[1, 2], [3, 4], [5, 6]])
    assert found.vectors["a"].rows is None
    assert found.vectors["b"].rows.tolist() == [1]


def test_empty_payloads_cost_nothing():
    request = upsert_request(range(100), np.ones((100, 1)), None, None)
    message = encode_write(DOCS, request)
    assert len(message.upsert.payloads) == 0
    assert decode_write(message).payloads == (b"{}",) * 100


@pytest.mark.parametrize(
    "request_",
    [
        DeleteRequest((1, "a"), None, "r"),
        DeleteRequest((), None),
        DeleteRequest(None, WHERE),
        DeleteRequest(None, Field("a") == 1),
    ],
)
def test_deletes_arrive(request_):
    assert decode_write(over_the_wire(encode_write(DOCS, request_))) == request_


@pytest.mark.parametrize("field", [None, "", "标题"])
@pytest.mark.parametrize("effort", [{"recall": 0.5}, {"recall": 1.0}, {"ef": 77}])
def test_searches_arrive(field, effort):
    queries = np.arange(6, dtype=np.float32).reshape(2, 3)
    request = SearchRequest(
        queries, 9, field, WHERE, with_payloads=False, with_vectors=True, read_after_seq=5, at="monday", **effort
    )
    found = decode_search(over_the_wire(encode_search(DOCS, request)))
    np.testing.assert_array_equal(found.queries, queries)
    for name in ("k", "field", "where", "recall", "ef", "with_payloads", "with_vectors", "read_after_seq", "at"):
        assert getattr(found, name) == getattr(request, name), name


def test_reads_arrive():
    get = GetRequest((3, "x"), with_payloads=False, with_vectors=True, at="monday")
    assert decode_get(over_the_wire(encode_get(DOCS, get))) == get
    for cursor in (None, b"", b"\x00\xff"):
        scroll = ScrollRequest(7, WHERE, cursor, with_payloads=False, with_vectors=True, at="monday")
        assert decode_scroll(over_the_wire(encode_scroll(DOCS, scroll))) == scroll
    for count in (CountRequest(WHERE, "monday"), CountRequest()):
        assert decode_count(over_the_wire(encode_count(DOCS, count))) == count


def upsert(**changes):
    message = encode_write(DOCS, upsert_request([1, 2], [[1], [2]], [{}, {"a": 1}], None))
    for name, value in changes.items():
        message.upsert.ClearField(name)
        getattr(message.upsert, name).extend(value)
    return message


def search(**changes):
    message = encode_search(DOCS, SearchRequest(np.ones((2, 3), np.float32), 5))
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def column(field):
    return encode_write(DOCS, upsert_request([1, 2], {field: [[1], [2]]}, None, None)).upsert.vectors[0]


def without_effort():
    message = search()
    message.ClearField("recall")
    return message


@pytest.mark.parametrize(
    ("message", "kind", "field"),
    [
        (vecdb_pb2.WriteRequest(collection="docs"), Unimplemented, "operation"),
        (vecdb_pb2.WriteRequest(delete_where=vecdb_pb2.DeleteWhere()), InvalidArgument, "where"),
        (vecdb_pb2.WriteRequest(delete_where={"where": {}}), Unimplemented, "where"),
        (upsert(payloads=[b"{}"]), InvalidArgument, "payloads"),
        (upsert(payloads=[b"{}", b"[1]"]), InvalidArgument, "payloads[1]"),
        (upsert(payloads=[b"{}", b"{'a': 1}"]), InvalidArgument, "payloads[1]"),
        (upsert(payloads=[b"", b"{}"]), InvalidArgument, "payloads[0]"),
        (upsert(payloads=[b'{"a": NaN}', b"{}"]), InvalidArgument, "payloads[0]"),
        (upsert(payloads=[b'{"a": 1, "a": 2}', b"{}"]), InvalidArgument, "payloads[0]"),
        (upsert(payloads=[b'{"a": "\xff"}', b"{}"]), InvalidArgument, "payloads[0]"),
        (upsert(vectors=[column(""), column("")]), InvalidArgument, "vectors"),
        (upsert(vectors=[column("x"), column("x")]), InvalidArgument, "vectors['x']"),
        (search(k=0), InvalidArgument, "k"),
        (search(k=2**32 - 1), InvalidArgument, "k"),
        (search(recall=0.0), InvalidArgument, "recall"),
        (search(recall=float("nan")), InvalidArgument, "recall"),
        (search(ef=0), InvalidArgument, "ef"),
        (search(query_count=3), InvalidArgument, "queries.data"),
        (search(query_count=2**32 - 1), InvalidArgument, "queries.data"),
        (without_effort(), Unimplemented, "effort"),
    ],
)
def test_messages_that_are_none(message, kind, field):
    decode = decode_write if isinstance(message, vecdb_pb2.WriteRequest) else decode_search
    with pytest.raises(kind) as caught:
        decode(message)
    assert type(caught.value) is kind
    assert caught.value.field == field


def test_a_field_and_only_field_contradict_each_other():
    message = search(only_field=True)
    message.queries.field = "title"
    with pytest.raises(InvalidArgument) as caught:
        decode_search(message)
    assert caught.value.field == "field"


def test_limits_hold_for_messages_of_any_client():
    ids = vecdb_pb2.GetRequest()
    ids.ids.integers.extend(range(100_001))
    with pytest.raises(InvalidArgument, match="at most 100000"):
        decode_get(ids)
    with pytest.raises(InvalidArgument, match="limit"):
        decode_scroll(vecdb_pb2.ScrollRequest(limit=10_001))
    duplicate = upsert()
    duplicate.upsert.ids.integers[1] = 1
    with pytest.raises(InvalidArgument, match="repeats"):
        decode_write(duplicate)


def test_a_delete_needs_ids_or_a_filter():
    assert delete_request([1], None, None, None).where is None
    with pytest.raises(Unimplemented):
        encode_write(DOCS, DeleteRequest(None, None))
