"""stats, check, version, warmup, serve and demo from the command line."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import vecdb
from vecdb.cli import demo, serve, terminal
from vecdb.cli.stats import _live_recall
from vecdb.demo.report import CrashReport, DemoReport, Measures
from vecdb.results.stats import LiveRecall


def test_stats_of_all_and_of_one(vecdb_command, database):
    everything = vecdb_command("stats", database, "--json").json
    assert sorted(everything) == ["docs", "empty"]
    assert everything["docs"]["points"] == 40
    assert everything["docs"]["vectors"] == [{"name": "", "dim": 8, "metric": "l2", "index": "auto"}]
    assert list(vecdb_command("stats", database, "docs", "--json").json) == ["docs"]
    readable = vecdb_command("stats", database)
    assert readable.status == 0
    assert "8-d l2 auto" in readable.out
    assert "40;" in readable.out


def test_stats_of_a_database_without_collections(vecdb_command, tmp_path):
    vecdb.open(tmp_path / "kb").close()
    outcome = vecdb_command("stats", tmp_path / "kb")
    assert outcome.status == 0
    assert "holds no collections" in " ".join(outcome.out.split())


@pytest.mark.parametrize("words", [["nowhere"], ["{database}", "nothing"], []])
def test_stats_of_what_is_not_there(vecdb_command, database, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = vecdb_command("stats", *(word.format(database=database) for word in words))
    assert outcome.status == (1 if words else 2)
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1
    assert not Path("nowhere").exists()


def test_a_directory_that_another_process_writes_to_can_be_read_and_not_checked(vecdb_command, database):
    program = (
        f"import sys, vecdb\nwith vecdb.open({str(database)!r}):\n    print('open', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        stats = vecdb_command("stats", database, "--json").json
        hits = vecdb_command("search", database, "docs", "--id", 3, "--json").json["hits"]
        outcome = vecdb_command("check", database)
        assert holder.stdin is not None
        holder.stdin.close()
    assert outcome.status == 1
    assert str(holder.pid) in outcome.err
    assert stats["docs"]["points"] == 40
    assert len(hits) == 10


def test_check_of_a_sound_and_of_a_damaged_database(vecdb_command, database):
    assert vecdb_command("check", database).status == 0
    assert vecdb_command("check", database, "--json").json["ok"] is True
    with vecdb.open(database) as opened:
        opened.collection("docs").flush()
    assert vecdb_command("check", database).status == 0
    largest = max(
        (path for path in (database / "collections").rglob("*") if path.suffix != ".mdb" and path.is_file()), key=_size
    )
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    largest.write_bytes(content)
    outcome = vecdb_command("check", database)
    assert outcome.status == 1
    assert largest.name in outcome.out
    damaged = vecdb_command("check", database, "--json")
    assert damaged.status == 1
    assert damaged.json["ok"] is False
    assert any(largest.name in problem["file"] + problem["message"] for problem in damaged.json["problems"])


def _size(path: Path) -> int:
    return path.stat().st_size


@pytest.mark.parametrize("name", ["nowhere", "a-file", "foreign"])
def test_check_of_what_is_no_database(vecdb_command, tmp_path, name):
    (tmp_path / "a-file").write_text("text")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "letter.txt").write_text("dear")
    outcome = vecdb_command("check", tmp_path / name)
    assert outcome.status != 0
    assert outcome.out + outcome.err != ""
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["letter.txt"]


def test_compact_says_what_it_would_reclaim_and_does_it(vecdb_command, database):
    with vecdb.open(database) as opened:
        opened.collection("docs").flush()
        opened.collection("docs").delete(list(range(6)))
        opened.collection("docs").flush()
        points = opened.collection("docs").count()
    forecast = vecdb_command("compact", database, "docs", "--dry-run", "--json").json["docs"]
    assert forecast["rows_dropped"] > 0
    assert "would be dropped" in vecdb_command("compact", database, "--dry-run").out
    done = vecdb_command("compact", database, "--json").json["docs"]
    assert done["rows_dropped"] == forecast["rows_dropped"]
    assert done["segments_after"] == 1
    assert "0 were dropped" in vecdb_command("compact", database, "--purge").out
    assert vecdb_command("stats", database, "docs", "--json").json["docs"]["points"] == points
    assert vecdb_command("compact", database, "--purge", "--dry-run").status == 2


def test_snapshots_are_taken_listed_and_dropped(vecdb_command, database):
    assert "docs has no snapshots" in vecdb_command("snapshot", database, "docs").out
    taken = vecdb_command("snapshot", database, "docs", "--create", "monday", "--json").json["snapshots"]
    assert [each["name"] for each in taken] == ["monday"]
    assert "monday: taken 20" in vecdb_command("snapshot", database, "docs").out
    assert vecdb_command("snapshot", database, "docs", "--create", "monday").status == 1
    assert vecdb_command("snapshot", database, "docs", "--drop", "monday", "--json").json == {"snapshots": []}
    assert vecdb_command("snapshot", database).status == 2


def test_version_says_what_matters(vecdb_command):
    facts = vecdb_command("version", "--json").json
    assert facts["vecdb"] == vecdb.__version__
    assert facts["format"] >= 1
    assert {"numpy", "numba", "lmdb", "grpcio"} <= set(facts["packages"])
    assert facts["kernels"].startswith("cpu/")
    readable = vecdb_command("version").out
    assert vecdb.__version__ in readable
    assert max(map(len, readable.splitlines())) <= 80


def test_warmup_compiles_and_says_where(vecdb_command):
    facts = vecdb_command("warmup", "--json").json
    assert facts["kernels"]
    assert all(kernel["seconds"] >= 0 for kernel in facts["kernels"])
    outcome = vecdb_command("warmup")
    assert outcome.status == 0
    assert f"of {len(facts['kernels'])} kernels" in outcome.out
    if facts["directory"]:
        assert facts["directory"] in outcome.out


def test_warmup_reads_what_searches_of_a_database_look_at(vecdb_command, database):
    with vecdb.open(database) as opened:
        opened.collection("docs").flush()
    report = vecdb_command("warmup", str(database), "--with-vectors", "--json").json["docs"]
    assert report["segments"] >= 1
    assert report["resident_bytes"] > 0
    assert report["left_out_bytes"] == 0
    assert report["kernels"] > 0
    assert "docs: " in vecdb_command("warmup", str(database), "docs").out
    assert vecdb_command("warmup", str(database), "other").status != 0


def test_serve_answers_search_and_stats_until_a_signal(vecdb_command, database, vectors):
    command = [sys.executable, "-m", "vecdb", "serve", str(database), "--address", "127.0.0.1:0", "--no-warm-up"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[-1]
            assert address.startswith("127.0.0.1:")
            assert vecdb_command("stats", "--connect", address, "docs", "--json").json["docs"]["points"] == 40
            query = json.dumps(vectors[11].tolist())
            found = vecdb_command("search", "--connect", address, "docs", "--vector", query, "-k", 3, "--json").json
            assert found["hits"][0]["id"] == 11
            missing = vecdb_command("search", "--connect", address, "nothing", "--vector", "[1]")
            assert missing.status == 1
            assert "nothing" in missing.err
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=60) == 0
        assert server.stderr is not None
        lines = server.stderr.read().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} (INFO|WARNING) ", line) for line in lines), lines
    assert "starting" in lines[0]
    assert "stopped" in lines[-1]


def test_a_line_of_the_log_stays_one_line():
    record = logging.LogRecord("vecdb", logging.WARNING, "", 0, "event collection=%s", ("a\nb\x1b[31m退",), None)
    line = serve.LineFormatter().format(record)
    assert line.endswith("WARNING event collection=a\\nb\\x1b[31m退")


def test_the_log_is_left_as_it_was(vecdb_command, tmp_path, monkeypatch):
    logger = logging.getLogger("vecdb")
    before = logger.level, list(logger.handlers)

    def run_server(options):
        logger.info("seen")
        return 0

    monkeypatch.setattr("vecdb.service.run_server", run_server)
    outcome = vecdb_command("serve", tmp_path / "kb")
    assert outcome.status == 0
    assert outcome.err.splitlines()[-1].endswith("INFO seen")
    assert (logger.level, logger.handlers) == before


def test_serve_refuses_an_open_address_without_tls(vecdb_command, tmp_path):
    outcome = vecdb_command("serve", tmp_path / "kb", "--address", "0.0.0.0:0")
    assert outcome.status == 1
    assert "insecure" in outcome.err
    assert vecdb_command("serve").status == 2


def _report(*, lost_rows: int = 0, recall: float = 1.0, asked: int = 1_000, passages: int = 900) -> DemoReport:
    measures = Measures(300, recall, 0.1, 0.2, 1000.0, 2000.0)
    crash = CrashReport(1, 20, 20, lost_rows, 0, 0, "none", 0.5, 0.1)
    return DemoReport("p", "passages", asked, passages, 0.0, {}, 1.0, {}, measures, 1, {}, 0, crash)


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({}, 0),
        ({"lost_rows": 1}, 1),
        ({"recall": 0.95}, 0),
        ({"recall": 0.949}, 1),
        ({"asked": 24_000, "passages": 20_000}, 0),
        ({"asked": 24_000, "passages": 19_999}, 1),
        ({"asked": 20_299, "passages": 19_999}, 0),  # fewer were asked for than would be enough
    ],
)
def test_demo_fails_if_it_does_not_show_what_it_is_to_show(vecdb_command, monkeypatch, tmp_path, facts, status):
    seen = []

    def run(options, screen):
        seen.append((options, screen))
        return _report(**facts)

    monkeypatch.setattr("vecdb.demo.run.run", run)
    outcome = vecdb_command("demo", "--path", tmp_path / "d", "--rows", 1234, "--no-keep", "--json")
    assert outcome.status == status
    assert outcome.json["ok"] is (status == 0)
    options, screen = seen[0]
    assert (options.path, options.rows, options.keep) == (tmp_path / "d", 1234, False)
    assert isinstance(screen, terminal.SilentScreen)
    assert vecdb_command("demo", "--path", tmp_path / "d").status == status
    assert isinstance(seen[1][1], terminal.Terminal)
    assert demo.EXIT_NOT_SHOWN == 1


def test_demo_refuses_absurd_rows(vecdb_command, tmp_path):
    outcome = vecdb_command("demo", "--path", tmp_path / "d", "--rows", 3)
    assert outcome.status == 2
    assert "rows must be" in outcome.err
    assert not (tmp_path / "d").exists()


def test_bench_is_reachable(vecdb_command):
    outcome = vecdb_command("bench", "--help")
    assert outcome.status == 0
    assert "--dataset" in outcome.out


def test_terminal_wraps_and_never_lets_stored_text_steer(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    shown = terminal.Terminal()
    from vecdb.demo.screen import Answer

    shown.heading("Heading")
    shown.say("word " * 60)
    shown.facts([("name", "value " * 30), ("longer name", "v")])
    shown.answers("question?", [Answer(0.5, "title\x1b[31m" * 9, "text \x07 " * 40)], note="where x")
    shown.answers("nothing?", [])
    shown.commands(["vecdb demo"])
    with shown.bar("label", 10, "rows") as bar, shown.bar("other", None, "rows") as other:
        bar.advance(3)
        other.note("x")
    captured = capsys.readouterr()
    assert captured.err == ""
    assert max(map(len, captured.out.splitlines())) <= 60
    assert "\x1b" not in captured.out
    assert "\x07" not in captured.out


class _Screenlike:
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return True


def test_bars_show_rate_and_time_left_on_a_terminal(monkeypatch):
    screen = _Screenlike()
    monkeypatch.setattr(sys, "stderr", screen)
    with terminal.ProgressBar("label", 4000, "rows", 80) as bar:
        for _ in range(4):
            bar.advance(1000)
            bar._bar.refresh()
    with terminal.ProgressBar("other", None, "rows", 80) as bar, contextlib.suppress(ValueError):
        bar.advance(5)
        bar.note("now")
        bar._bar.refresh()
    assert "4.00k/4.00k" in screen.text
    assert " left" in screen.text
    assert "rows/s" in screen.text
    assert ", now" in screen.text


def test_colours_only_on_a_terminal_and_not_against_the_users_will(monkeypatch):
    screen = _Screenlike()
    monkeypatch.setattr(sys, "stdout", screen)
    terminal.Terminal().heading("x")
    assert "\x1b[1m" in screen.text
    monkeypatch.setenv("NO_COLOR", "1")
    screen.text = ""
    terminal.Terminal().heading("x")
    assert "\x1b" not in screen.text


def test_live_recall_is_told_in_words():
    told = _live_recall(LiveRecall("text", 0.95, 0.5, 0.9412, 0.93, 0.95, 1234, 1.5))
    assert told == (
        "found for recall 0.95 in 'text', about 50% of the rows allowed",
        "0.941 (0.930 to 0.950; 1,234 checked)",
    )
    assert _live_recall(LiveRecall("", 0.0, 1.0, 1.0, 0.9, 1.0, 9, 1.0))[0] == "found for a given ef"
