"""``vecdb bench`` from its arguments to its files, on a set that takes seconds."""

import argparse
import json
import os
from pathlib import Path

import pytest

from vecdb.bench.command import add_arguments, plan_of, run
from vecdb.bench.engines import BY_NAME, missing
from vecdb.bench.plan import EFFORTS_QUICK, BenchPlan
from vecdb.errors import FailedPrecondition, InvalidArgument, NotFound

# Enough to meet every kind: with a database, with effort, exact. test_engines has the others.
ENGINES = [name for name in ("vecdb", "vecdb-index", "hnswlib", "faiss-flat") if missing(BY_NAME[name]) is None]
PEERS = [name for name in ("hnswlib", "faiss-flat") if name in ENGINES]

PNG = b"\x89PNG\r\n\x1a\n"

TINY = [
    "--dataset",
    "clustered-16-cosine-500",
    "--queries",
    "20",
    "--efforts",
    "10,40",
    "--rounds",
    "2",
    "--seconds-min",
    "0",
]


def parsed(*words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_from_arguments_to_files(tmp_path, capsys):
    out = tmp_path / "out"
    status = run(parsed(*TINY, "--engines", ",".join(ENGINES), "--out", str(out), "--scratch", str(tmp_path)))
    said = capsys.readouterr()
    assert status == 0
    assert said.err == ""  # no progress where nobody watches
    (json_path,), (png_path,) = out.glob("*.json"), out.glob("*.png")
    assert png_path.read_bytes().startswith(PNG)
    assert str(json_path) in said.out
    document = json.loads(json_path.read_text())
    assert [engine["name"] for engine in document["engines"]] == ENGINES
    assert document["dataset"]["rows"] == 500
    assert document["dataset"]["truth"] == "computed"
    assert document["parameters"]["core"] == max(os.sched_getaffinity(0))
    assert {"cpu_model", "cores", "load_before", "load_after"} <= set(document["machine"])
    assert document["versions"]["vecdb"]
    for engine in document["engines"]:
        assert engine["error"] is None
        assert engine["build_seconds"] > 0
        assert engine["disk_bytes"] > 0
        efforts = [None] if BY_NAME[engine["name"]].exact else [10, 40]
        assert [(point["mode"], point["effort"]) for point in engine["points"]] == [
            (mode, effort) for mode in ("single", "batch") for effort in efforts
        ]
        for point in engine["points"]:
            assert len(point["turns"]) == 2
            assert point["qps"] > 0
            assert point["recall"] > 0.8
        assert engine["name"] in said.out
    assert not list(tmp_path.glob("vecdb-bench-*"))
    # Nothing that tells whose machine it was.
    assert str(tmp_path) not in json_path.read_text()
    assert f'"{os.uname().nodename}"' not in json_path.read_text()


@pytest.mark.skipif(len(PEERS) < 2, reason="hnswlib or faiss-cpu is not installed")
def test_json_goes_to_standard_output(tmp_path, capsys):
    out = tmp_path / "out"
    assert run(parsed(*TINY, "--engines", ",".join(PEERS), "--modes", "batch", "--json", "--out", str(out))) == 0
    (path,) = out.glob("*.json")
    assert json.loads(capsys.readouterr().out) == json.loads(path.read_text())


@pytest.mark.skipif(len(PEERS) < 2, reason="hnswlib or faiss-cpu is not installed")
def test_an_engine_that_fails_is_left_out_and_the_others_go_on(tmp_path, capsys, monkeypatch):
    # The measuring process of hnswlib finds a library that cannot be imported.
    (tmp_path / "hnswlib.py").write_text("raise RuntimeError('broken on purpose')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    status = run(parsed(*TINY, "--engines", ",".join(PEERS), "--modes", "batch", "--out", str(tmp_path / "out")))
    assert status == 1
    (path,) = (tmp_path / "out").glob("*.json")
    failed, fine = json.loads(path.read_text())["engines"]
    assert "broken on purpose" in failed["error"]
    assert fine["error"] is None
    assert fine["points"]
    assert "hnswlib: left out" in capsys.readouterr().out


def test_a_missing_package_is_reported_and_is_no_failure_of_the_others(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("vecdb.bench.run.missing", lambda entry: "not here" if entry.name != "vecdb-index" else None)
    assert run(parsed(*TINY, "--engines", "usearch,vecdb-index", "--modes", "batch", "--out", str(tmp_path))) == 0
    assert "usearch: left out: not here" in capsys.readouterr().out


def test_the_list_names_every_engine(capsys):
    assert run(parsed("--list")) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(BY_NAME)


def test_options_win_over_quick_and_quick_over_the_sweep(tmp_path):
    sweep = tmp_path / "sweep.toml"
    sweep.write_text(
        'dataset = "random-8-l2-1k"\nrounds = 9\nk = 5\nefforts = [11, 12]\nengines = ["hnswlib"]\nseed = 4\n'
    )
    plan = plan_of(parsed("--sweep", str(sweep), "--k", "7"))
    assert (plan.dataset, plan.rounds, plan.k, plan.seed) == ("random-8-l2-1k", 9, 7, 4)
    assert plan.engines == ("hnswlib",)
    assert plan.efforts == (11, 12)
    quick = plan_of(parsed("--sweep", str(sweep), "--quick", "--rounds", "2"))
    assert (quick.rounds, quick.efforts, quick.k) == (2, EFFORTS_QUICK, 5)


def test_pinning():
    assert plan_of(parsed()).core == max(os.sched_getaffinity(0))
    assert plan_of(parsed("--pin", "none")).core is None
    first = min(os.sched_getaffinity(0))
    assert plan_of(parsed("--pin", str(first))).core == first


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["--engines", "nosuch"], "engines"),
        (["--k", "0"], "k"),
        (["--rounds", "0"], "rounds"),
        (["--efforts", "0,10"], "efforts"),
        (["--modes", "sideways"], "modes"),
        (["--pin", "100000"], "core"),
        (["--seconds-min", "-1"], "seconds_min"),
        (["--dataset", "nosuch"], "dataset"),
    ],
)
def test_wrong_options_name_the_field(tmp_path, words, field):
    with pytest.raises(InvalidArgument) as caught:
        run(parsed(*words, "--out", str(tmp_path)))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "text",
    ["rounds = 'many'", "k = true", "efforts = ['a']", "engines = [1]", "colour = 1", "not TOML at all", "k = 1.5"],
)
def test_a_wrong_sweep_file_is_refused(tmp_path, text):
    (tmp_path / "sweep.toml").write_text(text)
    with pytest.raises(InvalidArgument):
        plan_of(parsed("--sweep", str(tmp_path / "sweep.toml")))


def test_a_missing_sweep_file_is_not_found(tmp_path):
    with pytest.raises(NotFound):
        plan_of(parsed("--sweep", str(tmp_path / "none.toml")))


def test_a_place_that_cannot_be_written_is_told_before_the_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedPrecondition) as caught:
        run(parsed(*TINY, "--out", str(tmp_path / "file" / "out")))
    assert caught.value.field == "out"


def test_efforts_below_k_are_not_measured():
    assert BenchPlan("x", k=20, efforts=(10, 20, 30)).usable_efforts == (20, 30)
    assert BenchPlan("x", k=50, efforts=(10, 20)).usable_efforts == (50,)


@pytest.mark.parametrize(
    "sweep", sorted((Path(__file__).parents[2] / "bench" / "sweeps").glob("*.toml")), ids=lambda path: path.stem
)
def test_the_sweeps_that_come_with_vecdb_are_valid(sweep):
    assert plan_of(parsed("--sweep", str(sweep))).rounds > 1


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--efforts", "a", "must be whole numbers with commas, as in 10,40,160; got 'a'"),
        ("--pin", "first", "must be the number of a core, 'last' or 'none'; got 'first'"),
    ],
)
def test_a_wrong_value_is_told_to_a_person(capsys, option, value, said):
    with pytest.raises(SystemExit):
        parsed(option, value)
    assert said in capsys.readouterr().err
