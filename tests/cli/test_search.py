"""``vecdb search``: against NumPy, and its bad input."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.cli.conftest import ROWS
from vecdb.cli.search import parameter, point_id, read_vector, recall_of
from vecdb.errors import InvalidArgument, NotFound


def _nearest(vectors: np.ndarray, query: np.ndarray, k: int, rows: list[int] | None = None) -> list[object]:
    """The ids that L2 search must find, in order."""
    rows = list(range(len(vectors))) if rows is None else rows
    order = sorted(rows, key=lambda row: float(((vectors[row] - query) ** 2).sum()))
    return [row if row < len(vectors) - 1 else "a" for row in order[:k]]


def test_json_output_is_the_true_ranking(vecdb_command, database, vectors):
    query = vectors[5] + 0.1
    outcome = vecdb_command("search", database, "docs", "--vector", json.dumps(query.tolist()), "-k", 7, "--json")
    assert outcome.status == 0
    found = outcome.json
    assert [hit["id"] for hit in found["hits"]] == _nearest(vectors, query, 7)
    assert found["collection"] == "docs"
    assert found["complete"] is True
    assert found["hits"][0]["payload"] == {"n": 5, "parity": "odd"}


def test_filter_with_parameters(vecdb_command, database, vectors):
    outcome = vecdb_command(
        "search", database, "docs", "--vector", json.dumps(vectors[0].tolist()), "--where", "parity = :p AND n < :n",
        "--param", "p=odd", "--param", "n=10", "--recall", "exact", "--json",
    )  # fmt: skip
    assert [hit["id"] for hit in outcome.json["hits"]] == _nearest(vectors, vectors[0], 5, [1, 3, 5, 7, 9])


def test_by_id_leaves_the_point_itself_out(vecdb_command, database, vectors):
    for text, row in (("7", 7), ("a", len(vectors) - 1)):
        outcome = vecdb_command("search", database, "docs", "--id", text, "-k", 4, "--json")
        assert [hit["id"] for hit in outcome.json["hits"]] == _nearest(vectors, vectors[row], 5)[1:]


def test_readable_output_shows_id_score_and_payload(vecdb_command, database, vectors):
    outcome = vecdb_command("search", database, "docs", "--vector", json.dumps(vectors[3].tolist()), "-k", 2)
    assert outcome.status == 0
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["-0.000", "3"] or lines[0].split() == ["0.000", "3"]
    assert json.loads(lines[1]) == {"n": 3, "parity": "odd"}
    assert lines[-1].startswith("2 hits in docs, by ")
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in outcome.out


def test_explain_tells_how_instead_of_what(vecdb_command, database, vectors):
    words = ("search", database, "docs", "--explain", "--id", "7", "-k", 4, "--where", "parity = 'odd'")
    text = vecdb_command(*words)
    assert text.status == 0
    # One more than asked for: the point itself.
    assert text.out.startswith("k = 5, recall 0.95: 5 hits by exact, complete\n")
    assert "the filter allows 50 % of the rows" in text.out
    assert max(map(len, text.out.splitlines())) <= 80
    found = vecdb_command(*words, "--json").json
    assert (found["collection"], found["hits_found"], found["strategy"]) == ("docs", 5, "exact")
    assert [part["allowed_rows"] for part in found["parts"]] == [ROWS // 2]
    assert found["total_s"] > 0


@pytest.mark.parametrize("name", ["v.json", "v.npy", "row.npy"])
def test_vectors_from_files(vecdb_command, database, vectors, tmp_path, name):
    path = tmp_path / name
    if path.suffix == ".json":
        path.write_text(json.dumps(vectors[9].tolist()))
    else:
        np.save(path, vectors[9:10] if name == "row.npy" else vectors[9])
    outcome = vecdb_command("search", database, "docs", "--vector", f"@{path}", "-k", 1, "--json")
    assert [hit["id"] for hit in outcome.json["hits"]] == [9]


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["docs", "--vector", "[1, 2]"], 2, "8 dimensions, got 2"),
        (["docs", "--vector", "[1, 2"], 2, "no list of numbers"),
        (["docs", "--vector", "@gone.npy"], 1, "gone.npy"),
        (["docs", "--vector", "[1,2,3,4,5,6,7,8]", "-k", "0"], 2, "k must be"),
        (["docs", "--vector", "[1,2,3,4,5,6,7,8]", "--where", "n = = 1"], 2, "character 4"),
        (["docs", "--vector", "[1,2,3,4,5,6,7,8]", "--where", "n = :n"], 2, "n"),
        (["docs", "--vector", "[1,2,3,4,5,6,7,8]", "--param", "n"], 2, "NAME=VALUE"),
        (["docs", "--vector", "[1,2,3,4,5,6,7,8]", "--recall", "high"], 2, "exact"),
        (["docs", "--vector", "[1,2,3,4,5,6,7,8]", "--field", "x"], 2, "'x'"),
        (["nothing", "--vector", "[1]"], 1, "'nothing'"),
        (["docs", "--id", "1000"], 1, "no point 1000"),
        (["docs", "--explain", "--vector", "[1, 2]"], 2, "8 dimensions, got 2"),
        (["docs", "--text", "words"], 2, "--embed"),
        (["docs", "extra", "--id", "1"], 2, "one collection"),
    ],
)
def test_bad_input_is_one_line(vecdb_command, database, words, status, says):
    outcome = vecdb_command("search", database, *words)
    assert (outcome.status, outcome.out) == (status, "")
    assert says in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_missing_directory_is_not_made(vecdb_command, tmp_path):
    outcome = vecdb_command("search", tmp_path / "new", "docs", "--vector", "[1]")
    assert outcome.status == 1
    assert "no database in" in outcome.err
    assert not (tmp_path / "new").exists()


def test_the_path_may_come_from_the_settings(vecdb_command, database, monkeypatch):
    monkeypatch.setenv("VECDB_PATH", str(database))
    outcome = vecdb_command("search", "docs", "--id", "7", "-k", 1, "--json")
    assert outcome.status == 0
    assert outcome.json["collection"] == "docs"


def test_ids_as_typed():
    assert point_id("7") == 7
    assert point_id('"7"') == "7"
    assert point_id("seven") == "seven"
    assert point_id("true") == "true"
    assert point_id("[1]") == "[1]"


def test_parameters_as_typed():
    assert parameter("a=1") == ("a", 1)
    assert parameter("a=one=two") == ("a", "one=two")
    assert parameter('a=["x", 1]') == ("a", ["x", 1])
    assert parameter("a=") == ("a", "")
    with pytest.raises(InvalidArgument):
        parameter("=1")


def test_recall_as_typed():
    assert recall_of(None) is None
    assert recall_of("exact") == "exact"
    assert recall_of("0.9") == 0.9


def test_a_pickled_array_is_refused(tmp_path):
    path = tmp_path / "evil.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidArgument):
        read_vector(f"@{path}")
    with pytest.raises(NotFound):
        read_vector("@none.json")
