"""Everything a caller can get wrong: the same error from every implementation, and nothing changed.

The expected error is the oracle's, so that a message can be improved in one place; that each names what is wrong is
checked here as well.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.contract.implementations import NAMES, opened
from tests.contract.memory_database import MemoryDatabase
from tests.service.running import LoopThread
from vecdb.errors import VecdbError
from vecdb.filter import Field
from vecdb.schema import CollectionSchema, IndexSpec, VectorField

NAN, INFINITY, SURROGATE = float("nan"), float("inf"), "half \ud800"
ONE = [[1.0, 2.0, 3.0]]


def deep(levels: int) -> dict[str, Any]:
    payload: dict[str, Any] = {"leaf": 1}
    for _ in range(levels):
        payload = {"in": payload}
    return payload


UPSERTS: dict[str, Callable[[Any], Any]] = {
    "wrong dimension": lambda docs: docs.upsert([1, 2], [[1, 2], [3, 4]]),
    "no dimension": lambda docs: docs.upsert([1, 2], np.zeros((2, 0))),
    "NaN": lambda docs: docs.upsert([1, 2], [[1, 2, 3], [1, NAN, 3]]),
    "infinity": lambda docs: docs.upsert([1], [[1, 2, -INFINITY]]),
    "beyond float32": lambda docs: docs.upsert([1], [[1e300, 0, 0]]),
    "absurd length": lambda docs: docs.upsert([1], [[1e19, 0, 0]]),
    "zero under cosine": lambda docs: docs.upsert([1, 2], [[1, 2, 3], [0, 0, 0]]),
    "one axis": lambda docs: docs.upsert([1], [1, 2, 3]),
    "three axes": lambda docs: docs.upsert([1], [[[1, 2, 3]]]),
    "ragged": lambda docs: docs.upsert([1, 2], [[1, 2, 3], [1, 2]]),
    "texts for numbers": lambda docs: docs.upsert([1], [["a", "b", "c"]]),
    "complex numbers": lambda docs: docs.upsert([1], [[1j, 2, 3]]),
    "too few vectors": lambda docs: docs.upsert([1, 2], ONE),
    "too many vectors": lambda docs: docs.upsert([], ONE),
    "unknown field": lambda docs: docs.upsert([1], {"nope": ONE}),
    "unknown field without a vector": lambda docs: docs.upsert([1], {"": ONE, "nope": [None]}),
    "field that is no text": lambda docs: docs.upsert([1], {5: ONE}),
    "field with half a surrogate": lambda docs: docs.upsert([1], {SURROGATE: ONE}),
    "no vectors": lambda docs: docs.upsert([1], {}),
    "duplicate ids": lambda docs: docs.upsert([1, "1", 2, "1"], np.ones((4, 3))),
    "duplicate integers": lambda docs: docs.upsert([7, 7], np.ones((2, 3))),
    "negative id": lambda docs: docs.upsert([1, -1], np.ones((2, 3))),
    "id beyond 64 bits": lambda docs: docs.upsert([2**64], ONE),
    "float id": lambda docs: docs.upsert([1.0], ONE),
    "boolean id": lambda docs: docs.upsert([True], ONE),
    "null id": lambda docs: docs.upsert([None], ONE),
    "bytes id": lambda docs: docs.upsert([b"a"], ONE),
    "empty id": lambda docs: docs.upsert([""], ONE),
    "long id": lambda docs: docs.upsert(["文" * 171], ONE),
    "id with half a surrogate": lambda docs: docs.upsert([SURROGATE], ONE),
    "one string for ids": lambda docs: docs.upsert("abc", np.ones((3, 3))),
    "a number for ids": lambda docs: docs.upsert(5, ONE),
    "too many points": lambda docs: docs.upsert(range(100_001), np.ones((100_001, 3), np.float32)),
    "too few payloads": lambda docs: docs.upsert([1, 2], np.ones((2, 3)), [{}]),
    "payload that is a list": lambda docs: docs.upsert([1], ONE, [[1]]),
    "payload that is null": lambda docs: docs.upsert([1], ONE, [None]),
    "payload with an object": lambda docs: docs.upsert([1, 2], np.ones((2, 3)), [{}, {"a": {"b": [1, object()]}}]),
    "payload with bytes": lambda docs: docs.upsert([1], ONE, [{"a": b"x"}]),
    "payload with a tuple": lambda docs: docs.upsert([1], ONE, [{"a": (1, 2)}]),
    "payload with a set": lambda docs: docs.upsert([1], ONE, [{"a": {1}}]),
    "payload with NaN": lambda docs: docs.upsert([1], ONE, [{"a": NAN}]),
    "payload with an integer key": lambda docs: docs.upsert([1], ONE, [{1: 2}]),
    "payload with half a surrogate": lambda docs: docs.upsert([1], ONE, [{"a": SURROGATE}]),
    "payload too deep": lambda docs: docs.upsert([1], ONE, [deep(70)]),
    "payload too large": lambda docs: docs.upsert([1], ONE, [{"text": "x" * (2**20)}]),
    "empty request id": lambda docs: docs.upsert([1], ONE, request_id=""),
    "long request id": lambda docs: docs.upsert([1], ONE, request_id="x" * 513),
    "request id that is no text": lambda docs: docs.upsert([1], ONE, request_id=7),
    "request id with half a surrogate": lambda docs: docs.upsert([1], ONE, request_id=SURROGATE),
}

SEARCHES: dict[str, Callable[[Any], Any]] = {
    "wrong dimension": lambda docs: docs.search([1, 2]),
    "wrong dimension in a batch": lambda docs: docs.search_batch([[1, 2], [3, 4]]),
    "no dimension": lambda docs: docs.search([]),
    "no dimension in a batch": lambda docs: docs.search_batch(np.zeros((3, 0))),
    "NaN": lambda docs: docs.search([1, NAN, 2]),
    "infinity in a batch": lambda docs: docs.search_batch([[1, 2, 3], [1, INFINITY, 2]]),
    "zero under cosine": lambda docs: docs.search([0, 0, 0]),
    "two axes": lambda docs: docs.search(ONE),
    "one axis in a batch": lambda docs: docs.search_batch([1, 2, 3]),
    "text for a query": lambda docs: docs.search("what"),
    "k of zero": lambda docs: docs.search([1, 2, 3], k=0),
    "negative k": lambda docs: docs.search([1, 2, 3], k=-1),
    "k too large": lambda docs: docs.search([1, 2, 3], k=10_001),
    "k beyond 64 bits": lambda docs: docs.search([1, 2, 3], k=2**70),
    "k that is a float": lambda docs: docs.search([1, 2, 3], k=1.5),
    "k that is a boolean": lambda docs: docs.search([1, 2, 3], k=True),
    "too many results": lambda docs: docs.search_batch(np.ones((101, 3)), k=10_000),
    "unknown field": lambda docs: docs.search([1, 2, 3], field="nope"),
    "field that is no text": lambda docs: docs.search([1, 2, 3], field=5),
    "field with half a surrogate": lambda docs: docs.search([1, 2, 3], field=SURROGATE),
    "recall of zero": lambda docs: docs.search([1, 2, 3], recall=0.0),
    "recall above one": lambda docs: docs.search([1, 2, 3], recall=1.01),
    "recall that is NaN": lambda docs: docs.search([1, 2, 3], recall=NAN),
    "recall that is a word": lambda docs: docs.search([1, 2, 3], recall="best"),
    "ef of zero": lambda docs: docs.search([1, 2, 3], ef=0),
    "ef too large": lambda docs: docs.search([1, 2, 3], ef=65_537),
    "negative seq": lambda docs: docs.search([1, 2, 3], read_after_seq=-1),
    "seq beyond 64 bits": lambda docs: docs.search([1, 2, 3], read_after_seq=2**64),
    "seq that is a text": lambda docs: docs.search([1, 2, 3], read_after_seq="1"),
}

FILTERS: dict[str, tuple[Any, Any]] = {
    "syntax": ("year >= ", {}),
    "syntax in the middle": ("year = 1 AND AND lang = 'zh'", {}),
    "syntax after text of other alphabets": ("书名 = '退货🦜' OR = 3", {}),
    "unknown character": ("year = #3", {}),
    "text without an end": ("lang = 'zh", {}),
    "empty": ("", {}),
    "blank": ("   ", {}),
    "missing parameter": ("year = :year", {}),
    "unused parameter": ("year = 1", {"year": 2}),
    "parameters without text": (None, {"year": 2}),
    "parameters of a tree": (Field("year") == 1, {"year": 2}),
    "parameter that is null": ("year = :year", {"year": None}),
    "parameter that is NaN": ("year = :year", {"year": NAN}),
    "parameter that is an object": ("year = :year", {"year": object()}),
    "parameter that is bytes": ("year = :year", {"year": b"x"}),
    "parameter that is a dict": ("year = :year", {"year": {"a": 1}}),
    "parameter with half a surrogate": ("lang = :lang", {"lang": SURROGATE}),
    "parameter that is too long": ("year = :year", {"year": 10**5_000}),
    "parameter with a bad element": ("year IN :years", {"years": [1, object()]}),
    "parameter that is a list where a value is wanted": ("year = :year", {"year": [1]}),
    "pattern in a parameter": ("lang LIKE :pattern", {"pattern": "a%b"}),
    "name that is no text": ("year = :year", {5: 1}),
    "half a surrogate": (f"lang = '{SURROGATE}'", {}),
    "too long": ("year = 1 OR " * 6_000 + "year = 2", {}),
    "too deep": ("NOT (" * 20 + "a = 1 AND b = 2" + ")" * 20, {}),
    "too many values": ("year IN :years", {"years": list(range(10_001))}),
    "too many nodes": (" OR ".join(f"y={n}" for n in range(1_100)), {}),
    "a number": (5, None),
    "bytes": (b"a = 1", None),
}

OTHERS: dict[str, Callable[[Any], Any]] = {
    "delete of nothing": lambda docs: docs.delete(),
    "delete of ids and filter": lambda docs: docs.delete([1], where="a = 1"),
    "delete of a bad id": lambda docs: docs.delete([1, 2.5]),
    "delete of too many": lambda docs: docs.delete(range(100_001)),
    "get of a bad id": lambda docs: docs.get(["ok", ""]),
    "get of one string": lambda docs: docs.get("abc"),
    "get of too many": lambda docs: docs.get(range(100_001)),
    "page of nothing": lambda docs: docs.scroll_page(0),
    "page too large": lambda docs: docs.scroll_page(10_001),
    "page of a text": lambda docs: docs.scroll_page("10"),
    "cursor of elsewhere": lambda docs: docs.scroll_page(10, b"no cursor of this collection"),
    "cursor that is a text": lambda docs: docs.scroll_page(10, "abc"),
    "scroll by nothing": lambda docs: list(docs.scroll(page_rows=0)),
}

SCHEMAS: dict[str, Callable[[Any], Any]] = {
    "no dimension": lambda db: db.create_collection("x"),
    "dimension of zero": lambda db: db.create_collection("x", dim=0),
    "dimension too large": lambda db: db.create_collection("x", dim=65_537),
    "dimension that is a float": lambda db: db.create_collection("x", dim=3.0),
    "unknown metric": lambda db: db.create_collection("x", dim=3, metric="hamming"),
    "unknown index": lambda db: db.create_collection("x", dim=3, index="lsh"),
    "m out of range": lambda db: db.create_collection("x", dim=3, index=IndexSpec(m=1)),
    "schema and dim": lambda db: db.create_collection("x", dim=3, schema=CollectionSchema.single(3)),
    "schema that is none": lambda db: db.create_collection("x", schema="title"),
    "no fields": lambda db: db.create_collection("x", schema=CollectionSchema(())),
    "field twice": lambda db: db.create_collection(
        "x", schema=CollectionSchema((VectorField(1, name="a"), VectorField(2, name="a")))
    ),
    "name taken": lambda db: db.create_collection("docs", dim=3),
    "name taken by another schema": lambda db: db.create_collection("docs", dim=4, exist_ok=True),
    "empty name": lambda db: db.create_collection("", dim=3),
    "long name": lambda db: db.create_collection("文" * 171, dim=3),
    "name with a control character": lambda db: db.create_collection("a\nb", dim=3),
    "name with half a surrogate": lambda db: db.create_collection(SURROGATE, dim=3),
    "name that is no text": lambda db: db.create_collection(5, dim=3),
    "unknown collection": lambda db: db.collection("nope"),
    "collection without a name": lambda db: db.collection(""),
    "collection with half a surrogate": lambda db: db.collection(SURROGATE),
    "collection that is no text": lambda db: db.collection(None),
    "drop of an unknown collection": lambda db: db.drop_collection("nope"),
    "drop of no text": lambda db: db.drop_collection(5),
}

SEVERAL_FIELDS: dict[str, Callable[[Any], Any]] = {
    "search without a field": lambda docs: docs.search([1, 2]),
    "search of another dimension": lambda docs: docs.search([1, 2, 3], field="标题"),
    "wrong dimension of one field": lambda docs: docs.upsert([1], {"标题": [[1, 2]], "body": [[1, 2]]}),
    "NaN of one point that has the vector": lambda docs: docs.upsert([1, 2], {"body": [None, [1, NAN, 3]]}),
    "zero of one point that has the vector": lambda docs: docs.upsert([1, 2], {"标题": [None, [0, 0]]}),
    "too few of one field": lambda docs: docs.upsert([1, 2], {"标题": [None]}),
    "an array without names": lambda docs: docs.upsert([1], [[1, 2]]),
}


def error_of(call: Callable[[Any], Any], target: Any) -> tuple[Any, ...]:
    with pytest.raises(VecdbError) as caught:
        call(target)
    error = caught.value
    return type(error), error.message, error.field, error.limit, error.value, error.position


def prepared(database: Any) -> Any:
    docs = database.create_collection("docs", dim=3)
    docs.upsert([1, "1"], [[1, 2, 3], [3, 2, 1]], [{"year": 2024}, {}])
    schema = CollectionSchema((VectorField(2, name="标题"), VectorField(3, "l2", name="body")))
    database.create_collection("several", schema=schema).upsert([1], {"body": [[1, 2, 3]]})
    return database


@pytest.fixture(scope="module", params=NAMES)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, loop: LoopThread) -> Any:
    """One database for all of these tests: no bad input may change it."""
    with opened(request.param, tmp_path_factory.mktemp("bad") / "db", loop) as found:
        yield prepared(found)


@pytest.fixture(scope="module")
def oracle() -> MemoryDatabase:
    return prepared(MemoryDatabase())


def check_same(database: Any, oracle: Any, call: Callable[[Any], Any], collection: str = "docs") -> tuple[Any, ...]:
    docs = database.collection(collection)
    before = docs.stats()
    found = error_of(call, docs)
    assert found == error_of(call, oracle.collection(collection))
    assert found[2] is not None
    after = docs.stats()
    assert (after.points, after.last_seq) == (before.points, before.last_seq) == (len(docs), 1)
    return found


class Explained:
    """A collection of which every search of one query is explained."""

    def __init__(self, docs: Any) -> None:
        self.search = docs.explain
        self.search_batch = docs.search_batch


@pytest.mark.parametrize("name", UPSERTS)
def test_upsert(database, oracle, name):
    check_same(database, oracle, UPSERTS[name])


@pytest.mark.parametrize("name", SEARCHES)
def test_search(database, oracle, name):
    found = check_same(database, oracle, SEARCHES[name])
    assert error_of(SEARCHES[name], Explained(database.collection("docs"))) == found


@pytest.mark.parametrize("name", OTHERS)
def test_other_verbs(database, oracle, name):
    check_same(database, oracle, OTHERS[name])


@pytest.mark.parametrize("name", SEVERAL_FIELDS)
def test_several_fields(database, oracle, name):
    check_same(database, oracle, SEVERAL_FIELDS[name], "several")


@pytest.mark.parametrize("name", FILTERS)
def test_filters_in_every_verb_that_takes_one(database, oracle, name):
    where, params = FILTERS[name]
    check_same(database, oracle, lambda docs: docs.search([1, 2, 3], where=where, params=params))
    check_same(database, oracle, lambda docs: docs.count(where, params=params))
    check_same(database, oracle, lambda docs: docs.scroll_page(10, where=where, params=params))
    if where is not None:
        check_same(database, oracle, lambda docs: docs.delete(where=where, params=params))


def test_syntax_errors_name_the_position(database, oracle):
    error = check_same(database, oracle, lambda docs: docs.count("书名 = '退货🦜' OR = 3"))
    assert (error[2], error[5]) == ("where", 14)


@pytest.mark.parametrize("name", SCHEMAS)
def test_databases(database, oracle, name):
    assert error_of(SCHEMAS[name], database) == error_of(SCHEMAS[name], oracle)
    assert list(database.collections()) == ["docs", "several"]


@pytest.mark.parametrize("field", ["", "文", "with 'quotes' and \"more\""])
def test_messages_of_other_alphabets_arrive_whole(database, oracle, field):
    check_same(database, oracle, lambda docs: docs.search([1, 2, 3], field=field + "不存在" * 30))


@pytest.mark.parametrize("timeout_s", [-1, NAN, INFINITY, 1e300, "x", None, True], ids=repr)
def test_times_to_wait(database, oracle, timeout_s):
    found = check_same(database, oracle, lambda docs: docs.wait_indexed(timeout_s))
    assert found[2:4] == ("timeout_s", "0..86400 s")


def test_queries_of_more_bytes_than_a_call_holds(database, oracle):
    queries = np.ones((6_000_000, 3), np.float32)
    assert check_same(database, oracle, lambda docs: docs.search_batch(queries, k=1))[2] == "queries"
