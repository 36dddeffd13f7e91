"""The questions the demo asks, and how what comes back is shown."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vecdb.api import Collection
from vecdb.demo.embedder import Embedder
from vecdb.demo.screen import Answer
from vecdb.results.hits import Hits

ANSWERS_PER_QUESTION = 3
SNIPPET_CHARACTERS_MAX = 150

_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+")


@dataclass(frozen=True, slots=True)
class Question:
    """Plain words, and a filter for those who know where to look."""

    text: str
    where: str | None = None


QUESTIONS = (
    Question("How do I parse a date from a string?"),
    Question("Run several coroutines at the same time"),
    Question("Compare two sequences of lines and show the differences"),
    Question("Solve a system of linear equations"),
    Question("Which days of the month fall on a Sunday?"),
    Question("How do I stop a running server?", where="package = 'asyncio'"),
)


def ask(collection: Collection, embedder: Embedder, question: Question) -> list[Answer]:
    """What ``collection`` finds for ``question``, nearest first."""
    vector = embedder.embed([question.text])[0]
    return shown(collection.search(vector, k=ANSWERS_PER_QUESTION, where=question.where))


def shown(hits: Hits) -> list[Answer]:
    """Hits whose payloads have a title and a text, as answers."""
    answers = []
    for hit in hits:
        payload = hit.payload or {}
        text = snippet(str(payload.get("text", "")), SNIPPET_CHARACTERS_MAX)
        answers.append(Answer(hit.score, str(payload.get("title", hit.id)), text))
    return answers


def snippet(text: str, characters_max: int) -> str:
    """The first sentences of ``text`` that fit, on one line; at least the beginning of the first one."""
    line = " ".join(text.split())
    if len(line) <= characters_max:
        return line
    kept = ""
    for sentence in _SENTENCE_END.split(line):
        longer = f"{kept} {sentence}".strip()
        if len(longer) > characters_max:
            break
        kept = longer
    if kept:
        return kept
    cut = line[: characters_max - 3]
    return (cut.rpartition(" ")[0] or cut) + "..."
