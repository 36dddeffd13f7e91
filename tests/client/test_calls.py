"""Calls: which method carries a search, and what is put into a request without being asked."""

import numpy as np
import pytest

from vecdb.arguments import upsert_request
from vecdb.client import calls
from vecdb.client.calls import Described
from vecdb.requests import CountRequest, DeleteRequest, SearchRequest
from vecdb.schema import CollectionSchema

DOCS = Described("docs", "5f3a", CollectionSchema.single(4))


@pytest.mark.parametrize(
    ("nq", "k", "with_payloads", "with_vectors", "method"),
    [
        (1, 10, True, True, "Search"),
        (6, 10, True, False, "Search"),
        (64, 10, True, False, "SearchStream"),
        (1, 100, True, False, "SearchStream"),
        (1_000, 100, False, False, "Search"),
        (100, 10_000, False, False, "SearchStream"),
    ],
)
def test_replies_that_may_be_large_are_streamed(nq, k, with_payloads, with_vectors, method):
    request = SearchRequest(np.ones((nq, 4), np.float32), k, with_payloads=with_payloads, with_vectors=with_vectors)
    assert calls.search(DOCS, request).method == method


def test_a_write_without_a_request_id_gets_one_of_its_own():
    made = [calls.write(DOCS, DeleteRequest((1,))).request.request_id for _ in range(3)]
    assert len(set(made)) == 3
    assert calls.write(DOCS, upsert_request([1], [[1, 2, 3, 4]], None, "mine")).request.request_id == "mine"


def test_every_request_names_the_collection_by_name_and_id():
    for call in (
        calls.write(DOCS, DeleteRequest((1,))),
        calls.search(DOCS, SearchRequest(np.ones((1, 4), np.float32), 1)),
        calls.explain(DOCS, SearchRequest(np.ones((1, 4), np.float32), 1)),
        calls.count(DOCS, CountRequest()),
        calls.stats(DOCS),
        calls.flush(DOCS),
        calls.wait_indexed(DOCS, 1.0),
        calls.compact(DOCS, 1.0, False),
        calls.purge(DOCS, 1.0),
        calls.create_snapshot(DOCS, "s"),
        calls.drop_snapshot(DOCS, "s"),
        calls.snapshots(DOCS),
    ):
        assert (call.request.collection, call.request.collection_id) == ("docs", "5f3a")


def test_waiting_on_the_server_ends_before_the_client_gives_up():
    for call in (calls.wait_indexed(DOCS, 7.0), calls.compact(DOCS, 7.0, True), calls.purge(DOCS, 7.0)):
        assert call.timeout_s > call.request.timeout_s == 7.0
