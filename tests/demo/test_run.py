"""The whole demo at a small size, and what it refuses."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import vecdb
from vecdb.demo import run as demo
from vecdb.demo.embedder import Embedder
from vecdb.demo.measure import measure, nearest, recall
from vecdb.demo.questions import QUESTIONS, snippet
from vecdb.demo.screen import Answer
from vecdb.errors import FailedPrecondition, InvalidArgument

ROWS = 1_500


class RecordingScreen:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.headings: list[str] = []
        self.text: list[str] = []
        self.questions: dict[str, list[Answer]] = {}
        self.done: dict[str, int] = {}

    def heading(self, text: str) -> None:
        self.headings.append(text)

    def say(self, text: str) -> None:
        self.text.append(text)

    def facts(self, facts: Iterable[tuple[str, str]]) -> None:
        self.text += [f"{name}: {value}" for name, value in facts]

    def answers(self, question: str, answers: Iterable[Answer], note: str = "") -> None:
        self.questions[question] = list(answers)

    def commands(self, lines: Iterable[str]) -> None:
        self.text += lines

    @contextmanager
    def bar(self, label: str, total: int | None, unit: str) -> Iterator[_Bar]:
        bar = _Bar()
        yield bar
        self.done[label] = self.done.get(label, 0) + bar.count
        if total is not None:
            assert bar.count == total, label


class _Bar:
    def __init__(self) -> None:
        self.count = 0

    def advance(self, count: int) -> None:
        assert count >= 0
        self.count += count

    def note(self, text: str) -> None: ...


class WordHashes:
    """Stands in where the model is not installed: a vector of hashed words."""

    dim = 256

    def embed(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> np.ndarray:
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                vectors[row, zlib.crc32(word.encode()) % self.dim] += 1
        if progress is not None:
            progress(len(texts))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.demo.crash.KILL_AFTER_S_MIN", 0.05)
    monkeypatch.setattr("vecdb.demo.crash.KILL_AFTER_S_MAX", 0.3)
    try:
        import wordllama
    except ModuleNotFoundError:
        monkeypatch.setattr(demo, "Embedder", WordHashes)
    else:
        assert wordllama


def test_from_beginning_to_end_and_once_more(tmp_path):
    path = tmp_path / "demo"
    for _ in range(2):
        screen = RecordingScreen()
        report = demo.run(demo.DemoOptions(path, ROWS), screen)
        assert report.crash.kept
        assert report.crash.acknowledged_row_writes >= report.crash.compared_rows > 0
        assert report.shortfalls == []
        assert report.measures.recall_at_10 >= 0.95
        assert report.measures.queries == 150
        assert report.passages == ROWS - 150
        assert list(screen.questions) == [question.text for question in QUESTIONS]
        assert all(len(found) == 3 for found in screen.questions.values())
        assert all(title.startswith("asyncio.") for title in report.answers[QUESTIONS[-1].text])
        assert report.as_json()["ok"] is True
        assert report.disk_bytes >= sum(report.role_bytes.values()) > 0
        said = " ".join(screen.text)
        assert "0 lost" in said
        assert f"vecdb serve {path}" in said
        with vecdb.open(path) as database:
            assert list(database.collections()) == [demo.COLLECTION]
            passages = database.collection(demo.COLLECTION)
            assert passages.count() == ROWS - 150
            assert passages.count(where="revision >= 0") == 0
            (point,) = passages.scroll_page(1).points
            assert point.payload is not None
            assert point.payload.keys() == demo.PAYLOAD_KEYS


def test_without_keep_nothing_is_left(tmp_path):
    path = tmp_path / "demo"
    report = demo.run(demo.DemoOptions(path, demo.ROWS_MIN, keep=False), RecordingScreen())
    assert report.crash.kept
    assert not path.exists()


def test_a_broken_promise_is_told_and_the_database_left_alone(tmp_path, monkeypatch):
    path = tmp_path / "demo"
    monkeypatch.setattr("vecdb.demo.row.Row.is_stored_as", lambda row, point: False)
    screen = RecordingScreen()
    report = demo.run(demo.DemoOptions(path, demo.ROWS_MIN, keep=False), screen)
    assert not report.crash.kept
    assert report.as_json()["ok"] is False
    assert any("FAILED" in text for text in screen.text)
    assert path.is_dir()


def test_anything_that_is_no_demo_is_refused_and_untouched(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to-mum.txt").write_text("dear")
    for name in ("other-name", "other-payload"):
        with vecdb.open(tmp_path / name) as database:
            collection = database.create_collection("docs" if name == "other-name" else demo.COLLECTION, dim=2)
            collection.upsert([1], [[1.0, 0.0]], [{"title": "mine"}])
    for name in ("file", "letters", "other-name", "other-payload"):
        with pytest.raises(FailedPrecondition):
            demo.open_for_demo(tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"
    assert [each.name for each in (tmp_path / "letters").iterdir()] == ["to-mum.txt"]
    for name in ("other-name", "other-payload"):
        with vecdb.open(tmp_path / name) as database:
            assert database.collection(database.collections()[0]).count() == 1


@pytest.mark.parametrize("rows", [0, 999, 1_000_001])
def test_absurd_sizes_are_refused(rows):
    with pytest.raises(InvalidArgument) as raised:
        demo.DemoOptions(rows=rows)
    assert (raised.value.field, raised.value.value) == ("rows", str(rows))


def test_a_missing_model_is_told_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wordllama", None)
    monkeypatch.setattr(demo, "Embedder", Embedder)
    with pytest.raises(FailedPrecondition, match=r"wordllama.*extra 'demo'"):
        demo.run(demo.DemoOptions(tmp_path / "demo"), RecordingScreen())
    assert not (tmp_path / "demo").exists()


def test_the_truth_is_the_truth(rng):
    vectors = rng.standard_normal((300, 8)).astype(np.float32)
    queries = rng.standard_normal((70, 8)).astype(np.float32)
    expected = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    assert np.array_equal(np.sort(nearest(vectors, queries, 10)), np.sort(expected))


def test_recall_counts_shares():
    assert recall([{1, 2}, {3, 4}], [[2, 1], [3, 9]]) == 0.75


def test_measures_of_a_small_collection(tmp_path, rng):
    vectors = rng.standard_normal((200, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with vecdb.open(tmp_path / "kb") as database:
        collection = database.create_collection("docs", dim=8)
        collection.upsert(range(200), vectors)
        found = measure(collection, list(range(200)), vectors, vectors[:20] + 0.1, lambda _: None)
    assert found.recall_at_10 >= 0.95
    assert found.queries == 20
    assert 0 < found.latency_ms_p50 <= found.latency_ms_p99
    assert min(found.qps_single, found.qps_batch) > 0


def test_snippets_are_whole_sentences_where_they_fit():
    assert snippet("One. Two\nthree. Four five six.", 16) == "One. Two three."
    assert snippet("Short", 16) == "Short"
    long = snippet("word " * 40, 30)
    assert long.endswith("...")
    assert len(long) <= 30
    assert len(snippet("x" * 90, 30)) <= 30


def test_the_path_is_shown_short():
    from vecdb.demo.telling import short_path

    assert short_path(Path.home() / "a" / "b") == "~/a/b"
    assert short_path(Path("elsewhere")) == "elsewhere"
