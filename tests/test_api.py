"""The verbs that search spell out their arguments one by one: they are the same everywhere, and each one arrives."""

import asyncio
import inspect
from types import SimpleNamespace

import numpy as np
import pytest

from vecdb.api import Collection
from vecdb.arguments import search_request
from vecdb.client import calls
from vecdb.client.aio import AsyncCollection
from vecdb.requests import FilterText, SearchRequest

VERBS = ("search", "search_batch", "explain")
QUERY = np.ones((1, 3), np.float32)
PLAIN = {
    "k": 10,
    "field": None,
    "where": None,
    "recall": 0.95,
    "ef": None,
    "with_payloads": True,
    "with_vectors": False,
    "read_after_seq": 0,
    "at": "",
}
OTHERWISE = {
    "k": (7, {"k": 7}),
    "field": ("f", {"field": "f"}),
    "where": ("a = 1", {"where": FilterText("a = 1")}),
    "recall": (0.9, {"recall": 0.9}),
    "ef": (64, {"ef": 64}),
    "with_payloads": (False, {"with_payloads": False}),
    "with_vectors": (True, {"with_vectors": True}),
    "read_after_seq": (5, {"read_after_seq": 5}),
    "at": ("s", {"at": "s"}),
}


def options_of(verb):
    """The arguments of a verb behind the query and ``k``."""
    return dict(list(inspect.signature(verb).parameters.items())[3:])


def asked(collection_class, verb, monkeypatch, **arguments):
    """The request that a verb makes of arguments."""
    requests = []
    first = QUERY if verb == "search_batch" else QUERY[0]
    if collection_class is Collection:
        taking = SimpleNamespace(
            run_search=lambda request: requests.append(request) or [None], run_explain=requests.append
        )
        getattr(Collection, verb)(taking, first, **arguments)
    else:
        for name in ("search", "explain"):
            monkeypatch.setattr(calls, name, lambda _described, request: requests.append(request))

        async def ran(_call):
            return [None]

        asyncio.run(getattr(AsyncCollection, verb)(SimpleNamespace(_run=ran, _described=None), first, **arguments))
    (request,) = requests
    return request


@pytest.mark.parametrize("verb", VERBS[1:])
def test_they_take_the_arguments_of_search(verb):
    assert options_of(getattr(Collection, verb)) == options_of(Collection.search)


def test_search_requests_are_made_of_the_arguments_of_search():
    assert set(inspect.signature(search_request).parameters) == {
        "queries", "k", "batch", *options_of(Collection.search)
    }  # fmt: skip


@pytest.mark.parametrize("collection_class", [Collection, AsyncCollection])
@pytest.mark.parametrize("verb", VERBS)
def test_each_argument_arrives_alone(collection_class, verb, monkeypatch):
    assert {*OTHERWISE, "params"} == {"k", *options_of(getattr(collection_class, verb))}
    for given in ({}, *({name: value} for name, (value, _) in OTHERWISE.items())):
        expected = dict(PLAIN)
        for name in given:
            expected |= OTHERWISE[name][1]
        request = asked(collection_class, verb, monkeypatch, **given)
        assert np.array_equal(request.queries, QUERY)
        assert {name: getattr(request, name) for name in PLAIN} == expected, given
    text = asked(collection_class, verb, monkeypatch, where="a = :a", params={"a": 1}).where
    assert text == FilterText("a = :a", {"a": 1})


def test_there_is_nothing_else_in_a_request():
    assert {*SearchRequest.__slots__} == {"queries", *PLAIN}
