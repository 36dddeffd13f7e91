"""Points going in and coming back: ids, payloads, vectors, seqs and request ids."""

import math

import numpy as np
import pytest

from vecdb.errors import InvalidArgument
from vecdb.schema import CollectionSchema, VectorField

TWO_FIELDS = CollectionSchema((VectorField(2, "l2", name="title"), VectorField(3, "dot", name="正文")))

PAYLOADS = [
    {},
    {"big": 2**200, "negative": -(2**63) - 1, "u64": 2**64 - 1, "zero": -0.0, "tiny": 5e-324, "one": 1.0},
    {"nested": {"a": [1, [2, {"b": None}], True, False], "": "empty key"}, "list": []},
    {"中文": "退货政策：七天无理由", "emoji": "🦜🚀", "mixed": "naïve – ½", "escape": '\\ " \n \t \u0000 \u2028'},
    {"null": None, "true": True, "text": "x" * 10_000},
]


def test_a_point_comes_back_as_it_went_in(database):
    docs = database.create_collection("docs", dim=3, metric="dot")
    docs.upsert([7], [[1.5, -2.25, 0.0]], [{"lang": "zh", "year": 2024}])
    (point,) = docs.get([7], with_vectors=True)
    assert point.id == 7
    assert point.payload == {"lang": "zh", "year": 2024}
    assert point.vector.dtype == np.float32
    np.testing.assert_array_equal(point.vector, np.float32([1.5, -2.25, 0.0]))


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_payloads_come_back_with_values_and_types(database, payload):
    docs = database.create_collection("docs", dim=1)
    docs.upsert(["a"], [[1.0]], [payload])
    for found in (docs.get(["a"])[0].payload, docs.search([1.0])[0].payload, next(docs.scroll()).payload):
        assert found == payload
        assert {key: type(value) for key, value in found.items()} == {
            key: type(value) for key, value in payload.items()
        }
        assert list(found) == list(payload)
        assert math.copysign(1, found.get("zero", 1.0)) == math.copysign(1, payload.get("zero", 1.0))


def test_ids_of_both_kinds_mix_and_an_integer_is_not_its_text(database):
    ids = [1, "1", 0, "0", 2**64 - 1, str(2**64 - 1), "文", "a" * 512, "é" * 256]
    docs = database.create_collection("docs", dim=1)
    docs.upsert(ids, np.ones((len(ids), 1)), [{"at": at} for at in range(len(ids))])
    assert docs.count() == len(ids)
    found = docs.get(ids)
    assert [point.id for point in found] == ids
    assert [type(point.id) for point in found] == [type(each) for each in ids]
    assert [point.payload["at"] for point in found] == list(range(len(ids)))
    docs.delete([1])
    assert [point.id for point in docs.get([1, "1"])] == ["1"]


def test_numpy_ids_are_their_plain_values(database):
    docs = database.create_collection("docs", dim=1)
    docs.upsert(np.array([3, 4], np.uint64), np.ones((2, 1)))
    docs.upsert(np.array(["x", "y"]), np.ones((2, 1)))
    assert [type(point.id) for point in docs.get([3, "x"])] == [int, str]


def test_get_keeps_the_order_leaves_unknown_ids_out_and_repeats_repeated_ones(database):
    docs = database.create_collection("docs", dim=1)
    docs.upsert([1, 2, 3], np.ones((3, 1)))
    assert [point.id for point in docs.get([3, 9, 1, 3, "2"])] == [3, 1, 3]
    assert docs.get([]) == []


def test_get_brings_what_was_asked_for(database):
    docs = database.create_collection("docs", dim=1)
    docs.upsert([1], [[1.0]], [{"a": 1}])
    (bare,) = docs.get([1], with_payloads=False)
    assert (bare.payload, dict(bare.vectors), bare.vector) == (None, {}, None)
    (whole,) = docs.get([1], with_payloads=True, with_vectors=True)
    assert (whole.payload, list(whole.vectors)) == ({"a": 1}, [""])


def test_an_upsert_replaces_the_whole_point(database):
    docs = database.create_collection("docs", schema=TWO_FIELDS)
    docs.upsert([1], {"title": [[1, 2]], "正文": [[1, 2, 3]]}, [{"old": 1, "both": 1}])
    docs.upsert([1], {"title": [[3, 4]]}, [{"both": 2}])
    (point,) = docs.get([1], with_vectors=True)
    assert point.payload == {"both": 2}
    assert {name: values.tolist() for name, values in point.vectors.items()} == {"title": [3, 4]}
    assert docs.count() == 1


def test_points_may_lack_a_vector(database):
    docs = database.create_collection("docs", schema=TWO_FIELDS)
    docs.upsert(
        ["a", "b", "c", "d"],
        {"title": [None, [1, 1], None, [2, 2]], "正文": [[1, 0, 0], None, None, [0, 1, 0]]},
    )
    found = {point.id: sorted(point.vectors) for point in docs.get(list("abcd"), with_vectors=True)}
    assert found == {"a": ["正文"], "b": ["title"], "c": [], "d": ["title", "正文"]}
    assert [hit.id for hit in docs.search([0, 0], field="title")] == ["b", "d"]
    assert {hit.id for hit in docs.search([1, 1, 1], field="正文")} == {"a", "d"}
    (first, second) = docs.search([0, 0], field="title", with_vectors=True)
    assert (sorted(first.vectors), sorted(second.vectors)) == (["title"], ["title", "正文"])


def test_a_field_may_be_missing_from_a_whole_batch(database):
    docs = database.create_collection("docs", schema=TWO_FIELDS)
    docs.upsert([1, 2], {"title": [None, None], "正文": [[1, 2, 3], [4, 5, 6]]})
    docs.upsert([3], {})
    assert docs.count() == 3
    assert len(docs.search([0, 0], field="title")) == 0
    assert [dict(point.vectors) for point in docs.get([3], with_vectors=True)] == [{}]


def test_vectors_are_kept_to_float32_rounding_under_cosine(database, rng):
    docs = database.create_collection("docs", dim=16)
    vectors = rng.normal(size=(50, 16)).astype(np.float32) * 10.0 ** rng.integers(-6, 6, (50, 1))
    docs.upsert(range(50), vectors)
    found = np.stack([point.vector for point in docs.get(range(50), with_vectors=True)])
    np.testing.assert_allclose(found, vectors, rtol=1e-5)


def test_seqs_count_the_batches_that_changed_something(database):
    docs = database.create_collection("docs", dim=1)
    nothing = docs.upsert([], np.zeros((0, 1)))
    assert (nothing.seq, nothing.upserted, nothing.deleted) == (0, 0, 0)
    first = docs.upsert([1, 2, 3], np.ones((3, 1)))
    assert (first.seq, first.durable_seq, first.upserted, first.deleted) == (1, 1, 3, 0)
    second = docs.delete([3, 9, 3])
    assert (second.seq, second.durable_seq, second.upserted, second.deleted) == (2, 2, 0, 1)
    for unchanged in (docs.delete([3]), docs.delete([]), docs.upsert([], []), docs.delete(where="a = 1")):
        assert (unchanged.seq, unchanged.upserted, unchanged.deleted) == (2, 0, 0)
    assert docs.upsert([1], [[2.0]]).seq == 3
    assert docs.stats().last_seq == 3


def test_deletes_by_filter_take_what_matches(database):
    docs = database.create_collection("docs", dim=1)
    docs.upsert(range(10), np.ones((10, 1)), [{"n": n} for n in range(10)])
    assert docs.delete(where="n >= :low", params={"low": 7}).deleted == 3
    assert docs.delete(where="n < 2").deleted == 2
    assert sorted(point.id for point in docs.scroll()) == [2, 3, 4, 5, 6]
    assert docs.upsert([1], [[1.0]]).upserted == 1
    assert docs.get([1])[0].payload == {}


def test_a_retry_with_the_same_request_id_is_applied_once(database):
    docs = database.create_collection("docs", dim=1)
    first = docs.upsert([1, 2], [[1.0], [2.0]], [{"a": 1}, {}], request_id="once")
    docs.upsert([1], [[5.0]], [{"a": 2}])
    again = docs.upsert([1, 2], [[1.0], [2.0]], [{"a": 1}, {}], request_id="once")
    assert (again.seq, again.upserted) == (first.seq, first.upserted)
    assert docs.get([1])[0].payload == {"a": 2}
    gone = docs.delete([1], request_id="删除")
    docs.upsert([1], [[1.0]])
    again = docs.delete([1], request_id="删除")
    assert (again.seq, again.deleted) == (gone.seq, 1)
    assert docs.count() == 2


@pytest.mark.parametrize(
    "other",
    [
        lambda docs: docs.upsert([1], [[2.0]], [{"a": 1}], request_id="once"),
        lambda docs: docs.upsert([1], [[1.0]], [{"a": 2}], request_id="once"),
        lambda docs: docs.upsert(["1"], [[1.0]], [{"a": 1}], request_id="once"),
        lambda docs: docs.delete([1], request_id="once"),
        lambda docs: docs.delete(where="a = 1", request_id="once"),
    ],
)
def test_a_request_id_names_one_content_only(database, other):
    docs = database.create_collection("docs", dim=1)
    docs.upsert([1], [[1.0]], [{"a": 1}], request_id="once")
    with pytest.raises(InvalidArgument) as caught:
        other(docs)
    assert (caught.value.field, caught.value.value) == ("request_id", "once")
    assert docs.stats().last_seq == 1


def test_a_write_is_visible_to_reads_that_wait_for_it(database):
    docs = database.create_collection("docs", dim=1, metric="l2")
    for number in range(20):
        written = docs.upsert([number], [[float(number)]])
        hits = docs.search([float(number)], k=1, read_after_seq=written.seq)
        assert hits[0].id == number


def test_a_large_batch_and_everything_in_it_comes_back(database, rng):
    docs = database.create_collection("docs", dim=8)
    vectors = rng.normal(size=(3_000, 8)).astype(np.float32)
    payloads = [{"n": n, "text": "文" * (n % 700)} for n in range(3_000)]
    assert docs.upsert(range(3_000), vectors, payloads).upserted == 3_000
    found = docs.get(range(2_999, -1, -1), with_vectors=True)
    assert [point.id for point in found] == list(range(2_999, -1, -1))
    assert [point.payload for point in found] == payloads[::-1]
    np.testing.assert_allclose([point.vector for point in found], vectors[::-1], rtol=1e-5)
