"""Filters: text, parameters and trees mean the same, and choose the same points everywhere."""

import numpy as np

from vecdb.filter import Constant, Field

PAYLOADS = [
    {"lang": "zh", "year": 2021, "tags": ["a", "b"], "meta": {"author": {"name": "李雷"}}, "ok": True},
    {"lang": "en", "year": 2022, "tags": [], "meta": {"author": {"name": "O'Neil"}}, "ok": False},
    {"lang": "zh", "year": 2023.5, "tags": ["b", None, 3], "meta": {}},
    {"lang": None, "year": "2024", "tags": "a"},
    {"year": 2**70, "with space": 1, "a.b": 2, "tags": [True, 1.5]},
    {},
]

PAIRS = [
    ("lang = 'zh'", {}, Field("lang") == "zh"),
    ("lang != 'zh'", {}, Field("lang") != "zh"),
    ("NOT lang = 'zh'", {}, ~(Field("lang") == "zh")),
    ("year >= :y", {"y": 2022}, Field("year") >= 2022),
    ("year > :y", {"y": 2**65}, Field("year") > 2**65),
    ("year < -170141183460469231731687303715884105728", {}, Field("year") < -(2**127)),
    ("year BETWEEN :low AND :high", {"low": 2021, "high": 2022.5}, Field("year").between(2021, 2022.5)),
    ("year = :y", {"y": 2023.5}, Field("year") == 2023.5),
    ("year = :y", {"y": np.int32(2021)}, Field("year") == np.int32(2021)),
    ("lang IN ('zh', :other)", {"other": "en"}, Field("lang").is_in(["zh", "en"])),
    ("lang IN :langs", {"langs": ["en", "fr"]}, Field("lang").is_in(["en", "fr"])),
    ("lang NOT IN :langs", {"langs": ("en", "fr")}, Field("lang").not_in({"en", "fr"})),
    ("lang LIKE 'z%'", {}, Field("lang").startswith("z")),
    ("lang IS NULL", {}, Field("lang").is_null()),
    ("lang IS NOT NULL", {}, Field("lang").is_not_null()),
    ("EXISTS lang", {}, Field("lang").exists()),
    ("tags CONTAINS 'b'", {}, Field("tags").contains("b")),
    ("tags CONTAINS :none", {"none": None}, Field("tags").contains(None)),
    ("tags CONTAINS true", {}, Field("tags").contains(True)),
    ("ok = :ok", {"ok": True}, Field("ok") == True),  # noqa: E712 (makes a node)
    ("meta.author.name = :name", {"name": "O'Neil"}, Field("meta.author.name") == "O'Neil"),
    ("meta.author.name = '李雷'", {}, Field.at("meta", "author", "name") == "李雷"),
    ('"with space" = 1 OR "a.b" = 2', {}, (Field.at("with space") == 1) | (Field.at("a.b") == 2)),
    (
        "(lang = 'zh' OR lang = 'en') AND NOT (year < 2022 OR tags CONTAINS 3)",
        {},
        ((Field("lang") == "zh") | (Field("lang") == "en")) & ~((Field("year") < 2022) | Field("tags").contains(3)),
    ),
    ("TRUE", {}, Constant(True)),
    ("FALSE", {}, Constant(False)),
]


def fill(database):
    docs = database.create_collection("docs", dim=1, metric="l2")
    ids = range(len(PAYLOADS))
    docs.upsert(ids, np.arange(len(PAYLOADS)).reshape(-1, 1), PAYLOADS)
    return docs


def test_text_and_tree_choose_the_points_that_the_oracle_chooses(database, oracle):
    docs, known = fill(database), fill(oracle)
    for flushed in (False, True):
        if flushed:
            docs.flush()
        for text, params, tree in PAIRS:
            chosen = known.search([0.0], k=100, where=text, params=params).ids
            assert docs.search([0.0], k=100, where=text, params=params).ids == chosen, text
            assert docs.search([0.0], k=100, where=tree).ids == chosen, text
            assert docs.count(text, params=params) == docs.count(tree) == len(chosen), text
            assert sorted(point.id for point in docs.scroll(tree)) == chosen, text


def test_the_pairs_tell_points_apart(oracle):
    docs = fill(oracle)
    assert len({tuple(docs.search([0.0], k=100, where=tree).ids) for _, _, tree in PAIRS}) >= 12


def test_a_long_list_of_values(database):
    docs = fill(database)
    values = [f"absent{n}" for n in range(9_998)]
    assert docs.count(Field("lang").is_in(["zh", *values])) == 2
    assert docs.count("lang IN :values", params={"values": ["zh", *values]}) == 2


def test_a_deep_and_wide_tree(database, oracle):
    docs, known = fill(database), fill(oracle)
    tree = Field("year") == 2021
    for level in range(5):
        tree = ~((tree & (Field("year") != level)) | (Field("year") == 10_000 + level))
    wide = Field("year") == 2021
    for number in range(900):
        wide |= Field("year") == number
    assert tree.depth > 10
    assert docs.count(tree) == known.count(tree) == 3
    assert docs.count(wide) == 1


def test_deletes_by_tree(database):
    docs = fill(database)
    assert docs.delete(where=Field("lang") == "zh").deleted == 2
    assert docs.count() == len(PAYLOADS) - 2
