"""The table of promises: which test guards which promise, the points it ran, how many failed, how long it took.

A test notes its points by the fixture ``trust``; they travel with its report, so that a failed test is in the table
too. At the end of the run the table is printed, and written where ``--trust-report`` says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

PROPERTY = "trust"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    promise
        Its number in ``docs/guarantees.md``.
    points
        Faults injected, or comparisons made.
    failures
        Points at which the promise was broken.
    seconds
        How long it took; where a test notes several lines, its time is divided evenly among them.
    told
        What else is to be said.
    """

    promise: str
    test: str
    points: int
    failures: int
    seconds: float
    told: str = ""


class Trust:
    """What a test notes for the table.

    Attributes
    ----------
    seed
        Of ``--seed``: what the long runs begin with.
    share
        Of ``--share``: the part of the long sizes that is run.
    """

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._properties = request.node.user_properties
        self.seed: int = request.config.getoption("--seed")
        self.share: float = request.config.getoption("--share")

    def points(self, promises: str, points: int, failures: int = 0, told: str = "") -> None:
        """Note points of one or more promises ("P1 P2"); before the assertion that may end the test."""
        for promise in promises.split():
            noted = {"promise": promise, "points": points, "failures": failures, "told": told}
            self._properties.append((PROPERTY, noted))

    def sized(self, count: int) -> int:
        """``count`` of a long run, or the share of it that was asked for."""
        return max(1, round(count * self.share))


@pytest.fixture
def trust(request: pytest.FixtureRequest) -> Trust:
    """The table of promises."""
    return Trust(request)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("trust", "the table of promises")
    group.addoption("--seed", type=int, default=0, help="what the long runs draw their points from")
    group.addoption("--share", type=float, default=1.0, help="the share of the long sizes to run, for a first look")
    group.addoption("--trust-report", type=Path, help="write the table to this file: .json, or else Markdown")


def rows(reports: Mapping[str, list[Any]]) -> list[Row]:
    """The lines of the table, from the reports of a run: one for each test function, or for each thing it tells."""
    found: dict[tuple[str, str, str], Row] = {}
    for outcome in ("passed", "failed"):
        for report in reports.get(outcome, ()):
            noted = [value for name, value in report.user_properties if name == PROPERTY]
            if report.when != "call":
                continue
            test = report.nodeid.removeprefix("tests/").partition("[")[0]
            for each in noted:
                # A test that fails for another reason than a point counts as one.
                failures = each["failures"] or int(outcome == "failed" and each is noted[-1])
                key = (each["promise"], test, each["told"])
                row = found.get(key, Row(each["promise"], test, 0, 0, 0.0, each["told"]))
                found[key] = replace(
                    row,
                    points=row.points + each["points"],
                    failures=row.failures + failures,
                    seconds=row.seconds + report.duration / len(noted),
                )
    return sorted(found.values(), key=lambda row: (len(row.promise), row.promise, row.test, row.told))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found = rows(terminalreporter.stats)
    if not found:
        return
    terminalreporter.section("promises")
    terminalreporter.write_line(f"{'':4} {'points':>8} {'failures':>8} {'seconds':>8}  test")
    for row in found:
        terminalreporter.write_line(
            f"{row.promise:4} {row.points:8} {row.failures:8} {row.seconds:8.1f}  {row.test}"
            + (f"  ({row.told})" if row.told else "")
        )
    target: Path | None = config.getoption("--trust-report")
    if target is not None:
        target.write_text(_as_json(found) if target.suffix == ".json" else _as_markdown(found))
        terminalreporter.write_line(f"written to {target}")


def _as_json(found: list[Row]) -> str:
    return json.dumps([asdict(row) for row in found], indent=1, ensure_ascii=False) + "\n"


def _as_markdown(found: list[Row]) -> str:
    lines = ["| promise | test | points | failures | seconds |", "|---|---|---|---|---|"]
    for row in found:
        told = f": {row.told}" if row.told else ""
        lines.append(f"| {row.promise} | `{row.test}`{told} | {row.points:,} | {row.failures} | {row.seconds:.1f} |")
    return "\n".join(lines) + "\n"
