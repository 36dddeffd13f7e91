"""Scrolling: every point once, in an order that lasts, by pages and cursors."""

import numpy as np
import pytest


@pytest.fixture
def docs(database):
    docs = database.create_collection("docs", dim=2, metric="dot")
    ids = [*range(40), *(f"名{n}" for n in range(35))]
    docs.upsert(ids, np.arange(150).reshape(75, 2), [{"n": n} for n in range(75)])
    docs.flush()
    docs.upsert(["late"], [[1, 2]], [{"n": 75}])
    return docs


def test_every_point_comes_once_whatever_the_page(docs):
    whole = [point.id for point in docs.scroll()]
    assert len(whole) == len(set(whole)) == 76
    for page_rows in (1, 7, 76, 1_000):
        assert [point.id for point in docs.scroll(page_rows=page_rows)] == whole


def test_pages_follow_each_other_by_cursor(docs):
    whole = [point.id for point in docs.scroll()]
    first = docs.scroll_page(50)
    second = docs.scroll_page(50, first.next_cursor)
    assert [point.id for point in first.points] == whole[:50]
    assert [point.id for point in second.points] == whole[50:]
    assert isinstance(first.next_cursor, bytes)
    assert second.next_cursor is None
    exact = docs.scroll_page(76)
    assert (len(exact.points), exact.next_cursor) == (76, None)


def test_a_cursor_outlives_writes_and_flushes(docs):
    whole = [point.id for point in docs.scroll()]
    first = docs.scroll_page(30)
    docs.delete([whole[0], whole[31]])
    docs.upsert([whole[40]], [[0, 0]], [{"n": "changed"}])
    docs.flush()
    rest = [point.id for point in docs.scroll_page(1_000, first.next_cursor).points]
    assert rest == [each for each in whole[30:] if each != whole[31]]


def test_scroll_brings_what_was_asked_for(docs):
    bare = next(docs.scroll(with_payloads=False))
    assert (bare.payload, dict(bare.vectors)) == (None, {})
    found = {point.id: point for point in docs.scroll(with_vectors=True)}
    np.testing.assert_array_equal(found[3].vector, [6, 7])
    assert found["名0"].payload == {"n": 40}


def test_scroll_takes_filters(docs):
    assert sorted(point.payload["n"] for point in docs.scroll("n < :n", params={"n": 5}, page_rows=2)) == [
        0,
        1,
        2,
        3,
        4,
    ]
    page = docs.scroll_page(2, where="n >= 73", with_payloads=False)
    rest = docs.scroll_page(2, page.next_cursor, where="n >= 73")
    assert {point.id for point in (*page.points, *rest.points)} == {"名33", "名34", "late"}
    assert list(docs.scroll("n > 1000")) == []


def test_an_empty_collection_has_one_empty_page(database):
    page = database.create_collection("none", dim=1).scroll_page()
    assert (list(page.points), page.next_cursor) == ([], None)


def test_large_points_come_back_whole(database):
    docs = database.create_collection("docs", dim=1)
    docs.upsert(range(12), np.ones((12, 1)), [{"text": chr(97 + n) * 900_000} for n in range(12)])
    found = {point.id: point.payload["text"] for point in docs.scroll()}
    assert found == {n: chr(97 + n) * 900_000 for n in range(12)}
    assert [point.id for point in docs.get(range(12))] == list(range(12))
