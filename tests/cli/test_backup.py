"""backup and restore from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import vecdb
from tests.cli.conftest import ROWS


def test_a_backup_is_written_verified_and_restored(vecdb_command, database: Path, tmp_path: Path):
    first = vecdb_command("backup", database, tmp_path / "a.vbak", "--json")
    assert first.status == 0
    assert [(each["name"], each["points"]) for each in first.json["collections"]] == [("docs", ROWS), ("empty", 0)]
    later = vecdb_command("backup", database, tmp_path / "b.vbak", "--since", tmp_path / "a.vbak")
    assert later.status == 0
    assert "in earlier backups" in " ".join(later.out.split())
    told = vecdb_command("backup", "--verify", tmp_path / "a.vbak", tmp_path / "b.vbak", "--json").json
    assert told["ok"] is True
    assert told["needs"] == [first.json["manifest_sha256"]]
    assert f"{ROWS} points" in vecdb_command("backup", "--verify", tmp_path / "a.vbak").out
    restored = vecdb_command("restore", tmp_path / "a.vbak", tmp_path / "b.vbak", tmp_path / "r", "--json")
    assert restored.status == 0
    assert restored.json["collections"][0]["points"] == ROWS
    assert vecdb_command("check", tmp_path / "r").status == 0
    assert f"{ROWS} points" in vecdb_command("restore", tmp_path / "a.vbak", tmp_path / "r2").out


def test_a_backup_goes_to_standard_output(database: Path, tmp_path: Path):
    command = [sys.executable, "-m", "vecdb", "backup", str(database), "-"]
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(b"backed up 2 collections")
    (tmp_path / "a.vbak").write_bytes(done.stdout)
    assert vecdb.verify_backup(tmp_path / "a.vbak").files


def test_a_reader_that_goes_away(database: Path):
    command = [sys.executable, "-m", "vecdb", "backup", str(database), "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(120) == 141


def test_wrong_usage_and_wrong_files(vecdb_command, database: Path, tmp_path: Path):
    good = tmp_path / "a.vbak"
    vecdb_command("backup", database, good)
    damaged = tmp_path / "damaged.vbak"
    content = bytearray(good.read_bytes())
    content[content.index(b"VECDBARR") + 100] ^= 1
    damaged.write_bytes(content)
    for words, status, message in (
        (["backup", database], 2, "one file"),
        (["backup", database, "-", "--json"], 2, "--json"),
        (["backup", "--verify"], 2, "name the backup file"),
        (["backup", tmp_path / "nothing", tmp_path / "b.vbak"], 1, "no database"),
        (["backup", database, good], 1, "exists"),
        (["backup", "--verify", damaged], 1, "SHA-256"),
        (["restore", damaged, tmp_path / "r"], 1, "SHA-256"),
        (["restore", good, database], 1, "not empty"),
        (["restore", tmp_path / "nothing", tmp_path / "r"], 1, "no file"),
        (["restore", good], 2, "required"),
    ):
        outcome = vecdb_command(*words)
        assert outcome.status == status, outcome
        assert message in outcome.err
    error = json.loads(vecdb_command("backup", "--verify", damaged, "--json").err)["error"]
    assert (error["code"], error["field"]) == ("CORRUPTION", str(damaged))
    assert not (tmp_path / "r").exists()


def test_a_restore_as_of_a_write_and_of_a_moment(vecdb_command, tmp_path: Path):
    archive = tmp_path / "logs"
    with vecdb.open(tmp_path / "db", options=vecdb.EngineOptions(log_archive=archive)) as opened:
        docs = opened.create_collection("docs", dim=2)
        opened.backup(tmp_path / "a.vbak")
        docs.upsert([1], [[1.0, 2.0]])
        moment = datetime.now(UTC).isoformat()
        docs.upsert([2], [[2.0, 1.0]])
        docs.flush()
    chosen = ("--log-archive", archive, "--json")
    for name, until, points in (
        ("seq", ("--until-seq", 1), 1),
        ("named", ("--until-seq", 1, "--collection", "docs"), 1),
        ("time", ("--until-time", moment), 1),
        ("all", (), 2),
    ):
        outcome = vecdb_command("restore", tmp_path / "a.vbak", tmp_path / name, *until, *chosen)
        assert outcome.status == 0, outcome
        assert (outcome.json["collections"][0]["points"], outcome.json["collections"][0]["replayed"]) == (
            points,
            points,
        )
    readable = vecdb_command("restore", tmp_path / "a.vbak", tmp_path / "told", "--log-archive", archive)
    assert "2 writes of them from the log archive" in readable.out
    for until, status in ((("--until-seq", 3), 1), (("--until-time", "yesterday"), 2), (("--collection", "docs"), 2)):
        assert vecdb_command("restore", tmp_path / "a.vbak", tmp_path / "r", *until, *chosen).status == status
    assert not (tmp_path / "r").exists()


def test_a_log_archive_is_pruned(vecdb_command, tmp_path: Path):
    archive, backup = tmp_path / "logs", tmp_path / "a.vbak"
    with vecdb.open(tmp_path / "db", options=vecdb.EngineOptions(log_archive=archive)) as opened:
        docs = opened.create_collection("docs", dim=2)
        for number in range(3):
            docs.upsert([number], [[1, number]])
            docs.flush()
        opened.backup(backup)
        docs.upsert([3], [[1, 3]])
        docs.flush()
    prune = ["backup", "--prune-archive", archive, "--keep-since", backup]
    files = sorted(archive.rglob("*.log"))
    assert len(files) == 4
    assert "3 log files" in vecdb_command(*prune, "--dry-run").out
    assert sorted(archive.rglob("*.log")) == files
    freed = sum(path.stat().st_size for path in files[:3])
    told = vecdb_command(*prune, "--json").json
    assert (told["dry_run"], told["files"], told["size_bytes"]) == (False, 3, freed)
    assert sorted(archive.rglob("*.log")) == files[3:]
    assert "0 log files" in vecdb_command(*prune).out
    restored = vecdb_command("restore", backup, tmp_path / "r", "--log-archive", archive, "--json")
    assert restored.json["collections"][0]["points"] == 4
    for words, status, message in (
        (["backup", "--prune-archive", archive], 2, "--keep-since"),
        ([*prune, "more"], 2, "only"),
        (["backup", tmp_path / "db", tmp_path / "b.vbak", "--dry-run"], 2, "--prune-archive"),
        (["backup", "--prune-archive", tmp_path / "db", "--keep-since", backup], 1, "no log archive"),
    ):
        outcome = vecdb_command(*words)
        assert outcome.status == status, outcome
        assert message in outcome.err
