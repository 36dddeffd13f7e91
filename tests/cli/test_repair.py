"""``vecdb repair`` and ``vecdb check --json``: what is printed, what is asked, and the exit status."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

import vecdb
from vecdb.cli import repair


@pytest.fixture
def damaged(database: Path) -> Path:
    """The database with a byte of its vectors and its metadata gone."""
    with vecdb.open(database) as opened:
        opened.collection("docs").flush()
    vectors = next(database.rglob("*.vectors.*"))
    data = bytearray(vectors.read_bytes())
    data[500] ^= 1
    vectors.write_bytes(data)
    return database


def content(path: Path) -> dict[str, bytes]:
    return {
        str(each.relative_to(path)): each.read_bytes()
        for each in path.rglob("*")
        if each.is_file() and each.name != "LOCK"
    }


def test_a_healthy_database_needs_no_answer(vecdb_command, database):
    before = content(database)
    outcome = vecdb_command("repair", database)
    assert outcome.status == 0
    assert "Nothing to repair" in outcome.out
    assert vecdb_command("repair", database, "--yes", "--json").json["needed"] is False
    assert content(database) == before


def test_without_a_terminal_it_needs_yes(vecdb_command, damaged, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    before = content(damaged)
    outcome = vecdb_command("repair", damaged)
    assert outcome.status == repair.EXIT_NOT_CONFIRMED == 3
    assert ".vectors.0.0" in outcome.out
    assert "--yes" in outcome.err
    planned = vecdb_command("repair", damaged, "--json")
    assert planned.status == 3
    assert planned.json["done"] is False
    assert content(damaged) == before
    done = vecdb_command("repair", damaged, "--yes", "--json")
    assert done.status == 0
    assert done.json["done"] is True
    assert done.json["losses"] == planned.json["losses"]
    assert sum(len(loss["ids"]) for loss in done.json["losses"]) == 40
    assert vecdb_command("check", damaged).status == 0
    assert (damaged / done.json["quarantine"] / "report.json").is_file()
    assert vecdb_command("repair", damaged, "--yes").status == 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("yes\n", 0), ("n\n", 3), ("\n", 3), ("", 3)])
def test_a_person_is_asked(vecdb_command, damaged, monkeypatch, answer, status):
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    before = content(damaged)
    outcome = vecdb_command("repair", damaged)
    assert outcome.status == status
    assert "[y/N]" in outcome.err
    assert "and 20 more" in " ".join(outcome.out.split())
    assert (content(damaged) == before) == (status == 3)
    assert (vecdb_command("check", damaged).status == 0) == (status == 0)


@pytest.mark.parametrize("name", ["nowhere", "foreign"])
def test_what_is_no_database_is_left_alone(vecdb_command, tmp_path, name):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "letter.txt").write_text("dear")
    assert vecdb_command("repair", tmp_path / name, "--yes").status == 1
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["letter.txt"]
    assert not (tmp_path / "nowhere").exists()


def test_problems_for_a_machine(vecdb_command, damaged):
    (damaged / "collections" / "stranger").mkdir()
    found = vecdb_command("check", damaged, "--json").json
    assert {"ok", "problems", "collections", "files", "size_bytes", "points", "seconds"} <= found.keys()
    kinds = {problem["kind"]: problem for problem in found["problems"]}
    assert kinds.keys() == {"damaged", "stray"}
    assert kinds["damaged"]["offset"] == 0
    assert ".vectors.0.0" in kinds["damaged"]["file"]
    assert "stranger" in kinds["stray"]["file"]
