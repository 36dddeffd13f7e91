"""Ratios within rounds, the JSON document, and the tables."""

import json

import pytest

from vecdb.bench.plan import BenchPlan
from vecdb.bench.report import aligned, table, write_json
from vecdb.bench.result import EngineResult, RunResult, Turn

PLAN = BenchPlan(dataset="none", engines=("vecdb-index", "hnswlib", "faiss-flat"), modes=("batch",), rounds=3)


def engine(name, curves, **known):
    """``curves``: for each round, recall -> QPS."""
    result = EngineResult(name, f"about {name}", "1.0", started=True, **known)
    for curve in curves:
        for effort, (recall, qps) in enumerate(curve.items(), 10):
            result.point("batch", effort).turns.append(Turn(qps=qps, recall=recall, busy=1.0))
    return result


def run_of(*engines):
    return RunResult(
        plan=PLAN,
        dataset={
            "name": "set", "source": "test", "rows": 1_000, "dim": 8, "metric": "l2", "queries": 5,
            "truth": "computed", "digest": "0", "intrinsic_dimension": None,
        },
        machine={"cpu_model": "CPU", "cores": 2},
        versions={"numpy": "2"},
        commit=None,
        taken_at="2026-01-01T00:00:00+00:00",
        load_before=[0.0, 0.0, 0.0],
        load_after=[0.0, 0.0, 0.0],
        engines=list(engines),
    )  # fmt: skip


# The machine was twice as fast in the second round, for both: the ratio must not see it.
REFERENCE = engine(
    "hnswlib", [{0.85: 1_000.0, 0.97: 100.0}, {0.85: 2_000.0, 0.97: 200.0}, {0.85: 1_000.0, 0.97: 100.0}]
)
FASTER = engine(
    "vecdb-index", [{0.85: 3_000.0, 0.97: 300.0}, {0.85: 6_000.0, 0.97: 600.0}, {0.85: 4_000.0, 0.97: 400.0}]
)


def test_ratios_are_taken_within_rounds():
    run = run_of(FASTER, REFERENCE)
    ratio = run.ratio(FASTER, "batch", 0.95)
    assert (ratio.least, ratio.median, ratio.most) == pytest.approx((3.0, 3.0, 4.0))
    assert run.ratio(REFERENCE, "batch", 0.95).median == pytest.approx(1.0)


def test_points_are_medians_over_rounds():
    assert [point.qps for point in REFERENCE.points] == [1_000.0, 100.0]
    assert [point.qps for point in FASTER.points] == [4_000.0, 400.0]


def test_no_ratio_where_a_curve_does_not_reach():
    run = run_of(FASTER, REFERENCE)
    assert run.ratio(FASTER, "batch", 0.99) is None
    assert run.at_recall(FASTER, "batch", 0.99) is None


def test_no_ratio_to_a_reference_that_lies_above_the_recall():
    run = run_of(FASTER, REFERENCE)
    assert run.ratio(FASTER, "batch", 0.80) is None
    assert run.at_recall(FASTER, "batch", 0.80).lower_bound


def test_no_ratio_without_the_reference():
    failed = engine("hnswlib", [])
    failed.error = "broken"
    run = run_of(FASTER, failed)
    assert run.ratio(FASTER, "batch", 0.95) is None
    assert "hnswlib: left out: broken" in table(run)


def test_the_document_holds_every_round_and_is_strict_json(tmp_path):
    write_json(run_of(FASTER, REFERENCE), tmp_path / "run.json")
    document = json.loads((tmp_path / "run.json").read_text(), parse_constant=pytest.fail)
    assert document["format"] == "vecdb-bench/1"
    assert document["parameters"]["k"] == 10
    assert document["commit"] is None
    faster = document["engines"][0]
    assert [turn["qps"] for turn in faster["points"][0]["turns"]] == [3_000.0, 6_000.0, 4_000.0]
    assert faster["points"][0]["qps_best"] == 6_000.0
    assert faster["at_recall"]["batch"]["0.99"] is None
    assert faster["at_recall"]["batch"]["0.95"]["ratio"]["median"] == pytest.approx(3.0)
    assert faster["memory_bytes"] is None


def test_the_table_says_what_is_not_known():
    slow = engine(
        "faiss-flat", [{1.0: 50.0}] * 3, build_seconds=2.0, anonymous_bytes=3_000_000, own_file_bytes=1_000_000
    )
    text = table(run_of(FASTER, REFERENCE, slow))
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line}
    assert rows["faiss-flat"][1:4] == [">=50", ">=50", ">=50"]
    costs = next(line.split() for line in text.splitlines() if line.startswith("faiss-flat"))
    assert costs[1:5] == ["2.0", "500", "4", "-"]
    assert rows["vecdb-index"][3] == "-"


def test_a_disturbed_run_says_so():
    noisy = EngineResult("vecdb-index", "x", "1", started=True)
    noisy.point("batch", 10).turns.extend([Turn(1.0, 1.0, 0.99), Turn(1.0, 1.0, 0.5)])
    assert noisy.disturbed == 0.5
    assert "50% of its turns" in table(run_of(noisy))


def test_a_served_engine_is_never_called_disturbed():
    served = EngineResult("vecdb-served", "x", "1", started=True)
    served.point("batch", 10).turns.append(Turn(1.0, 1.0, None))
    assert served.disturbed == 0.0


def test_aligned_cells():
    assert aligned([["a", "b"], ["long", "12"]]) == "a      b\n----  --\nlong  12"
