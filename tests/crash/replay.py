"""Runs one point of a crash test again: ``python -m tests.crash.replay KIND FACTS``, as a failed test prints it."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.crash.flips import Flip
from tests.crash.forks import Forks, ForkServer, forks
from tests.crash.history import state_after
from tests.crash.points import error_point, kill_point, power_loss_point, recovery_point, volume_point
from tests.crash.runs import base_of
from tests.crash.volume import Volume
from tests.crash.workload import Plan


def told(servers: Forks, directory: Path, kind: str, plan: Plan, facts: dict[str, Any]) -> object:
    """What became of the point this time."""
    if kind == "flip":
        from tests.crash.test_flips import base_of as base_to_flip
        from tests.crash.test_flips import findings

        base, _ = base_to_flip(servers, directory)
        flip = Flip(**facts["flip"])
        return findings(servers, base, state_after(plan.seed, {0: plan.batches}), [flip], directory)
    base = base_of(servers, directory, plan)

    def run(server: ForkServer, _: int) -> object:
        match kind:
            case "kill":
                return kill_point(server, directory, plan, base, **facts)
            case "recovery":
                return recovery_point(server, directory, plan, base, **facts)
            case "volume":
                with Volume() as volume:
                    return volume_point(server, volume, plan, **facts)
            case "error":
                return error_point(server, directory, plan, facts["number"], tuple(facts["calls"]), facts["fail_at"])
            case _:
                lose_at = facts.pop("lose_at")
                return power_loss_point(server, directory, plan, base, lose_at, **facts)

    return servers.map(run, [0])[0]


def main(kind: str, encoded: str) -> None:
    facts = json.loads(encoded)
    plan = Plan(**facts.pop("plan"))
    directory = Path(tempfile.mkdtemp(prefix="vecdb-replay-"))
    with forks(1) as servers:
        print(told(servers, directory, kind, plan, facts))
    print(f"what is left of it: {directory}")


if __name__ == "__main__":
    main(*sys.argv[1:])
