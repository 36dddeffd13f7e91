"""The splitter loses nothing, keeps its sizes, and cuts where a reader would."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.demo.splitter import PASSAGE_CHARACTERS_MAX, PASSAGE_CHARACTERS_MIN, split, tidy

SENTENCE = "The quick brown fox jumps over the lazy dog while the cat looks on. "
LINES = st.one_of(
    st.text(st.sampled_from("ab .!?。\n\t>-=:*()x\u00a0\u2028\x0c"), max_size=60),
    st.sampled_from(
        [
            "Parameters\n----------",
            ">>> f(x)\n3",
            "Example::\n\n    code here\n    more",
            "- item one",
            SENTENCE,
            SENTENCE * 4,
        ]
    ),
    st.text(max_size=300),
    st.integers(1, 1000).map(lambda count: " " * count),
    st.integers(1, 1000).map(lambda count: "x" * count),
)
TEXTS = st.builds(
    lambda lines, separator: separator.join(lines),
    st.lists(LINES, max_size=40),
    st.sampled_from(["", " ", "\n", "\n\n"]),
)


def _visible(text: str) -> str:
    return "".join(text.split())


@given(TEXTS)
def test_nothing_but_white_space_is_lost_and_sizes_hold(text):
    passages = split(text)
    assert _visible("".join(passages)) == _visible(text)
    assert all(passage and passage == passage.strip() for passage in passages)
    assert all(len(passage) <= PASSAGE_CHARACTERS_MAX for passage in passages)
    if len(passages) > 1:
        assert all(len(passage) >= PASSAGE_CHARACTERS_MIN for passage in passages)


@given(TEXTS)
def test_tidying_twice_is_tidying_once(text):
    assert tidy(tidy(text)) == tidy(text)
    assert "\n\n\n" not in tidy(text)


def test_a_short_text_is_one_passage():
    assert split("  One line.\n\n\n\nAnother.  ") == ["One line.\n\nAnother."]
    assert split(" \n ") == []


def test_paragraphs_are_kept_whole_where_they_fit():
    paragraphs = [f"{name}: " + SENTENCE * 4 for name in ("First", "Second", "Third", "Fourth")]
    assert split("\n\n".join(paragraphs)) == [paragraph.strip() for paragraph in paragraphs]


def test_a_heading_stays_with_what_follows():
    text = SENTENCE * 5 + "\n\nReturns\n-------\n" + SENTENCE * 5 + "\n\nRaises\n------\n" + SENTENCE * 5
    first, second, third = split(text)
    assert second.startswith("Returns\n-------\nThe quick")
    assert third.startswith("Raises\n------\nThe quick")
    assert "Returns" not in first


@pytest.mark.parametrize("opening", [">>> total = 0\n", "Example::\n\n    total = 0\n"])
def test_an_example_is_not_torn_apart(opening):
    indent = "" if opening.startswith(">>>") else "    "
    prompt = ">>> " if opening.startswith(">>>") else ""
    code = opening + "".join(f"{indent}{prompt}total += compute({number})\n" for number in range(12))
    text = SENTENCE * 6 + "\n\n" + code + "\n" + SENTENCE * 6
    holding = [passage for passage in split(text) if "total +=" in passage]
    assert len(holding) == 1
    assert all(f"compute({number})" in holding[0] for number in range(12))


def test_list_items_are_where_a_long_list_is_cut():
    items = [f"- item {number}: {SENTENCE.strip()} And once more: {SENTENCE.strip()}" for number in range(12)]
    for passage in split("\n".join(items)):
        assert passage.startswith("- item ")


def test_sentences_are_where_a_long_paragraph_is_cut():
    passages = split(SENTENCE * 60)
    assert len(passages) > 4
    assert all(passage.startswith("The quick") and passage.endswith("looks on.") for passage in passages)


def test_text_without_any_white_space_is_still_cut():
    passages = split("x" * 2500)
    assert "".join(passages) == "x" * 2500
    assert all(PASSAGE_CHARACTERS_MIN <= len(passage) <= PASSAGE_CHARACTERS_MAX for passage in passages)
