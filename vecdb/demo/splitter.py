"""Cutting a text into passages that can be searched on their own.

A text of at most ``PASSAGE_CHARACTERS_MAX`` characters is one passage unless it holds two parts that stand alone. A
longer one is cut where its own structure is weakest: before a heading, between paragraphs, list items, sentences or
lines, in this order, inside an example or between words only where nothing else is near.

Invariant: no character but white space is lost, the order is kept, no passage has more than ``PASSAGE_CHARACTERS_MAX``
characters, and none fewer than ``PASSAGE_CHARACTERS_MIN`` unless the whole text has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PASSAGE_CHARACTERS_MIN = 200
PASSAGE_CHARACTERS_WANTED = 400
PASSAGE_CHARACTERS_MAX = 800

HEADING, PARAGRAPH, ITEM, SENTENCE, LINE, EXAMPLE = 0, 60, 100, 220, 240, 400
"""What a cut costs by what it falls on, in the unit of its other price: characters away from the length wanted."""

PRICE_OF_TWO = 200
"""A text that would fit into one passage is cut only where that costs less than this."""

_BLANKS_MAX = 40
_LONG_BLANKS = re.compile(rf"[^\S\n]{{{_BLANKS_MAX + 1},}}")
_EMPTY_LINES = re.compile(r"\n{3,}")
_GAP = re.compile(r"\s*\n\s*|(?<=[.!?])\s+|(?<=[.!?][)\"'])\s+|(?<=[。！？])\s*(?=\w)")
_SENTENCE_END = re.compile(r"[.!?。！？][)\"']?$")
_UNDERLINE = re.compile(r"[ \t]*([=\-~^\"'`*+#.])\1{2,}[ \t]*$")
_TITLE = re.compile(r"[A-Z][A-Za-z ]{2,30}:$")
_ITEM = re.compile(r"(?:[-*+•]|\(?\d{1,3}[.)]|:\w[^:\n]{0,60}:|@\w+)\s")
_EXAMPLE = re.compile(r"(?:>>>|\.\.\.|In \[\d+\]:|\$ )")


@dataclass(frozen=True, slots=True)
class _Cut:
    """A place to cut: the left part ends at ``left``, the right one begins at ``right``."""

    left: int
    right: int
    cost: int


def tidy(text: str) -> str:
    """``text`` without trailing blanks, without more than one empty line in a row, without very long runs of blanks."""
    lines = (_LONG_BLANKS.sub(" " * _BLANKS_MAX, line).rstrip() for line in text.expandtabs(8).splitlines())
    return _EMPTY_LINES.sub("\n\n", "\n".join(lines)).strip()


def split(text: str) -> list[str]:
    """The passages of ``text``, in order; none for a text of white space."""
    text = tidy(text)
    if len(text) < 2 * PASSAGE_CHARACTERS_MIN:
        return [text] if text else []
    cuts = _cuts(text)
    passages: list[str] = []
    start, at = 0, 0
    while True:
        while at < len(cuts) and cuts[at].left <= start:
            at += 1
        cut = _best(text, start, cuts, at)
        if cut is None:
            passages.append(text[start:])
            return passages
        passages.append(text[start : cut.left])
        start = cut.right


def _best(text: str, start: int, cuts: list[_Cut], at: int) -> _Cut | None:
    """The cheapest cut of what begins at ``start``; ``None`` where it is better left whole."""
    rest = len(text) - start
    if rest < 2 * PASSAGE_CHARACTERS_MIN:
        return None
    must = rest > PASSAGE_CHARACTERS_MAX
    # Of what just exceeds one passage, two halves are wanted, not a passage and a scrap.
    wanted = min(PASSAGE_CHARACTERS_WANTED, rest // 2)
    left_max = min(start + PASSAGE_CHARACTERS_MAX, len(text) - PASSAGE_CHARACTERS_MIN)
    best, best_price = None, float("inf") if must else float(PRICE_OF_TWO)
    for position in range(at, len(cuts)):
        cut = cuts[position]
        if cut.left > left_max:
            break
        length = cut.left - start
        if length < PASSAGE_CHARACTERS_MIN or len(text) - cut.right < PASSAGE_CHARACTERS_MIN:
            continue
        price = cut.cost + abs(length - wanted)
        if price < best_price:
            best, best_price = cut, price
    if best is None and must:
        return _between_words(text, start + PASSAGE_CHARACTERS_MIN, left_max)
    return best


def _between_words(text: str, left_min: int, left_max: int) -> _Cut:
    """The last place between words that leaves enough on both sides, or the middle of a word where there is none."""
    for position in range(left_max, left_min, -1):
        if text[position].isspace() and not text[position - 1].isspace():
            right = position
            while text[right].isspace():
                right += 1
            if len(text) - right >= PASSAGE_CHARACTERS_MIN:
                return _Cut(position, right, 0)
    position = left_max
    while text[position].isspace() or text[position - 1].isspace():
        position -= 1
    return _Cut(position, position, 0)


def _cuts(text: str) -> list[_Cut]:
    """Every end of a line or a sentence as a place to cut."""
    lines = _line_kinds(text)
    cuts: list[_Cut] = []
    line = 0
    for gap in _GAP.finditer(text):
        breaks = gap.group().count("\n")
        before, line = line, line + breaks
        if breaks:
            cost = _cost_of_break(lines[before], lines[line], breaks, text, gap.start())
        else:
            cost = EXAMPLE if lines[line] == "example" else SENTENCE
        cuts.append(_Cut(gap.start(), gap.end(), cost))
    return cuts


def _cost_of_break(before: str, after: str, breaks: int, text: str, end: int) -> int:
    """What it costs to cut between two lines of these kinds, of which the first ends at ``end``."""
    if before in ("heading", "underline"):
        return EXAMPLE  # a heading belongs to what follows
    if after == "heading":
        return HEADING
    if before == "example" and after == "example":
        return EXAMPLE
    if breaks > 1:
        return ITEM if after == "example" else PARAGRAPH  # what introduces an example belongs to it
    if after == "item":
        return ITEM
    return SENTENCE if _SENTENCE_END.search(text, max(0, end - 2), end) else LINE


def _line_kinds(text: str) -> list[str]:
    """What each line is: ``text``, ``heading``, ``underline``, ``item``, ``example`` or ``empty``."""
    lines = text.split("\n")
    kinds: list[str] = []
    literal_indent: int | None = None
    for number, line in enumerate(lines):
        bare = line.lstrip()
        indent = len(line) - len(bare)
        if literal_indent is not None and bare and indent <= literal_indent:
            literal_indent = None
        following = lines[number + 1] if number + 1 < len(lines) else ""
        kind = (
            "example"
            if literal_indent is not None and bare
            else _kind(line, following, kinds[-1] if kinds else "empty")
        )
        if kind not in ("empty", "example") and bare.endswith("::"):
            literal_indent = indent
        kinds.append(kind)
    return kinds


def _kind(line: str, following: str, previous: str) -> str:
    """What ``line`` is, between a line of kind ``previous`` and the line ``following``."""
    bare = line.lstrip()
    if not bare:
        return "empty"
    if _EXAMPLE.match(bare) or (previous == "example" and not _ITEM.match(bare)):
        return "example"
    if _UNDERLINE.match(line):
        return "underline" if previous == "heading" else "text"
    if _UNDERLINE.match(following) or (previous == "empty" and following.strip() and _TITLE.match(bare)):
        return "heading"
    return "item" if _ITEM.match(bare) else "text"
