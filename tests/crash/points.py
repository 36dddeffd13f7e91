"""One point of a crash test: a crash, an inspection in a fresh process, and a verdict with all that a replay needs."""

from __future__ import annotations

import errno
import json
import shlex
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.crash.forks import ForkServer
from tests.crash.history import Reports, applied, batch
from tests.crash.observe import differences
from tests.crash.volume import Volume
from tests.crash.workload import Inspection, Plan


@dataclass(frozen=True)
class Verdict:
    """What became of one point.

    Attributes
    ----------
    point
        The command that replays it.
    problems
        What was lost, halved or wrong; empty where all is well.
    place
        The call that it was at.
    """

    point: str
    problems: list[str]
    acknowledged: int = 0
    place: str = ""
    strategies: frozenset[str] = frozenset()
    broken: bool = False
    """Whether the run itself failed, before anything could be judged."""


def replay(kind: str, plan: Plan, **facts: object) -> str:
    """The command that replays a point."""
    told = json.dumps({"plan": asdict(replace(plan, path="")), **facts})
    return f"python -m tests.crash.replay {kind} {shlex.quote(told)}"


def judged(point: str, place: str, reports: Reports, seed: int, inspection: Inspection) -> Verdict:
    """Compare what is left with what was acknowledged."""
    acknowledged = sum(reports.acknowledged.values())
    problems: list[str] = []
    if inspection.before is None:
        if reports.created:
            problems.append("the collection is gone")
        return Verdict(point, problems, acknowledged, place)
    found = [differences(inspection.before, state) for state in reports.allowed_states(seed)]
    if all(found):
        problems += [f"after the crash: {each}" for each in min(found, key=len)]
    whole = reports.state(seed)
    for each in reports.in_flight(seed):
        whole = applied(whole, each)
    if inspection.after is not None:
        problems += [f"after retrying: {each}" for each in differences(inspection.after, whole)]
    # The last acknowledged batch of each writer is handed over a second time, and must be answered and not applied.
    for (writer, told), again in zip(reports.changing_results(), inspection.retried, strict=False):
        if again != told:
            problems.append(f"writer {writer}: a retry of an applied batch gave {again}, at first it was {told}")
    if isinstance(inspection.rebuildable_seq, str):
        problems.append(inspection.rebuildable_seq)
    elif inspection.rebuildable_seq < reports.last_seq:
        problems.append(
            f"without the metadata writes after {inspection.rebuildable_seq} of {reports.last_seq} are lost"
        )
    begun = sum(reports.begun.values())
    if not reports.last_seq <= inspection.before.last_seq <= begun:
        problems.append(f"the last seq is {inspection.before.last_seq}, not {reports.last_seq} to {begun}")
    return Verdict(point, problems, acknowledged, place, frozenset(inspection.before.strategies))


def inspected(
    server: ForkServer, point: str, place: str, path: Path, plan: Plan, reports: Reports, *, twice: bool
) -> Verdict:
    """Open what a crash left and compare it."""
    # That a batch changed nothing is not remembered across a crash: repeated, it may undo what was in flight.
    retries = [batch(plan.seed, writer, reports.acknowledged[writer] - 1) for writer, _ in reports.changing_results()]
    in_flight = reports.in_flight(plan.seed)
    ended = server.call("look", str(path), plan.writers, [*retries, *in_flight], twice)
    if ended.status != 0:
        told = ended.written.decode(errors="replace").strip()
        return Verdict(point, [f"the database does not open or answer ({ended.status}): {told}"], 0, place)
    return judged(point, place, reports, plan.seed, ended.result)


def with_history(reports: Reports, plan: Plan) -> Reports:
    """The reports of a run that goes on from batch ``plan.first``, with those before."""
    for writer in range(plan.writers):
        reports.acknowledged.setdefault(writer, plan.first)
        reports.begun.setdefault(writer, plan.first)
    reports.created = reports.created or plan.first > 0
    return reports


def kill_point(
    server: ForkServer, directory: Path, plan: Plan, base: Path | None, kill_at: int, mutant: str = ""
) -> Verdict:
    """Kill a run of the plan at its ``kill_at``-th write-class call, and look."""
    point = replay("kill", plan, kill_at=kill_at, mutant=mutant)
    place = directory / f"kill-{plan.writers}-{plan.first}-{plan.seed}-{kill_at}-{mutant}"
    place.mkdir()
    if base is not None:
        shutil.copytree(base, place / "db")
    here = replace(plan, path=str(place / "db"))
    ended = server.call("run_until_killed", here, kill_at, mutant)
    if ended.status not in (-9, 0):
        told = ended.written.decode(errors="replace")
        return Verdict(point, [f"the child ended with {ended.status}: {told}"], broken=True)
    reports = with_history(Reports.parse(ended.lines), plan)
    call = next((each["call"] for each in reports.other if each["event"] == "killed"), "")
    verdict = inspected(server, point, call, place / "db", here, reports, twice=kill_at % 3 == 0)
    if not verdict.problems:
        shutil.rmtree(place)
    return verdict


def power_loss_point(
    server: ForkServer,
    directory: Path,
    plan: Plan,
    base: Path | None,
    lose_at: int,
    *,
    seeds: Sequence[int | None] = (None,),
    lose_on: str = "",
    mutant: str = "",
) -> list[Verdict]:
    """Lose the power in a run of the plan, and look at what may be left of it: one verdict for each of ``seeds``."""
    point = replay("power", plan, lose_at=lose_at, lose_on=lose_on, seeds=seeds, mutant=mutant)
    place = directory / f"power-{plan.writers}-{plan.first}-{plan.seed}-{lose_at}-{lose_on}-{mutant}"
    (place / "run").mkdir(parents=True)
    if base is not None:
        shutil.copytree(base, place / "run" / "db")
    here = replace(plan, path=str(place / "run" / "db"))
    survivors = [(str(place / f"left-{seed}"), seed) for seed in seeds]
    ended = server.call("run_until_power_loss", here, lose_at, lose_on, mutant, survivors)
    if ended.status != 0:
        told = ended.written.decode(errors="replace")
        return [Verdict(point, [f"the child ended with {ended.status}: {told}"], broken=True)]
    verdicts = []
    for left, _ in survivors:
        reports = with_history(Reports.parse(ended.lines), plan)
        call = next(each["call"] for each in reports.other if each["event"] == "lost")
        verdicts.append(inspected(server, point, call, Path(left) / "db", here, reports, twice=False))
    if not any(each.problems for each in verdicts):
        shutil.rmtree(place)
    return verdicts


def recovery_point(
    server: ForkServer, directory: Path, plan: Plan, base: Path | None, kill_at: int, recoveries: Sequence[int]
) -> Verdict:
    """Kill a run of the plan, then each of some recoveries at a write-class call of its own, and look."""
    point = replay("recovery", plan, kill_at=kill_at, recoveries=recoveries)
    place = directory / f"recovery-{plan.writers}-{plan.first}-{plan.seed}-{kill_at}"
    place.mkdir()
    if base is not None:
        shutil.copytree(base, place / "db")
    here = replace(plan, path=str(place / "db"))
    ended = server.call("run_until_killed", here, kill_at)
    reports = with_history(Reports.parse(ended.lines), plan)
    killed = 0
    for each in recoveries:
        ended = server.call("recover_until_killed", str(place / "db"), each)
        if ended.status not in (-9, 0):
            told = ended.written.decode(errors="replace")
            return Verdict(point, [f"recovery {killed} ended with {ended.status}: {told}"])
        killed += ended.status == -9
    verdict = inspected(server, point, f"{killed} recoveries killed", place / "db", here, reports, twice=True)
    if not verdict.problems:
        shutil.rmtree(place)
    return verdict


def volume_point(server: ForkServer, volume: Volume, plan: Plan, lose_at: int, flag: int) -> Verdict:
    """Shut a real file system down at the ``lose_at``-th write-class call of a run of the plan, and look.

    What is told after the shutdown has begun does not count: a sync that is under way then may report success for bytes
    that never reach the device (ext4 does so, which a loss of power cannot), so those batches are in flight.
    """
    point = replay("volume", plan, lose_at=lose_at, flag=flag)
    here = replace(plan, path=str(volume.root / "db"))
    ended = server.call("run_until_shutdown", here, str(volume.root), lose_at, flag)
    reports = Reports.parse(ended.lines, until="killed")
    call = next((each["call"] for each in reports.other if each["event"] == "killed"), "")
    # Another thread may meet the volume that is gone before the process is.
    if ended.status not in (-9, 0) and not call:
        told = ended.written.decode(errors="replace")
        return Verdict(point, [f"the child ended with {ended.status}: {told}"], broken=True)
    volume.restart()
    return inspected(server, point, call, volume.root / "db", here, reports, twice=False)


def error_point(
    server: ForkServer, directory: Path, plan: Plan, number: int, calls: tuple[str, ...], fail_at: int
) -> Verdict:
    """Have one call of a run of the plan return an error, and look."""
    point = replay("error", plan, number=number, calls=calls, fail_at=fail_at)
    place = directory / f"{errno.errorcode[number]}-{plan.seed}-{fail_at}"
    place.mkdir()
    here = replace(plan, path=str(place / "db"))
    ended = server.call("run_with_error", here, number, calls, fail_at)
    if ended.status != 0:
        told = ended.written.decode(errors="replace")
        return Verdict(point, [f"the child ended with {ended.status}: {told}"], broken=True)
    reports = Reports.parse(ended.lines)
    told = [each for each in reports.other if each["event"] == "differs"]
    verdict = inspected(server, point, "", place / "db", here, reports, twice=False)
    failed = next((each["call"] for each in reports.other if each["event"] == "failed"), "none")
    return replace(verdict, place=failed, problems=[*(f"before closing: {each}" for each in told), *verdict.problems])


def summary(verdicts: Sequence[Verdict]) -> str:
    """For the report: points by the call they were at, acknowledged batches."""
    places = Counter(each.place for each in verdicts)
    graphs = sum("graph" in each.strategies for each in verdicts)
    return (
        f"{len(verdicts)} points, {sum(each.acknowledged for each in verdicts)} acknowledged batches, "
        f"{sum(bool(each.problems) for each in verdicts)} points failed, "
        f"{graphs} were searched by graphs; at {dict(places.most_common())}"
    )


def failures(verdicts: Sequence[Verdict]) -> str:
    """The points that failed, with all that was found."""
    return "\n".join(f"{each.point}:\n  " + "\n  ".join(each.problems[:6]) for each in verdicts if each.problems)
