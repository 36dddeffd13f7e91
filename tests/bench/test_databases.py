"""``vecdb bench --kind databases``: loaded, opened again, searched with filters, and what is said of wrong answers."""

import json

import numpy as np
import pytest

from tests.bench.small import QUERIES, ROWS, K, small_dataset
from tests.bench.test_command import parsed
from vecdb.bench.command import plan_of, run
from vecdb.bench.database_report import database_table
from vecdb.bench.database_worker import DatabaseWorker, ForgivingCalls
from vecdb.bench.databases import DatabaseResult, FilterTruth, filtered, least_effort
from vecdb.bench.engines import DATABASES, missing
from vecdb.bench.engines.database import BATCH_ROWS, BUCKETS, batches_of, buckets_of
from vecdb.bench.engines.protocol import Bound
from vecdb.bench.plan import BenchPlan
from vecdb.bench.result import RunResult, Turn
from vecdb.bench.turns import EngineFailed, EngineProcess
from vecdb.bench.worker import time_single
from vecdb.errors import InvalidArgument
from vecdb.types import Metric

# It walks its graph as if there were no filter and leaves out what does not match: most answers are short.
FILTERED_RECALL_MIN = {"milvus-lite": 0.0}

TINY = (
    "--kind", "databases", "--dataset", "clustered-16-cosine-1500", "--queries", "20", "--efforts", "20,80",
    "--rounds", "1", "--seconds-min", "0", "--filters", "4,300", "--pin", "none",
)  # fmt: skip


def checked(tmp_path, name):
    """Run one database on a tiny set; its document."""
    out = tmp_path / "out"
    assert run(parsed(*TINY, "--engines", name, "--out", str(out), "--scratch", str(tmp_path))) == 0
    (path,) = out.glob("databases-*.json")
    (engine,) = json.loads(path.read_text())["engines"]
    assert engine["error"] is None
    assert 0 < engine["insert_seconds"] < engine["build_seconds"]
    assert engine["disk_bytes"] > 1_500 * 16 * 4
    assert len(engine["cold_seconds"]) == 1
    assert engine["memory_bytes"] > 0
    assert not list(tmp_path.glob("vecdb-bench-*"))
    modes = {point["mode"]: point for point in engine["points"]}
    assert modes["single"]["recall"] > 0.9
    for below in (4, 300):
        (turn,) = modes[filtered(below)]["turns"]
        assert (turn["asked"], turn["errors"]) == (20, 0)
        assert turn["recall"] >= FILTERED_RECALL_MIN.get(name, 0.9)
    return engine


class InThisProcess:
    """Obeys as a process of its own would, without the second that starting one takes."""

    def __init__(self, name, directory, **_):
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.verbs = DatabaseWorker().verbs()

    def ask(self, do, **arguments):
        return json.loads(json.dumps(self.verbs[do]({"do": do, **arguments})))

    def close(self):
        self.ask("close")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def test_vecdb_is_loaded_opened_again_and_searched(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("vecdb.bench.databases.EngineProcess", InThisProcess)
    engine = checked(tmp_path, "vecdb")
    assert engine["durable"]
    # Six of 1,500 rows match the first filter, fewer than k: all of them are a complete answer.
    assert [turn["short"] for point in engine["points"] for turn in point["turns"]] == [0] * 5
    said = capsys.readouterr().out
    assert "durable" in said
    assert "0.4 % match" in said


@pytest.mark.slow
@pytest.mark.parametrize("entry", DATABASES, ids=lambda entry: entry.name)
def test_a_database_is_loaded_opened_again_and_searched_by_processes_of_its_own(tmp_path, entry):
    reason = missing(entry)
    if reason is not None:
        pytest.skip(reason)
    checked(tmp_path, entry.name)


def test_rows_come_in_batches_and_the_field_is_uniform():
    vectors = np.arange(2_500 * 2, dtype=np.float32).reshape(2_500, 2)
    batches = list(batches_of(vectors, 7))
    assert [len(batch.ids) for batch in batches] == [BATCH_ROWS, BATCH_ROWS, 500]
    assert np.array_equal(np.concatenate([batch.vectors for batch in batches]), vectors)
    assert [bucket for batch in batches for bucket in batch.buckets] == buckets_of(2_500, 7).tolist()
    assert len({text for batch in batches for text in batch.texts}) == 2_500
    many = buckets_of(100_000, 0)
    assert (many.min(), many.max()) == (0, BUCKETS - 1)
    assert abs(np.mean(many < 100) - 0.1) < 0.005


@pytest.mark.parametrize("matches", [ROWS // 3, 4])
def test_answers_are_judged_among_the_rows_that_match(tmp_path, matches):
    dataset = small_dataset(Metric.L2, tmp_path)
    allowed = np.zeros(ROWS, np.bool_)
    allowed[np.random.default_rng(1).permutation(ROWS)[:matches]] = True
    truth = FilterTruth.of(dataset, allowed, K)
    wanted = min(K, matches)
    # The oracle: every distance, in NumPy.
    distances = np.square(dataset.raw.train[:, np.newaxis] - dataset.raw.queries).sum(axis=2).T
    right = np.argsort(np.where(allowed, distances, np.inf), axis=1)[:, :wanted]
    assert truth.judge(dataset, right) == (1.0, 0)
    # Half of the queries asked, one answer a row short, one with a row that does not match, one with a row twice.
    asked = right[: QUERIES // 2].copy()
    asked[0, -1] = -1
    asked[1, -1] = np.flatnonzero(~allowed)[0]
    asked[2, -1] = asked[2, 0]
    recall, short = truth.judge(dataset, asked)
    assert short == 3
    assert recall == pytest.approx(1 - 3 / (len(asked) * wanted))
    assert truth.judge(dataset, np.empty((5, 0), np.int64)) == (0.0, 5)


def bound_of(one):
    return Bound(one=one, all=list, few=list, rows_of_one=lambda found: found, rows_of_all=np.asarray)


def test_a_call_that_raises_is_a_counted_answer():
    def one(at):
        if at % 3 == 0:
            raise ValueError("on purpose")
        return [at]

    calls = ForgivingCalls(bound_of(one))
    _, rows = time_single(calls.bound, 10, 0.0)
    assert calls.errors == 4
    assert rows[:, 0].tolist() == [-1, 1, 2, -1, 4, 5, -1, 7, 8, -1]
    assert "on purpose" in str(calls.last)


def test_a_turn_ends_in_time_with_the_queries_asked_so_far(monkeypatch):
    now = [0]
    monkeypatch.setattr("time.perf_counter_ns", lambda: now[0])

    def one(at):
        now[0] += 10**9
        return [at]

    reply, rows = time_single(bound_of(one), 50, 1.0, 4.0)
    assert rows[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert (reply["queries"], reply["seconds"]) == (5, 5.0)


def test_a_database_that_does_not_answer_is_ended(tmp_path):
    with EngineProcess("late", tmp_path / "late", timeout_s=0.0) as process:
        with pytest.raises(EngineFailed, match="no reply to 'open' within 0 s"):
            process.ask("open")
        # Its end is known, and nothing waits for it.
        process.timeout_s = None
        with pytest.raises(EngineFailed, match="the process ended"):
            process.ask("open")


def test_a_process_that_ended_before_its_command_is_closed_like_any_other(tmp_path):
    with EngineProcess("gone", tmp_path / "gone") as process:
        own = process._process
        own.kill()
        own.wait()
        # The command stays in the pipe's buffer, which closing the pipe would write once more.
        with pytest.raises(EngineFailed, match="the process ended during 'open' with status -9"):
            process.ask("open")
    assert own.stdin.closed
    assert own.stdout.closed


def result_of(name, qps, short=0, **known):
    result = DatabaseResult(name, name, "1", started=True, insert_seconds=1.0, build_seconds=2.0, **known)
    for effort, recall in ((10, 0.9), (20, 0.96), (40, 0.99)):
        result.point("single", effort).turns.append(Turn(qps / effort, recall, 1.0, asked=100, short=0, errors=0))
    result.point(filtered(10), 20).turns.append(Turn(qps, 0.8, 1.0, asked=100, short=short, errors=0))
    return result


def test_the_table_marks_the_best_and_tells_what_is_short():
    result = RunResult(
        plan=BenchPlan("none", kind="databases", engines=("vecdb", "zvec"), modes=("single",), filters=(10,)),
        dataset={"name": "set", "rows": 1_000, "dim": 8, "metric": "l2", "queries": 100, "intrinsic_dimension": None},
        machine={"cpu_model": "CPU", "cores": 2},
        versions={},
        commit=None,
        taken_at="2026-01-01T00:00:00+00:00",
        load_before=[0.0],
        load_after=[0.0],
        engines=[
            result_of("vecdb", 5_000.0, durable=True, cold_seconds=[0.5, 0.7, 0.6]),
            result_of("zvec", 4_000.0, short=25, durable=False, cold_seconds=[0.1]),
            DatabaseResult("lancedb", "lancedb", None, error="the package lancedb is not installed"),
        ],
    )
    said = database_table(result)
    rows = [line for line in said.splitlines() if line.startswith(("vecdb ", "zvec "))]
    assert "*1,000 durable" in rows[0]
    assert "0.60" in rows[0]
    assert "*0.10" in rows[1]
    assert "*5,000 (0.800)" in rows[2]
    assert "4,000 (0.800, 25.0% short)" in rows[3]
    assert "lancedb: left out: the package lancedb is not installed" in said
    assert json.loads(json.dumps(result.document()))["engines"][0]["cold_seconds"] == [0.5, 0.7, 0.6]


def test_filters_are_asked_with_the_least_effort_that_is_enough():
    assert least_effort(result_of("zvec", 1.0)) == 20
    low = DatabaseResult("zvec", "", "1")
    low.point("single", 10).turns.append(Turn(9.0, 0.5, 1.0))
    low.point("single", 20).turns.append(Turn(5.0, 0.7, 1.0))
    assert least_effort(low) == 20


@pytest.mark.parametrize(
    ("words", "field"),
    [(["--filters", "0"], "filters"), (["--filters", "1000"], "filters"), (["--seconds-max", "0.1"], "seconds_max")],
)
def test_wrong_options_of_databases_name_the_field(words, field):
    with pytest.raises(InvalidArgument) as caught:
        plan_of(parsed(*TINY, "--seconds-min", "0.2", *words))
    assert caught.value.field == field


def test_a_name_belongs_to_its_kind():
    assert plan_of(parsed("--kind", "databases")).engines == tuple(entry.name for entry in DATABASES)
    with pytest.raises(InvalidArgument):
        plan_of(parsed("--engines", "qdrant-edge"))
